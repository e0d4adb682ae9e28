"""An upload in parts: each a file of its own in the store until all are put together; any server takes any part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
from fastapi.concurrency import run_in_threadpool
from pydantic import ConfigDict, Field, field_validator
from sqlalchemy.orm import Session
from ulid import ULID

from api.book import audit, datasets
from api.book.audit import Actor
from api.book.models import Dataset, DatasetPart
from api.errors import Code, Problem, invalid_request, not_found
from api.uploads import digest
from api.uploads.body import Body, too_large
from api.uploads.holding import Depot, Holding, alone, clear_parts, ended, explained, life_of
from api.uploads.names import BadName, checked
from api.uploads.vault import Writing
from api.uploads.whole import of_key, set_key
from training_core.contract.spec import Part as SpecPart
from training_core.contract.uploads import ARCHIVES, PARTS, TABLES, stands_alone

NAMED_GAPS = 20


class UploadSpec(SpecPart):
    """An upload in parts: the name of its one file and, if it is known already, what that will be."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "pets.zip", "size_bytes": 400_000_000}]})

    name: str = Field(min_length=1, max_length=200, description="of the archive, table or list, such as pets.zip")
    size_bytes: int | None = Field(default=None, ge=1, description="of the whole file")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="of the whole file")

    @field_validator("name")
    @classmethod
    def _is_a_dataset(cls, name: str) -> str:
        try:
            checked(name)
        except BadName as problem:
            raise ValueError(f"the name {problem}") from None
        if "/" in name or not stands_alone(name):
            raise ValueError(f"the name is that of a file that ends in one of {', '.join(ARCHIVES + TABLES)}")
        return name


def begin(
    depot: Depot, caller: Actor, asked: UploadSpec, key: str | None
) -> tuple[Dataset, bool]:  # fmt: skip
    """A new upload, or the one that this idempotency key began; its announced size is not held before it comes."""
    fingerprint, settings = hashlib.sha256(asked.model_dump_json().encode()).digest(), depot.settings
    if asked.size_bytes is not None and asked.size_bytes > settings.upload_limit_bytes:
        fault = {"loc": ("body", "size_bytes"), "type": "less_than_equal", "ctx": {"le": settings.upload_limit_bytes}}
        raise invalid_request([{**fault, "msg": f"It must be at most {settings.upload_limit_bytes} here", "input": 0}])
    with explained(), depot.sessions.begin() as session:
        known = of_key(session, caller.project_id, key, "parts")
        if known is not None:
            if known.request_sha256 != fingerprint:
                detail = "This Idempotency-Key was used for a different body"
                raise Problem(422, Code.IDEMPOTENCY_KEY_REUSED, detail, hint="Use a new key for a new request")
            return known, True
        row = datasets.begin(session, caller.project_id, asked.name, "parts", life_of(settings))
        row.announced_bytes, row.announced_sha256, row.request_sha256 = asked.size_bytes, asked.sha256, fingerprint
        set_key(session, row, key)
        datasets.check_quota(session, row, asked.size_bytes or 0, settings.upload_quota_bytes)
        audit.record(session, caller, "datasets.create", row.id)
    return row, False


def open_upload(session: Session, project_id: str, dataset_id: str) -> Dataset:
    """One in parts that is not complete yet; raises 404 and 409 problems."""
    row = datasets.of(session, project_id, dataset_id)
    if row is None:
        raise not_found("dataset")
    if row.state != "uploading" or row.form != "parts":
        raise ended()
    return row


async def put(depot: Depot, body: Body, row: Dataset, number: int, told: str | None) -> DatasetPart:
    """Take one part, in the place of an earlier one of its number. Raises problems; then the earlier one stays."""
    holding = Holding(depot, row)
    file = f"{number:05d}-{ULID()}"
    writing: Writing | None = None
    try:
        await run_in_threadpool(_make_room, depot, row, body.announced or 0, holding)
        writing = await run_in_threadpool(Writing, depot.vault, row.id, f"{PARTS}/{file}")
        sha256 = await _take(body, writing, holding.keep)
        digest.check(told, sha256)
        part = DatasetPart(dataset_id=row.id, number=number, size_bytes=body.size, sha256=sha256, file=file)
        earlier = await run_in_threadpool(_note, depot, row, part, holding)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(_fail, depot, file, writing, holding)
        raise
    if earlier is not None:
        with suppress(Problem):
            await run_in_threadpool(depot.vault.delete, row.id, f"{PARTS}/{earlier.file}")
    return part


