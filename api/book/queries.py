"""Reads of the book. Each takes a project where rows belong to one; nothing here writes or locks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ScalarSelect, Select, func, select
from sqlalchemy.orm import Session

from api.book.models import Artifact, Attempt, Checkpoint, Event, Job, Trial
from api.book.status import HELD
from training_core.contract.spec import JobSpec, Work
from training_core.contract.spec.space import apply

ID_PREFIX: dict[Work, str] = {"train": "job", "check": "chk"}


def dataset_key(spec: JobSpec) -> str:
    """The same for specs whose data is asked for in the same words."""
    return hashlib.sha256(spec.dataset.model_dump_json().encode()).hexdigest()


def is_search(job: Job) -> bool:
    return job.spec.get("search") is not None


def stopping(job: Job) -> str | None:
    """The reason that a search has begun to end for, if it has."""
    reason: str | None = (job.study or {}).get("stopping")
    return reason


def trial_spec(job: Job, trial: Trial) -> JobSpec:
    """What the trial trains: the job's own spec, with its parameters in their places where the job is a search."""
    spec = JobSpec.model_validate(job.spec)
    return apply(spec, trial.parameters) if is_search(job) else spec


def held_trials(session: Session, job_id: str) -> int:
    """How many of the job's trials an attempt has now."""
    held = select(func.count()).select_from(Trial).where(Trial.job_id == job_id, Trial.status.in_(HELD))
    return session.execute(held).scalar_one()


@dataclass(frozen=True)
class JobFilter:
    """Every given part narrows the list."""

    statuses: Sequence[str] = ()
    labels: Mapping[str, str] | None = None
    ids: Sequence[str] = ()
    name: str | None = None
    external_id: str | None = None
    created_after: datetime | None = None


def job_of(session: Session, project_id: str, job_id: str, work: Work = "train") -> Job | None:
    """None also for a dataset check where a job is asked for, and the other way round."""
    query = select(Job).where(Job.id == job_id, Job.project_id == project_id, Job.work == work)
    return session.scalars(query).one_or_none()


def list_jobs(
    session: Session, project_id: str, narrow: JobFilter, *, after: str | None, limit: int, work: Work = "train"
) -> Sequence[Job]:
    """Newest first, behind the job `after`; one more than `limit` tells that there is a next page.

    The range of ids keeps jobs and checks apart within the index on (project_id, id), however many there are of either.
    """
    first, last = f"{ID_PREFIX[work]}_", f"{ID_PREFIX[work]}_z"  # a ULID has no small letter
    query = select(Job).where(Job.project_id == project_id, Job.work == work, Job.id.between(first, last))
    if after is not None:
        query = query.where(Job.id < after)
    if narrow.statuses:
        query = query.where(Job.status.in_(narrow.statuses))
    if narrow.ids:
        query = query.where(Job.id.in_(narrow.ids))
    if narrow.labels:
        query = query.where(Job.labels.contains(dict(narrow.labels)))
    if narrow.name is not None:
        query = query.where(Job.name.contains(narrow.name, autoescape=True))
    if narrow.external_id is not None:
        query = query.where(Job.external_id == narrow.external_id)
    if narrow.created_after is not None:
        query = query.where(Job.created_at > narrow.created_after)
    return session.scalars(query.order_by(Job.id.desc()).limit(limit + 1)).all()


def events_after(
    session: Session, job_id: str, after: int, limit: int, types: Sequence[str] = (), *, trial: int | None = None
) -> Sequence[Event]:
    """With `trial` those that are about it."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after)
    if trial is not None:
        query = query.where(Event.trial == trial)
    if types:
        query = query.where(Event.type.in_(types))
    return session.scalars(query.order_by(Event.seq).limit(limit)).all()


def checkpoints_of(session: Session, job_id: str, trial: int | None = None) -> Sequence[Checkpoint]:
    """Those of a job, or of one of its trials, that still exist, newest step first."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None))
    if trial is not None:
        query = query.where(Checkpoint.trial == trial)
    return session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).all()


def checkpoint_of(session: Session, job_id: str, checkpoint_id: str) -> Checkpoint | None:
    return session.scalars(
        select(Checkpoint).where(
            Checkpoint.id == checkpoint_id, Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None)
        )
    ).one_or_none()


def best_checkpoint(session: Session, job_id: str, trial: int | None = None) -> Checkpoint | None:
    """Of a job, or of one of its trials; the newest where none that is kept was the best."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None))
    query = query if trial is None else query.where(Checkpoint.trial == trial)
    is_best = Checkpoint.kept_because == "best"
    return session.scalars(query.order_by(is_best.desc(), Checkpoint.step.desc()).limit(1)).first()


def checkpoint_ids(session: Session, job_id: str, paths: Iterable[str]) -> dict[str, str]:
    """By path, also of those that retention has taken."""
    query = select(Checkpoint.path, Checkpoint.id).where(Checkpoint.job_id == job_id, Checkpoint.path.in_(set(paths)))
    return {row.path: row.id for row in session.execute(query)}


def newest_checkpoint(session: Session, job_id: str, trial: int) -> str | None:
    """Path of the checkpoint to resume from, or None."""
    return session.scalars(_kept(job_id, trial).order_by(Checkpoint.step.desc(), Checkpoint.attempt.desc())).first()


def goes_on_from(session: Session, job_id: str, trial: Trial) -> str | None:
    """Path of the checkpoint that the trial's next attempt begins with, or None.

    A member of a population that adopts another one's goes on from that, or where it is gone already from the newest
    of the same member, and from its own again as soon as it has written one.
    """
    if trial.adopts is None:
        newest = _kept(job_id, trial.number).order_by(Checkpoint.attempt.desc(), Checkpoint.step.desc())
        return session.scalars(newest).first()
    source = select(Checkpoint.trial).where(Checkpoint.job_id == job_id, Checkpoint.path == trial.adopts)
    still = Checkpoint.path == trial.adopts
    best = _kept(job_id, source.scalar_subquery()).order_by(still.desc(), Checkpoint.step.desc())
    return session.scalars(best).first()


def _kept(job_id: str, trial: int | ScalarSelect[int]) -> Select[str]:
    query = select(Checkpoint.path).where(Checkpoint.job_id == job_id, Checkpoint.trial == trial)
    return query.where(Checkpoint.deleted_at.is_(None)).limit(1)


def artifacts_of(session: Session, job_id: str) -> Sequence[Artifact]:
    """Newest first."""
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.id.desc())).all()


def artifact_of(session: Session, job_id: str, artifact_id: str) -> Artifact | None:
    return session.scalars(select(Artifact).where(Artifact.id == artifact_id, Artifact.job_id == job_id)).one_or_none()


def attempts_of(session: Session, job_id: str) -> Sequence[Attempt]:
    """In the order in which they were booked."""
    return session.scalars(
        select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.booked_at, Attempt.number)
    ).all()


def hosts_of(session: Session, job_id: str, *, ended: bool = False) -> list[str]:
    """The workers that have an attempt of the job now, by name; of one that has `ended`, those that had one."""
    had = Attempt.claimed_at.is_not(None) if ended else Attempt.finished_at.is_(None)
    open_now = select(Attempt.worker).where(Attempt.job_id == job_id, had)
    return list(session.scalars(open_now.distinct().order_by(Attempt.worker)))


def newest_attempt(session: Session, job_id: str) -> Attempt | None:
    return session.scalars(
        select(Attempt)
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.booked_at.desc(), Attempt.number.desc())
        .limit(1)
    ).first()
