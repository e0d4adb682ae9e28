"""Trials, and what all trials of a search say together, as the answers of the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from api import accounts, render, schemas
from api.book import costs, queries
from api.book.models import Attempt, Job, Trial
from api.book.status import TERMINAL, Status
from api.links import link
from api.search import listing
from api.search.listing import Belongings
from training_core.contract.spec import JobSpec, Search


def search_of(row: Job) -> Search | None:
    """What the job searches for; None where it is one training."""
    return JobSpec.model_validate(row.spec).search


def trials(session: Session, row: Job, rows: Sequence[Trial]) -> list[schemas.TrialAnswer]:
    own, search = listing.belongings(session, row.id, [one.number for one in rows]), search_of(row)
    return [schemas.TrialAnswer(**_shared(row, search, one, own)) for one in rows]


def detail(session: Session, row: Job, trial: Trial) -> schemas.TrialDetail:
    """Everything of one trial; of a plain job's one, what the job has."""
    own = listing.belongings(session, row.id, [trial.number])
    attempts, told = own.attempts.get(trial.number, ()), _told(row, trial)
    so_far = costs.total(session, row.id, row.updated_at, trial=trial.number)
    ids = queries.checkpoint_ids(session, row.id, (one.resume_from for one in attempts if one.resume_from))
    return schemas.TrialDetail(
        **_shared(row, search_of(row), trial, own),
        spec=queries.trial_spec(row, trial).model_dump(mode="json"),
        plan=told.plan,
        result=told.result,
        efficiency=accounts.summary(told.efficiency, so_far),
        attempts=[_attempt(one, row.updated_at, ids) for one in attempts],
    )


def _told(row: Job, trial: Trial) -> Job | Trial:
    """Where the reports of the trial's training are: a plain job has those of its one trial."""
    return trial if queries.is_search(row) else row


def _shared(row: Job, search: Search | None, trial: Trial, own: Belongings) -> dict[str, Any]:
    attempts, rungs = own.attempts.get(trial.number, ()), own.rungs.get(trial.number, ())
    kept, told = own.checkpoints.get(trial.number), _told(row, trial)
    return {
        "job_id": row.id,
        "number": trial.number,
        "status": trial.status,
        "terminal": trial.status in TERMINAL,
        "reason": trial.reason,
        "why": trial.why,
        "origin": trial.origin,
        "parameters": trial.parameters,
        "value": (trial.values or {}).get(search.objectives[0].metric) if search is not None else None,
        "values": trial.values,
        "rungs": [schemas.RungAnswer.model_validate(one, from_attributes=True) for one in rungs],
        "until": trial.until,
        "reached": trial.reached,
        "checkpoint": kept.id if kept is not None else None,
        "progress": render.training_progress(told.progress, Status(trial.status)),
        "attempt": trial.attempt,
        "device_seconds": round(sum(_device_seconds(one, row.updated_at) for one in attempts), 3),
        "error": schemas.JobError.model_validate(told.error) if told.error else None,
        "created_at": trial.created_at,
        "started_at": trial.started_at if told is trial else row.first_step_at,
        "finished_at": trial.finished_at,
        "urls": urls(row.id, trial.number),
    }  # fmt: skip


def urls(job_id: str, number: int) -> Mapping[str, str]:
    return {
        "self": link(f"/v1/jobs/{job_id}/trials/{number}"),
        "metrics": link(f"/v1/jobs/{job_id}/metrics?trials={number}"),
        "checkpoints": link(f"/v1/jobs/{job_id}/checkpoints?trial={number}"),
        "stream": link(f"/v1/jobs/{job_id}/stream?trial={number}"),
    }


def _device_seconds(attempt: Attempt, moment: datetime) -> float:
    return costs.held_seconds(attempt, moment, moment) * attempt.devices * attempt.share


def _attempt(attempt: Attempt, moment: datetime, ids: Mapping[str, str]) -> schemas.AttemptAnswer:
    held, lent = _device_seconds(attempt, moment), attempt.devices * attempt.share
    training, evaluation = _times(attempt.training_seconds, lent), _times(attempt.evaluation_seconds, lent)
    return schemas.AttemptAnswer(
        number=attempt.number,
        worker=attempt.worker,
        reason=attempt.reason,
        devices=attempt.devices,
        share=attempt.share,
        resumed_from=ids.get(attempt.resume_from or ""),
        booked_at=attempt.booked_at,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        device_seconds=held,
        training_seconds=training,
        evaluation_seconds=evaluation,
        overhead_seconds=None if training is None or evaluation is None else held - training - evaluation,
    )


def _times(seconds: float | None, devices: float) -> float | None:
    return None if seconds is None else seconds * devices
