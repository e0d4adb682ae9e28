"""Rows of the book as the answers of the API."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api import schemas
from api.book import queries, status
from api.book.models import Checkpoint, Event, Job, Worker
from api.book.series import Series
from api.book.status import Status
from api.profiles import Profile, Profiles


def job(session: Session, row: Job, profiles: Profiles) -> schemas.JobAnswer:
    state = Status(row.status)
    attempt = queries.newest_attempt(session, row.id)
    best = queries.best_checkpoint(session, row.id)
    holding = attempt is not None and attempt.finished_at is None
    return schemas.JobAnswer(
        id=row.id,
        name=row.name,
        external_id=row.external_id,
        status=row.status,
        terminal=state in status.TERMINAL,
        reason=row.reason,
        status_detail=row.status_detail,
        actions=status.actions(state) if row.cancel_requested_at is None else [],
        cancel_requested=row.cancel_requested_at is not None,
        priority=row.priority,
        labels=row.labels,
        metadata=row.client_metadata,
        attempt=attempt.number if attempt else 0,
        hosts=[attempt.worker] if attempt and holding else [],
        created_at=row.created_at,
        updated_at=row.updated_at,
        queue=queue(session, row, profiles) if state == Status.QUEUED else None,
        phases=schemas.Phases(
            queued=row.queued_at,
            dispatched=row.dispatched_at,
            data_ready=row.data_ready_at,
            processes_up=row.processes_up_at,
            first_step=row.first_step_at,
            finished=row.finished_at,
        ),
        progress=job_progress(row),
        best=schemas.Best(checkpoint=best.id, step=best.step, metrics=best.metrics) if best else None,
        data=row.data,
        plan=row.plan,
        result=row.result,
        error=schemas.JobError.model_validate(row.error) if row.error else None,
        spec=row.spec,
        urls={name: f"/v1/jobs/{row.id}/{name}" for name in ("events", "stream", "metrics", "checkpoints")},
    )


def job_progress(row: Job) -> schemas.Progress | None:
    if not row.progress:
        return None
    facts = {key: row.progress[key] for key in ("fraction", "epoch", "step", "eta_seconds")}
    return schemas.Progress(**facts, samples_per_second=row.progress["images_per_second"])


def queue(session: Session, row: Job, profiles: Profiles) -> schemas.Queue:
    """Why it waits, in words a person can act on."""
    workers = {worker: worker.slots - sum(attempt.devices for attempt in held)
               for worker, held in queries.workers_with_attempts(session) if worker.status == "online"}  # fmt: skip
    name = row.spec["compute"]["profile"]
    profile = profiles.choose(name, workers)
    if not workers:
        reason = "No worker is online; start one with `python -m worker`"
    elif profile is None or not any(_serves(profile, worker) for worker in workers):
        reason = f"No online worker offers profile {name}"
    elif not any(_serves(profile, worker) and free >= profile.devices for worker, free in workers.items()):
        reason = f"All slots for profile {profile.name} are taken"
    else:
        reason = "A slot is free; the dispatcher takes the job next"
    return schemas.Queue(position=queries.queue_position(session, row), reason=reason)


def _serves(profile: Profile, worker: Worker) -> bool:
    return worker.device == profile.device and worker.slots >= profile.devices


def event(row: Event) -> schemas.EventAnswer:
    return schemas.EventAnswer(
        id=f"{row.job_id}:{row.seq}",
        seq=row.seq,
        type=row.type,
        job_id=row.job_id,
        trial=row.trial,
        created_at=row.created_at,
        level=row.level,
        message=row.message,
        data=row.data,
    )


def series(found: Series) -> schemas.SeriesAnswer:
    return schemas.SeriesAnswer(
        trial=found.trial,
        name=found.name,
        steps=found.steps,
        epochs=found.epochs,
        times=found.times,
        values=found.values,
        total_points=found.total_points,
        downsampled=len(found.steps) < found.total_points,
    )


def checkpoint(row: Checkpoint) -> schemas.CheckpointAnswer:
    return schemas.CheckpointAnswer(
        id=row.id,
        trial=row.trial,
        attempt=row.attempt,
        path=row.path,
        step=row.step,
        epoch=row.epoch,
        metrics=row.metrics,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        files=row.files,
        kept_because=row.kept_because,
        created_at=row.created_at,
        download_url=f"/v1/jobs/{row.job_id}/checkpoints/{row.id}/download",
    )
