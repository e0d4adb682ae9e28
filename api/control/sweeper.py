"""Deletes the checkpoints of a search's trials that cannot go on: pruned, failed, or beaten by `keep_trials` others.

A pinned one stays, and so do those of the best trial so far, of one that waits or trains, and what another one adopts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from api.book import objective
from api.book.database import Sessions
from api.book.locks import lock_job
from api.book.models import Checkpoint, Job, Trial
from api.book.status import TERMINAL, Status
from api.control import findings
from api.errors import Problem
from api.settings import Settings
from api.store import Misplaced, Store
from training_core.contract.spec import Search

SWEEP_SECONDS = 3.0
LOOK_BACK = "interval '1 day'"  # a search that ended longer ago was swept, or its store is gone
MANIFEST, PINNED = "manifest.json", "pinned"  # without the first it is no checkpoint; the second is a client's pin

log = logging.getLogger("trainyard.sweeper")


class Sweeper:
    """One pass goes over all searches that are open or ended lately. Files go first: what is cut off begins again."""

    def __init__(self, sessions: Sessions, settings: Settings) -> None:
        self._sessions, self._store = sessions, Store(settings)
        self._refused: set[str] = set()

    def __call__(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.sweep()
            stop.wait(SWEEP_SECONDS)

    def sweep(self) -> None:
        """While the store does not answer everything stays, for the next pass."""
        with self._sessions() as session:
            found = [row for job in _searches(session) for row in superfluous(session, job)]
        try:
            for row in found:
                self._delete(row)
        except Problem as silent:
            log.warning("%s; the checkpoints of ended trials stay for now", silent.detail)

    def _delete(self, row: Checkpoint) -> None:
        try:
            gone = self._store.delete_checkpoint(row.job_id, row.trial, row.path, first=MANIFEST, unless=PINNED)
        except Misplaced as misplaced:
            if row.id not in self._refused:
                log.error("checkpoint %s is not deleted: it does not lie with its trial (%s)", row.id, misplaced)
            self._refused.add(row.id)
            return
        if not gone:
            return
        with self._sessions.begin() as session:
            job = lock_job(session, row.job_id)
            known = session.get_one(Checkpoint, row.id, with_for_update=True)
            if known.deleted_at is None:
                findings.forget_checkpoint(session, job, known)


def superfluous(session: Session, job: Job) -> Sequence[Checkpoint]:
    """Those of the search that nothing needs any more, oldest first."""
    needed = select(Trial.adopts).where(
        Trial.job_id == job.id, Trial.status.not_in(TERMINAL), Trial.adopts.is_not(None)
    )
    query = select(Checkpoint).join(Trial, (Trial.job_id == Checkpoint.job_id) & (Trial.number == Checkpoint.trial))
    query = query.where(Checkpoint.job_id == job.id, Checkpoint.deleted_at.is_(None), Checkpoint.pinned_at.is_(None))
    query = query.where(Trial.status.in_([Status.PRUNED, Status.FAILED]) | Trial.number.in_(_beaten(session, job)))
    query = query.where(Trial.number != _best(job), Checkpoint.path.not_in(needed))
    return session.scalars(query.order_by(Checkpoint.id)).all()


def _searches(session: Session) -> Sequence[Job]:
    lately = Job.finished_at.is_(None) | (Job.finished_at > func.now() - text(LOOK_BACK))
    return session.scalars(select(Job).where(Job.study.is_not(None), lately).order_by(Job.id)).all()


def _beaten(session: Session, job: Job) -> list[int]:
    """Of the trials that came to their end and still have checkpoints, all but the best `keep_trials`."""
    search = Search.model_validate(job.spec["search"])
    kept = select(Checkpoint.trial).where(Checkpoint.job_id == job.id, Checkpoint.deleted_at.is_(None))
    done = select(Trial.number, Trial.values).where(
        Trial.job_id == job.id, Trial.status == Status.SUCCEEDED, Trial.number.in_(kept)
    )
    values = {number: found or {} for number, found in session.execute(done)}
    return objective.best_first(search, values)[search.keep_trials :]


def _best(job: Job) -> int:
    """The best trial's number as the tuner sees it, which at a limit may be of one that was not at its end."""
    best = (job.study or {}).get("best") or {}
    return int(best.get("trial", -1))
