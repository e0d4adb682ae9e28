"""Lanes of the queue: work of one project that fits wherever any of it fits, so that one look at each lane is enough.

A lane's name says all that decides fit: the work, a plain job or a search, whether its data is ready, the part of a
device it takes, and its profile. Lanes are read off one index of `jobs`; nothing has to keep them up to date. What the
dispatcher decided about a lane at its last look is a row of `queue_lanes`, written when it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, literal_column, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book.models import Job, QueueLane, QueueLook, Trial
from api.book.models.jobs import LANE, WAITING
from api.book.status import Status
from training_core.contract.spec import JobSpec, Work

MOST_COUNTED = 1000  # places in a lane are counted so far
NEXT = 16  # heads that are read at a time

_LANE: ColumnElement[str] = literal_column(LANE)
_WAITING = text(WAITING)

# A loose index scan: as many steps as there are lanes, however many jobs wait in each.
_LANES = text(f"""
WITH RECURSIVE lanes AS (
  (SELECT jobs.project_id, {LANE} AS lane FROM jobs WHERE {WAITING} ORDER BY jobs.project_id, {LANE} LIMIT 1)
  UNION ALL
  SELECT further.* FROM lanes, LATERAL (
    SELECT jobs.project_id, {LANE} AS lane FROM jobs
    WHERE {WAITING} AND (jobs.project_id, {LANE}) > (lanes.project_id, lanes.lane)
    ORDER BY jobs.project_id, {LANE} LIMIT 1
  ) AS further
) SELECT project_id, lane FROM lanes
""")  # noqa: S608  constants of ours


class Head(NamedTuple):
    """One that waits, and its place in its lane: less is earlier."""

    place: int
    job_id: str


@dataclass(frozen=True)
class Lane:
    project_id: str
    name: str

    @property
    def work(self) -> Work:
        return "check" if self.name.startswith("check|") else "train"

    @property
    def ready(self) -> bool:
        return self.name.split("|", 4)[2] == "ready"

    @property
    def profile(self) -> str:
        return self.name.split("|", 4)[4]


def _in(lane: Lane) -> ColumnElement[bool]:
    return (Job.project_id == lane.project_id) & _LANE.op("=", is_comparison=True)(lane.name)


def lane_of_new(project_id: str, spec: JobSpec) -> Lane:
    """That of a job with this spec, as `LANE` names it, were it booked now."""
    kind = "plain" if spec.search is None else "search"
    share = "1.0" if spec.compute.share == "auto" else str(spec.compute.share)
    return Lane(project_id, f"train|{kind}|new|{share}|{spec.compute.profile}")


def open_lanes(session: Session) -> list[Lane]:
    """Those in which somebody waits."""
    return [Lane(project_id, name) for project_id, name in session.execute(_LANES)]


def heads(session: Session, lane: Lane, after: Head | None = None) -> list[Head]:
    """The next ones of the lane, by priority and age, behind `after`."""
    query = select(-Job.priority, Job.id).where(_WAITING, _in(lane))
    if after is not None:
        later = (Job.priority == -after.place) & (Job.id > after.job_id)
        query = query.where((Job.priority < -after.place) | later)
    return [Head(*found) for found in session.execute(query.order_by(Job.priority.desc(), Job.id).limit(NEXT))]


def lock_waiting(session: Session, job_id: str, *, wait: bool) -> tuple[Job, Lane] | None:
    """The job with its row locked, if it still waits; without `wait` also None where somebody else has it locked."""
    query = select(Job, _LANE).where(Job.id == job_id, _WAITING).with_for_update(of=Job, skip_locked=not wait)
    row = session.execute(query.execution_options(populate_existing=True)).one_or_none()
    return (row[0], Lane(row[0].project_id, row[1])) if row is not None else None


def waiting_trials(session: Session, job_id: str) -> list[int]:
    """Numbers of the queued trials of a job, as they go: those that have trained before go first."""
    query = select(Trial.number).where(Trial.job_id == job_id, Trial.status == Status.QUEUED)
    return list(session.scalars(query.order_by(Trial.attempt == 0, Trial.number).limit(NEXT)))


def place_in(session: Session, lane: Lane, priority: int, job_id: str | None = None) -> int:
    """1 for the head; without an id that of a job that were booked now. Counted to `MOST_COUNTED` and no further."""
    ahead = select(Job.id).where(_WAITING, _in(lane))
    before = Job.priority >= priority
    if job_id is not None:
        before = (Job.priority > priority) | ((Job.priority == priority) & (Job.id < job_id))
    counted = ahead.where(before).limit(MOST_COUNTED).subquery()
    return 1 + session.execute(select(func.count()).select_from(counted)).scalar_one()


def unbooked(session: Session) -> Sequence[str]:
    """Searches that count as begun though no attempt has any of their trials, while some wait for one."""
    begun = select(Job.id).where(Job.status.in_([Status.PREPARING, Status.RUNNING]), _WAITING)
    held = select(Trial.job_id).where(Trial.job_id == Job.id, Trial.status.in_([Status.PREPARING, Status.RUNNING]))
    queued = select(Trial.job_id).where(Trial.job_id == Job.id, Trial.status == Status.QUEUED)
    return session.scalars(begun.where(~held.exists(), queued.exists())).all()


@dataclass(frozen=True)
class Decision:
    """Why nobody of a lane was booked; `unserved` where no worker that is there could ever do it."""

    code: str
    message: str
    unserved: bool = False


def decisions(session: Session) -> dict[Lane, QueueLane]:
    return {Lane(row.project_id, row.lane): row for row in session.scalars(select(QueueLane))}


def decide(session: Session, taken: dict[Lane, Decision]) -> None:
    """What a look over all lanes came to. Only what changed is written, and the time of the look."""
    known = decisions(session)
    for lane, row in known.items():
        if lane not in taken:
            session.delete(row)
    for lane, found in taken.items():
        row = known.get(lane) or QueueLane(project_id=lane.project_id, lane=lane.name)
        if (row.code, row.message, row.unserved_since is not None) != (found.code, found.message, found.unserved):
            row.code, row.message, row.decided_at = found.code, found.message, func.now()
            row.unserved_since = (row.unserved_since or func.now()) if found.unserved else None
            session.add(row)
    statement = insert(QueueLook).values(id=1, looked_at=func.now())
    session.execute(statement.on_conflict_do_update(index_elements=[QueueLook.id], set_={"looked_at": func.now()}))


class Seen(NamedTuple):
    """A waiting job's lane, and what the last look decided about it, and when; None where it has not seen the job."""

    lane: Lane
    decision: Decision | None
    looked_at: datetime | None


