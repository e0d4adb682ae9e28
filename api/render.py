"""Rows of the book as the answers of the API."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from api import accounts, render_search, schemas, waiting
from api.book import costs, lanes, lifecycle, queries, slots, status
from api.book.costs import Spent
from api.book.models import Artifact, Attempt, Checkpoint, Event, Job
from api.book.series import Series
from api.book.status import Status
from api.dataset_check import CheckSpec
from api.links import link
from api.profiles import Profiles
from training_core.contract.spec import EarlyStopping, JobSpec, Search

JOB_PARTS = ("events", "stream", "metrics", "checkpoints", "artifacts", "efficiency", "data_report")
CHECK_PARTS = ("events", "data_report")


def job(session: Session, row: Job, profiles: Profiles) -> schemas.JobAnswer:
    attempt, so_far = queries.newest_attempt(session, row.id), costs.total(session, row.id, row.updated_at)
    parts = (*JOB_PARTS, "trials") if queries.is_search(row) else JOB_PARTS
    return schemas.JobAnswer(
        **_shared(session, row, attempt, profiles),
        pause_requested=row.pause_requested_at is not None,
        profile_requested=row.profile_requested_at is not None,
        priority=row.priority,
        phases=schemas.Phases(
            queued=row.queued_at,
            dispatched=row.dispatched_at,
            data_ready=row.data_ready_at,
            processes_up=row.processes_up_at,
            first_step=row.first_step_at,
            finished=row.finished_at,
        ),
        progress=job_progress(row, so_far),
        best=_best(session, row),
        plan=row.plan,
        result=row.result,
        study=row.study,
        efficiency=accounts.summary(row.efficiency, so_far),
        cost=accounts.cost(row, attempt, so_far, profiles),
        device_hours=round(so_far.device_seconds / costs.HOUR_SECONDS, 6),
        spec=row.spec,
        urls={name: link(f"/v1/jobs/{row.id}/{name}") for name in parts},
    )


def dataset_check(session: Session, row: Job, profiles: Profiles) -> schemas.DatasetCheckAnswer:
    return schemas.DatasetCheckAnswer(
        **_shared(session, row, queries.newest_attempt(session, row.id), profiles),
        phases=schemas.CheckPhases(
            queued=row.queued_at,
            dispatched=row.dispatched_at,
            data_ready=row.data_ready_at,
            finished=row.finished_at,
        ),
        spec=CheckSpec.of_job(JobSpec.model_validate(row.spec)).model_dump(mode="json"),
        urls={name: link(f"/v1/dataset_checks/{row.id}/{name}") for name in CHECK_PARTS},
    )


def _shared(session: Session, row: Job, attempt: Attempt | None, profiles: Profiles) -> dict[str, Any]:
    """The fields of `schemas.WorkAnswer` that are the same for jobs and checks; `attempt` is the newest."""
    state = Status(row.status)
    return {
        "id": row.id,
        "name": row.name,
        "external_id": row.external_id,
        "status": row.status,
        "terminal": state in status.TERMINAL,
        "reason": row.reason,
        "status_detail": row.status_detail,
        "actions": lifecycle.actions_of(row),
        "cancel_requested": row.cancel_requested_at is not None,
        "labels": row.labels,
        "metadata": row.client_metadata,
        "attempt": attempt.number if attempt else 0,
        "hosts": _hosts(session, row, attempt),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "queue": None,
        "warnings": [],
        "data": row.data,
        "data_report": _data_report(row),
        "error": schemas.JobError.model_validate(row.error) if row.error else None,
        **(_waits(session, row, profiles) if state == Status.QUEUED else {}),
    }


def _hosts(session: Session, row: Job, attempt: Attempt | None) -> list[str]:
    if row.status in status.TERMINAL:
        return queries.hosts_of(session, row.id, ended=True)
    if queries.is_search(row):
        return queries.hosts_of(session, row.id)
    return [attempt.worker] if attempt is not None and attempt.finished_at is None else []


def _data_report(row: Job) -> schemas.DataReportSummary | None:
    return schemas.DataReportSummary.model_validate(row.data_report) if row.data_report else None


def job_progress(row: Job, so_far: Spent) -> schemas.Progress | None:
    if not queries.is_search(row):
        return training_progress(row.progress, Status(row.status))
    return render_search.progress(row, Search.model_validate(row.spec["search"]), so_far)


def training_progress(told: dict[str, Any] | None, state: Status) -> schemas.Progress | None:
    """Of one training, as it last reported; at its end nothing is left to wait for, and a success has done it all."""
    if not told:
        return None
    facts = {key: told[key] for key in ("fraction", "epoch", "step", "eta_seconds")}
    if state in status.TERMINAL:
        facts |= {"eta_seconds": 0.0} | ({"fraction": 1.0} if state == Status.SUCCEEDED else {})
    return schemas.Progress(**facts, samples_per_second=told["images_per_second"])


def _best(session: Session, row: Job) -> schemas.Best | None:
    if queries.is_search(row):
        return render_search.best(session, row)
    kept = queries.best_checkpoint(session, row.id)
    if kept is None or kept.kept_because != "best":
        return None
    value = kept.metrics.get((JobSpec.model_validate(row.spec).training.early_stopping or EarlyStopping()).metric)
    return schemas.Best(trial=kept.trial, value=value, checkpoint=kept.id, step=kept.step, metrics=kept.metrics)


def _waits(session: Session, row: Job, profiles: Profiles) -> dict[str, Any]:
    """Of a queued job: what the dispatcher's last look came to, and what its client should know of it."""
    seen = lanes.seen(session, row)
    if seen is None:  # a search that is about to end
        return {"queue": None, "warnings": []}
    position, found = lanes.place_in(session, seen.lane, row.priority, row.id), seen.decision or waiting.UNSEEN
    queue = schemas.Queue(position=position, code=found.code, reason=found.message, looked_at=seen.looked_at)
    if found.unserved:
        said = row.status_detail
        return {
            "queue": queue,
            "status_detail": f"{said}. {found.message}" if said else found.message,
            "warnings": [waiting.as_warning(found)],
        }
    if seen.decision is not None:
        return {"queue": queue, "warnings": []}
    nobody = waiting.nobody_serves(seen.lane.profile, profiles, slots.rooms(session))
    return {"queue": queue, "warnings": [waiting.as_warning(nobody)] if nobody is not None else []}


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
        key_id=row.key_id,
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
        step=row.step,
        epoch=row.epoch,
        metrics=row.metrics,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        files=row.files,
        kept_because=row.kept_because,
        pinned=row.pinned_at is not None,
        created_at=row.created_at,
        download_url=link(f"/v1/jobs/{row.job_id}/checkpoints/{row.id}/download"),
    )


def artifact(row: Artifact) -> schemas.ArtifactAnswer:
    return schemas.ArtifactAnswer(
        id=row.id,
        trial=row.trial,
        attempt=row.attempt,
        kind=row.kind,
        format=row.format,
        step=row.step,
        size_bytes=row.size_bytes,
        files=row.files,
        sha256=row.sha256,
        about=row.about,
        created_at=row.created_at,
        download_url=link(f"/v1/jobs/{row.job_id}/artifacts/{row.id}/download"),
    )
