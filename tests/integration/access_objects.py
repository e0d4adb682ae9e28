"""Real objects behind the ids of routes: put into the book and the store as the service itself would have."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from api.book import datasets, keys, lifecycle, secrets
from api.book.database import Sessions
from api.book.ids import new_id
from api.book.models import Artifact, AuditEntry, Checkpoint, DatasetPart, Job, Trial
from api.dataset_check import CheckSpec
from tests.integration.conftest import SECRETS_KEY, SPEC
from tests.integration.searches import ACCURACY, SPACE, Book
from tests.integration.test_findings import ACCOUNT
from training_core.contract.credentials import Credentials
from training_core.contract.errors import Reason
from training_core.contract.sealing import sealer_of
from training_core.contract.spec import JobSpec
from training_core.contract.uploads import UploadedFile

Ids = dict[str, str]
SECRET: dict[str, Any] = {"key": "AKIAEXAMPLE", "secret": "example"}
CHECK = {"task": SPEC["task"], "dataset": SPEC["dataset"]}


@dataclass
class World:
    """Two projects, and what was made in the first, `project_id`; `made` are the ids that no other project may see."""

    sessions: Sessions
    store: Path
    project_id: str
    made: set[str] = field(default_factory=set)
    numbers: count[int] = field(default_factory=count)

    def changes(self) -> list[tuple[str, str | None, str | None]]:
        """Action, key and address of everything in the audit log, oldest first."""
        query = select(AuditEntry.action, AuditEntry.key_id, AuditEntry.address).order_by(AuditEntry.id)
        with self.sessions() as session:
            return [tuple(row) for row in session.execute(query)]  # type: ignore[misc]


def a_job(world: World) -> Ids:
    """One that has ended and left everything that a job can leave."""
    with world.sessions.begin() as session:
        job = _submit(session, world, JobSpec.model_validate(SPEC))
        _finish(session, job)
        job.efficiency = {"step": 10, "final": True, "account": ACCOUNT}
        job.data_report = _report(world, job.id)
        return {"job_id": job.id}


def a_running_job(world: World) -> Ids:
    with world.sessions.begin() as session:
        job = _submit(session, world, JobSpec.model_validate(SPEC))
        values = {"status": "running", "reason": "training", "attempt": 1}
        session.execute(update(Trial).where(Trial.job_id == job.id).values(**values))
        job.status, job.reason = "running", "training"
        return {"job_id": job.id}


def a_queued_job(world: World) -> Ids:
    with world.sessions.begin() as session:
        return {"job_id": _submit(session, world, JobSpec.model_validate(SPEC)).id}


def a_paused_job(world: World) -> Ids:
    with world.sessions.begin() as session:
        job = _submit(session, world, JobSpec.model_validate(SPEC))
        session.execute(update(Trial).where(Trial.job_id == job.id).values(status="paused", reason="paused_by_client"))
        job.status, job.reason = "paused", "paused_by_client"
        return {"job_id": job.id}


def a_secret(world: World) -> Ids:
    sealer, name = sealer_of(SECRETS_KEY), f"secret-{next(world.numbers)}"
    assert sealer is not None
    with world.sessions.begin() as session:
        secrets.put(session, sealer, world.project_id, name, Credentials(**SECRET))
    return {"name": name}


def a_search(world: World) -> Ids:
    """With trials that have come to their end, of which the first has an account."""
    with world.sessions.begin() as session:
        job = _submit(session, world, JobSpec.model_validate({**SPEC, "search": {"space": SPACE, "trials": 4}}))
    book = Book(world.sessions, job.id)
    account = {"step": 10, "final": True, "account": ACCOUNT}
    for number in range(4):
        book.trial(number, Reason.COMPLETED, {ACCURACY: 0.5 + number / 10}, efficiency=account)
    return {"job_id": job.id, "number": "0"}


def a_check(world: World) -> Ids:
    with world.sessions.begin() as session:
        spec = CheckSpec.model_validate(CHECK).as_job()
        check = lifecycle.submit(session, world.project_id, spec, "check")
        world.made.add(check.id)
        check.data_report = _report(world, check.id)
        return {"check_id": check.id}


def a_checkpoint(world: World) -> Ids:
    ids = a_job(world)
    about = _file(world, f"jobs/{ids['job_id']}/c", "model.safetensors", b"0123456789")
    _file(world, about["path"], "manifest.json", b"{}")
    with world.sessions.begin() as session:
        row = Checkpoint(
            id=new_id("ckpt"), job_id=ids["job_id"], trial=0, attempt=1, step=4, epoch=1.0, metrics={},
            kept_because="best", **about,
        )  # fmt: skip
        session.add(row)
    return _noted(world, {**ids, "checkpoint_id": row.id})


def a_pinned_checkpoint(world: World) -> Ids:
    ids = a_checkpoint(world)
    with world.sessions.begin() as session:
        pinned = update(Checkpoint).where(Checkpoint.id == ids["checkpoint_id"]).values(pinned_at=func.now())
        session.execute(pinned)
    return ids


def an_artifact(world: World) -> Ids:
    ids = a_job(world)
    about = _file(world, f"jobs/{ids['job_id']}/a", "model.onnx", b"0123456789")
    with world.sessions.begin() as session:
        row = Artifact(
            id=new_id("art"), job_id=ids["job_id"], trial=0, attempt=1, kind="export", format="onnx", step=4, about={},
            **about,
        )  # fmt: skip
        session.add(row)
    return _noted(world, {**ids, "artifact_id": row.id})


def an_upload(world: World) -> Ids:
    """All of whose parts have come."""
    with world.sessions.begin() as session:
        row = datasets.begin(session, world.project_id, "pets.zip", "parts", timedelta(hours=1))
        about = _file(world, f"uploads/{row.id}/parts", "1", b"a part")
        [sha256] = about["sha256"].values()
        session.add(DatasetPart(dataset_id=row.id, number=1, size_bytes=6, sha256=sha256, file="1"))
    return _noted(world, {"dataset_id": row.id}) | {"number": "1"}


def a_dataset(world: World) -> Ids:
    with world.sessions.begin() as session:
        row = datasets.begin(session, world.project_id, "pets.zip", "parts", timedelta(hours=1))
        about = _file(world, f"uploads/{row.id}/data", "pets.zip", b"a zip")
        file = UploadedFile(path="pets.zip", size=5, sha256=about["sha256"]["pets.zip"])
        _file(world, f"uploads/{row.id}", "files.jsonl", file.model_dump_json().encode() + b"\n")
        datasets.finish(session, row, [file], None, "pets.zip")
    return _noted(world, {"dataset_id": row.id})


def a_key(world: World) -> Ids:
    with world.sessions.begin() as session:
        row, _ = keys.make(session, world.project_id, f"made-{next(world.numbers)}", ["jobs:read"])
    return _noted(world, {"key_id": row.id})


def _submit(session: Session, world: World, spec: JobSpec) -> Job:
    job = lifecycle.submit(session, world.project_id, spec)
    world.made.add(job.id)
    return job


def _finish(session: Session, job: Job) -> None:
    ended: dict[str, Any] = {"status": "succeeded", "reason": "completed", "finished_at": func.now()}
    session.execute(update(Trial).where(Trial.job_id == job.id).values(**ended))
    session.execute(update(Job).where(Job.id == job.id).values(**ended))
    session.refresh(job)


def _report(world: World, job_id: str) -> dict[str, Any]:
    path = f"jobs/{job_id}/data_report"
    _file(world, path, "data_report.json", json.dumps({"findings": []}).encode())
    _file(world, path, "removed.jsonl", b"{}\n")
    _file(world, path, "difficulty.csv", b"path,label\n")
    return {"dataset_version": "v1", "path": path, "images": 100, "findings": {}, "removed": {}}


def _file(world: World, folder: str, name: str, content: bytes) -> dict[str, Any]:
    """Writes it; returns what the rows of checkpoints and artifacts say of it."""
    (world.store / folder).mkdir(parents=True, exist_ok=True)
    (world.store / folder / name).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return {"path": folder, "size_bytes": len(content), "files": {name: len(content)}, "sha256": {name: sha256}}


def _noted(world: World, ids: Ids) -> Ids:
    world.made.update(ids.values())
    return ids