def seen(session: Session, job: Job) -> Seen | None:
    """None for a job that does not wait."""
    same = (QueueLane.project_id == Job.project_id) & (QueueLane.lane == _LANE)
    query = select(_LANE, QueueLane, QueueLook.looked_at).outerjoin(QueueLane, same)
    query = query.outerjoin(QueueLook, QueueLook.looked_at >= Job.queued_at).where(Job.id == job.id, _WAITING)
    row = session.execute(query.select_from(Job)).one_or_none()
    if row is None:
        return None
    name, decided, looked_at = row
    if decided is None or looked_at is None:
        return Seen(Lane(job.project_id, name), None, None)
    decision = Decision(decided.code, decided.message, decided.unserved_since is not None)
    return Seen(Lane(job.project_id, name), decision, looked_at)


def give_full_time(session: Session, gap_seconds: float) -> None:
    """While nobody looked for so long nobody knows which workers there were: what is unserved is so from now on."""
    ago = func.now() - text(f"interval '{gap_seconds} seconds'")
    if session.execute(select(QueueLook.id).where(QueueLook.looked_at > ago)).first() is None:
        for row in session.scalars(select(QueueLane).where(QueueLane.unserved_since.is_not(None))):
            row.unserved_since = func.now()


def overdue(session: Session, seconds: float) -> Sequence[str]:
    """Queued jobs and checks that nobody could do for so long, some at a time."""
    ago = func.now() - text(f"interval '{seconds} seconds'")
    old = select(QueueLane).where(QueueLane.unserved_since < ago)
    found: list[str] = []
    for row in session.scalars(old):
        first = select(Job.id, Job.queued_at, Job.status).where(_WAITING, _in(Lane(row.project_id, row.lane)))
        some = first.order_by(Job.priority.desc(), Job.id).limit(MOST_COUNTED).subquery()
        late = select(some.c.id).where(some.c.queued_at < ago, some.c.status == Status.QUEUED)
        found += session.scalars(late.limit(NEXT)).all()
    return found
