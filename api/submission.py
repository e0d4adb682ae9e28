"""What a POST checks beyond the schema, and how a repeated one finds the job or dataset check it already made."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.auth import Principal
from api.bodies.spaces import as_fault
from api.book import audit, lifecycle, references
from api.book.events import act_for
from api.book.models import IdempotencyKey, Job
from api.dataset_check import CheckSpec
from api.errors import Code, Problem, invalid_request, unsupported
from api.known_secrets import KnownSecrets
from api.pin_files import deleted, put_pin
from api.profiles import Profiles
from api.search.snapshot import misfits
from api.settings import Settings
from api.store import Store
from api.uris import scheme_fault, uris_of
from training_core.contract.errors import Failed
from training_core.contract.spec import JobSpec
from training_core.contract.spec.conflicts import check_together
from training_core.contract.spec.space_values import Fault
from training_core.contract.uris import UPLOAD, parse


def check(spec: JobSpec, profiles: Profiles, settings: Settings) -> None:
    """What the schema cannot know of a job; raises a 422 for what can never run."""
    profile = spec.compute.profile
    if profile != "auto" and profile not in profiles.by_name:
        raise invalid_request([_fault(("compute", "profile"), "profile", profile, list(profiles.by_name))])
    _check_schemes(spec, settings)
    try:
        check_together(spec)
    except Failed as problem:
        raise unsupported(problem) from None


def check_references(session: Session, project_id: str, spec: JobSpec) -> None:
    """Raises a 422 for ids that stand for nothing here, and for a search that none can start from."""
    found = [as_fault(Fault(one.place, why)) for one, why in references.unresolved(session, project_id, spec)]
    if found:
        raise invalid_request(found)
    check_warm_start(session, project_id, spec)


def keep_references(session: Session, store: Store, caller: Principal, spec: JobSpec) -> None:
    """Pin what the job starts from, or learns from, where retention might take it first."""
    for row in references.at_risk(session, caller.project_id, spec):
        put_pin(store, row.path)
        if not references.keep(session, caller, row):
            raise deleted()


def check_warm_start(session: Session, project_id: str, spec: JobSpec) -> None:
    """Raises a 422 for an earlier search that a new one cannot start from."""
    found = misfits(session, project_id, spec)
    if found:
        places = [(("search", "warm_start", one.index), one.why) for one in found]
        raise invalid_request([as_fault(Fault(place, why)) for place, why in places])


def check_without_training(spec: CheckSpec, settings: Settings) -> None:
    """What the schema cannot know of a dataset check; raises a 422 for what can never run."""
    if spec.dataset.label_check is not None:
        message = "label_check trains models; it belongs to a job and not to a dataset check"
        fault = {"type": "value_error", "loc": ("body", "dataset", "label_check"), "ctx": {"error": message}}
        raise invalid_request([fault])
    _check_schemes(spec, settings)


def _check_schemes(spec: JobSpec | CheckSpec, settings: Settings) -> None:
    faults = [
        scheme_fault(place, link.scheme, settings)
        for place, uri in uris_of(spec)
        for link in parse(uri, uploads=True)
        if link.scheme not in {*settings.schemes, UPLOAD}
    ]
    if faults:
        raise invalid_request(faults)


def _fault(place: tuple[str, ...], what: str, given: str, allowed: list[str]) -> dict[str, Any]:
    expected = ", ".join(f"'{name}'" for name in allowed)
    return {
        "type": "literal_error",
        "loc": ("body", *place),
        "msg": f"This {what} is not offered here; it must be one of {expected}",
        "input": given,
        "ctx": {"expected": expected},
    }


def submit(
    session: Session, caller: Principal, known_secrets: KnownSecrets, asked: JobSpec | CheckSpec, key: str | None
) -> tuple[Job, bool]:
    """Book the job or the dataset check, or find the one that this key made: (job, replayed).

    The key's row is in the job's own transaction. A second request with the same key waits on that row until the
    first has committed, and then finds its job; so concurrent retries make one job, whatever dies in between.
    """
    digest = digest_of(asked)
    if key is not None and (known := _known(session, caller, key, digest)) is not None:
        return known, True
    try:
        with session.begin_nested():
            known_secrets.check(session, caller.project_id, asked.dataset.credentials)
            return _book(session, caller, asked, key, digest), False
    except (IntegrityError, _TwinWasFirst) as error:
        if key is not None and (known := _known(session, caller, key, digest)) is not None:
            return known, True
        if not isinstance(error, IntegrityError) or "external_id" not in str(error.orig):
            raise
        detail = "Another job or dataset check of this project has this external_id"
        hint = "GET /v1/jobs?external_id=… or GET /v1/dataset_checks?external_id=… finds it"
        raise Problem(409, Code.EXTERNAL_ID_TAKEN, detail, hint=hint) from None


def digest_of(asked: BaseModel) -> bytes:
    """SHA-256 of what is asked for, whatever the order of its members, and whether or not its defaults are written."""
    document = json.dumps(asked.model_dump(), sort_keys=True, default=_plain)
    return hashlib.sha256(document.encode()).digest()


def _plain(value: object) -> str:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


class _TwinWasFirst(Exception):
    """Another request with this key committed while we waited; the savepoint takes our job back."""


def _book(session: Session, caller: Principal, asked: JobSpec | CheckSpec, key: str | None, digest: bytes) -> Job:
    act_for(session, caller.key_id)
    if isinstance(asked, CheckSpec):
        check_references(session, caller.project_id, asked.as_job())
        job = lifecycle.submit(session, caller.project_id, asked.as_job(), "check")
    else:
        check_references(session, caller.project_id, asked)
        job = lifecycle.submit(session, caller.project_id, asked)
    if key is not None:
        row = {"project_id": caller.project_id, "key": key, "request_sha256": digest, "job_id": job.id}
        statement = insert(IdempotencyKey).values(**row).on_conflict_do_nothing().returning(IdempotencyKey.key)
        if session.execute(statement).first() is None:
            raise _TwinWasFirst
    action = "dataset_checks.create" if isinstance(asked, CheckSpec) else "jobs.create"
    audit.record(session, caller, action, job.id)
    return job


def _known(session: Session, caller: Principal, key: str, digest: bytes) -> Job | None:
    row = session.scalars(
        select(IdempotencyKey).where(IdempotencyKey.project_id == caller.project_id, IdempotencyKey.key == key)
    ).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != digest:
        detail = "This Idempotency-Key was used for a different body"
        raise Problem(422, Code.IDEMPOTENCY_KEY_REUSED, detail, hint="Use a new key for a new request")
    return session.get_one(Job, row.job_id)