def _make_room(depot: Depot, row: Dataset, coming: int, holding: Holding) -> None:
    if row.held_bytes + coming > depot.settings.upload_limit_bytes:
        raise too_large(depot.settings.upload_limit_bytes)
    depot.vault.check_room(coming)
    holding.hold(coming)


async def _take(body: Body, writing: Writing, keep: Callable[[int], None]) -> str:
    sha256 = hashlib.sha256()

    def take(piece: bytes) -> None:
        keep(body.size)
        sha256.update(piece)
        writing.write(piece)

    async for piece in body.pieces():
        await run_in_threadpool(take, piece)
    if body.size == 0:
        raise Problem(422, Code.INVALID_REQUEST, "The part is empty", hint="Send its bytes as the body of the PUT")
    await run_in_threadpool(writing.close)
    return sha256.hexdigest()


def _note(depot: Depot, row: Dataset, part: DatasetPart, holding: Holding) -> DatasetPart | None:
    """The quota holds the part's own bytes from now on. The project's row is locked first, as everywhere."""
    holding.give_back(part.size_bytes)
    quota, life = depot.settings.upload_quota_bytes, life_of(depot.settings)
    with explained(), depot.sessions.begin() as session:
        current = session.get_one(Dataset, row.id)
        datasets.hold(session, current, 0, quota, life)
        earlier = datasets.put_part(session, current, part)
        if earlier is not None:
            datasets.hold(session, current, -earlier.size_bytes, quota, life)
    return earlier


def _fail(depot: Depot, file: str, writing: Writing | None, holding: Holding) -> None:
    """Whatever fails here goes with the whole upload."""
    row = holding.row
    with suppress(Exception):
        if writing is not None:
            writing.abandon()
    with suppress(Exception):
        depot.vault.delete(row.id, f"{PARTS}/{file}")
    with suppress(Exception):
        holding.give_back()
    with suppress(Exception), depot.sessions() as session:
        if datasets.of(session, row.project_id, row.id) is None:
            depot.vault.delete(row.id)


def put_together(depot: Depot, caller: Actor, dataset_id: str) -> bool:
    """Make one file of all parts; True when the dataset is ready, by this call or before. False: another call is at it.

    Raises problems: parts that are missing, a size or a sha256 that is not the announced one.
    """
    sessions, vault = depot.sessions, depot.vault
    with alone(sessions, dataset_id) as granted:
        if not granted:
            return False
        with sessions() as session:
            row = datasets.of(session, caller.project_id, dataset_id)
            if row is None:
                raise not_found("dataset")
            if row.state == "ready":
                return True
            parts = datasets.parts_of(session, dataset_id)
        _check_parts(row, parts)
        vault.check_room(sum(part.size_bytes for part in parts))
        file = vault.join(dataset_id, [part.file for part in parts], row.name)
        digest.check(row.announced_sha256, file.sha256)
        vault.settle(dataset_id, [file])
        with explained(), sessions.begin() as session:
            datasets.same_parts(session, row, parts)
            datasets.finish(session, session.get_one(Dataset, row.id), [file], row.request_sha256, row.name)
            audit.record(session, caller, "datasets.complete", row.id)
    with suppress(Problem):
        clear_parts(sessions, vault, dataset_id)
    return True


def _check_parts(row: Dataset, parts: Sequence[DatasetPart]) -> None:
    there = {part.number for part in parts}
    size = sum(part.size_bytes for part in parts)
    missing = [number for number in range(1, max(there, default=1) + 1) if number not in there]
    if not missing and (row.announced_bytes is None or row.announced_bytes == size):
        return
    if missing:
        detail = f"{len(missing)} of {max(there, default=1)} parts have not arrived"
    else:
        detail = f"{size:,} bytes have arrived, and {row.announced_bytes:,} were announced"
    raise Problem(
        409, Code.UPLOAD_INCOMPLETE, detail, hint="GET …/parts lists what has arrived; send the rest, then complete it",
        missing=missing[:NAMED_GAPS], received_bytes=size, announced_bytes=row.announced_bytes,
    )  # fmt: skip
