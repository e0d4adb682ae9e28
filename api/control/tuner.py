"""Searches -> trials: decides what each search does next, writes it into the book, and ends what is over.

One pass of one search is one transaction behind the job's lock: wherever it is cut off nothing of it has happened, and
the next pass decides the same from the same book.
"""

from __future__ import annotations

import logging
import threading
import time

import psycopg
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.book import slots, studies
from api.book.database import Sessions
from api.book.events import STUDY_CHANNEL
from api.book.locks import lock_job
from api.book.models import Job, JsonObject, Trial
from api.book.queries import held_trials, is_search, stopping
from api.book.status import TERMINAL, Status
from api.control import study_transitions
from api.profiles import Profiles
from api.search.concurrency import ONE, Placing, place
from api.search.decide import decide
from api.search.snapshot import load
from api.search.summary import summary
from api.search.view import Adopt, End, Move, Promote, Prune, Start, StudyView
from api.settings import Settings
from training_core.contract.errors import Reason

POLL_SECONDS = 2.0  # for what rings no bell: a worker that came, the end of `search.max_hours`

_Workers = tuple[tuple[str, str, int, int, int], ...]
_Seen = tuple[int, _Workers]  # the job's version, and the workers that there were

log = logging.getLogger("trainyard.tuner")


class Tuner:
    """`tune` is one pass of one search, `tune_all` one of each that is open."""

    def __init__(self, sessions: Sessions, profiles: Profiles, settings: Settings) -> None:
        self._sessions, self._profiles, self._settings = sessions, profiles, settings
        self._seen: dict[str, _Seen] = {}

    def __call__(self, stop: threading.Event) -> None:
        url = self._settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as bell:
            bell.execute(f"LISTEN {STUDY_CHANNEL}")
            due = 0.0
            while not stop.is_set():
                if time.monotonic() >= due:
                    self.tune_all()
                    due = time.monotonic() + POLL_SECONDS
                rung = [note.payload for note in bell.notifies(timeout=POLL_SECONDS / 2, stop_after=1)]
                rung += [note.payload for note in bell.notifies(timeout=0)] if rung else []
                for job_id in dict.fromkeys(rung):
                    self.tune(job_id)

    def tune_all(self) -> None:
        """Those that changed since their last pass, or whose workers did; and those whose time runs out some day."""
        with self._sessions() as session:
            wanted = select(Job.id, Job.version, Job.spec["search"]["max_hours"].astext)
            wanted = wanted.where(Job.status.not_in([*TERMINAL, Status.PAUSED]), Job.work == "train")
            found = session.execute(wanted.where(Job.spec["search"].astext.is_not(None)).order_by(Job.id)).all()
            workers = _workers(session)
        self._seen = {job_id: self._seen[job_id] for job_id, _, _ in found if job_id in self._seen}
        for job_id, version, max_hours in found:
            if max_hours is not None or self._seen.get(job_id) != (version, workers):
                self.tune(job_id)

    def tune(self, job_id: str) -> None:
        """Decide and write once. A search that waits for its client's wish is left alone."""
        try:
            with self._sessions.begin() as session:
                job = lock_job(session, job_id)
                if is_search(job) and _goes_on(job):
                    self._tune(session, job)
                seen = (job.version, _workers(session))
            self._seen[job_id] = seen
        except studies.Moved as moved:
            log.warning("%s; decided again at the next look", moved)

    def _tune(self, session: Session, job: Job) -> None:
        view = load(session, job)
        placing = self._placing(session, job, view)
        if stopping(job) is None and study_transitions.time_is_up(session, job, view):
            studies.stop(session, job, Reason.TIME_LIMIT)
        if stopping(job) is None:
            for move in _decided(view, placing.room - sum(one.busy for one in view.trials)):
                _write(session, job, view, move)
        elif not held_trials(session, job.id):
            study_transitions.end_at_limit(session, job, view)
        study = summary(view, _counts(session, job.id), placing)
        studies.note(session, job, study, _result(session, job.id, study))

    def _placing(self, session: Session, job: Job, view: StudyView) -> Placing:
        """One trial alone until the data is ready: it prepares it for all."""
        online = [room.worker for room in slots.rooms(session) if room.lends]
        assert view.spec is not None  # noqa: S101  `load` gives it
        placing = place(view.spec, self._profiles.choose(view.spec.compute.profile, online), online)
        return placing if job.data_ready_at is not None else Placing(ONE.parallel, placing.share)


def _workers(session: Session) -> _Workers:
    """As far as they say how many trials fit."""
    lending = [room.worker for room in slots.rooms(session) if room.lends]
    return tuple((one.name, one.device, one.slots, one.cores, one.memory_bytes) for one in lending)


def _decided(view: StudyView, room: int) -> list[Move]:
    """A decision that cannot be made ends its own search, and not the control plane of all others."""
    try:
        return decide(view, room)
    except Exception as fault:
        log.exception("a search of %d trials could not be decided on", len(view.trials))
        return [End(Reason.SEARCH_ERROR, f"The search could not decide how to go on ({type(fault).__name__})")]


def _goes_on(job: Job) -> bool:
    wished = job.cancel_requested_at is not None or job.pause_requested_at is not None
    return job.status not in TERMINAL and job.status != Status.PAUSED and not wished


def _write(session: Session, job: Job, view: StudyView, move: Move) -> None:
    match move:
        case Start():
            studies.add_trial(
                session, job, move.parameters, move.origin, rung=move.rung, until=move.until, sampler=move.sampler
            )
        case Promote():
            studies.promote(session, job, move.trial, rung=move.rung, until=move.until, why=move.why)
        case Adopt():
            _adopt(session, job, view, move)
        case Prune():
            studies.prune(session, job, move.trial, move.why)
        case End():
            study_transitions.end(session, job, move)


def _adopt(session: Session, job: Job, view: StudyView, move: Adopt) -> None:
    """Without a checkpoint of the source that still exists the member goes on from its own."""
    source = view.trials[move.source].checkpoint
    parameters = None if source is None else move.parameters
    studies.promote(
        session, job, move.trial, rung=move.rung, until=move.until, why=move.why, adopts=source, parameters=parameters
    )


def _counts(session: Session, job_id: str) -> dict[str, int]:
    query = select(Trial.status, func.count()).where(Trial.job_id == job_id).group_by(Trial.status)
    return dict(session.execute(query.order_by(Trial.status)).all())


def _result(session: Session, job_id: str, study: JsonObject) -> JsonObject | None:
    if study["best"] is None:
        return None
    best = select(Trial.result).where(Trial.job_id == job_id, Trial.number == study["best"]["trial"])
    return session.scalars(best).one()
