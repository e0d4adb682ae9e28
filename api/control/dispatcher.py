"""Queue -> workers: books the next attempt of waiting jobs, sends tickets and wishes, repeats what took no effect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import psycopg
import redis
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from api.book import costs, endings, lifecycle, queries, slots
from api.book.costs import Lent
from api.book.database import Sessions
from api.book.events import QUEUE_CHANNEL
from api.book.locks import lock_trial, now
from api.book.models import Attempt, Job, Trial
from api.book.slots import Room
from api.book.status import HELD, Status
from api.control.broker import Postman
from api.profiles import Profile, Profiles
from api.settings import Settings
from training_core.spec import JobSpec, Work
from training_core.wire import WISHES_HASH, Reason, Ticket, Wish

POLL_SECONDS = 1.0
QUEUE_LOOK = 200
_GIVEN_BACK = {Reason.NO_SLOT, Reason.WORKER_SHUTDOWN, Reason.PAUSED_BY_CLIENT}

log = logging.getLogger("trainyard.dispatcher")


class Dispatcher:
    """One pass: book what fits, then send; both are repeated until they took effect."""

    def __init__(
        self, sessions: Sessions, client: redis.Redis, postman: Postman, profiles: Profiles, settings: Settings
    ) -> None:
        self._sessions, self._redis, self._postman = sessions, client, postman
        self._profiles, self._settings = profiles, settings

    def __call__(self, stop: threading.Event) -> None:
        url = self._settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as bell:
            bell.execute(f"LISTEN {QUEUE_CHANNEL}")
            while not stop.is_set():
                self.dispatch()
                for _ in bell.notifies(timeout=POLL_SECONDS, stop_after=1):
                    pass  # the bell says "look"; the book says what at

    def dispatch(self) -> None:
        """Book, send and wish once."""
        with self._sessions.begin() as session:
            self._book(session)
        self._send_tickets()
        self._send_wishes()

    def _book(self, session: Session) -> None:
        lending = [room for room in slots.rooms(session) if room.lends]
        for job in _waiting(session, "train"):
            profile = self._profiles.choose(job.spec["compute"]["profile"], [room.worker for room in lending])
            if profile is not None and not _used_up(session, job, profile.lent()):
                room = _roomiest_for(session, job, profile, lending)
                self._book_on(session, job, room, profile.lent())
        for job in _waiting(session, "check"):
            room = max((room for room in lending if room.takes_check()), key=_roominess, default=None)
            self._book_on(session, job, room, Lent(room.worker.device if room else "cpu", 0))

    def _book_on(self, session: Session, job: Job, room: Room | None, lent: Lent) -> None:
        if room is None:
            return
        trial = session.scalars(select(Trial).where(Trial.job_id == job.id).with_for_update()).one()
        lifecycle.book_attempt(session, job, trial, room.worker, lent)
        room.booked.append(slots.Booked(job.id, job.work, lent.devices, ready=job.data_ready_at is not None))

    def _send_tickets(self) -> None:
        """Send every ticket that was never sent or not claimed in time; a lost or doubled one does no harm."""
        overdue = func.now() - text(f"interval '{self._settings.claim_seconds} seconds'")
        with self._sessions.begin() as session:
            unclaimed = session.execute(
                select(Attempt, Job)
                .join(Job, Job.id == Attempt.job_id)
                .where(Attempt.finished_at.is_(None), Attempt.claimed_at.is_(None))
                .where(or_(Attempt.sent_at.is_(None), Attempt.sent_at < overdue))
            ).all()
            tickets = [(attempt, _ticket(session, attempt, job)) for attempt, job in unclaimed]
        for attempt, ticket in tickets:
            try:
                self._postman.send(ticket, attempt.worker)
            except BrokerError as error:
                log.warning("ticket of %s not sent (%s); it will be", attempt.id, type(error).__name__)
                return
            with self._sessions.begin() as session:
                session.execute(update(Attempt).where(Attempt.id == attempt.id).values(sent_at=func.now()))

    def _send_wishes(self) -> None:
        """Repeat what is wished until it is fulfilled: a flushed Redis forgets nothing. Drop what is not any more."""
        with self._sessions.begin() as session:
            held = session.execute(
                select(Attempt.id, Job)
                .join(Job, Job.id == Attempt.job_id)
                .where(Attempt.finished_at.is_(None), Job.status.in_(HELD))
            ).all()
        wishes = {attempt_id: _wish(job) for attempt_id, job in held}
        wanted = {attempt_id: wish.value for attempt_id, wish in wishes.items() if wish is not None}
        if wanted:
            self._redis.hset(WISHES_HASH, mapping=wanted)  # type: ignore[arg-type]
        if unwished := wishes.keys() - wanted.keys():
            self._redis.hdel(WISHES_HASH, *unwished)


def _wish(job: Job) -> Wish | None:
    """The one that goes furthest."""
    if job.cancel_requested_at is not None:
        return Wish.STOP
    if job.pause_requested_at is not None:
        return Wish.PAUSE
    return Wish.PROFILE if job.profile_requested_at is not None else None


def _waiting(session: Session, work: Work) -> Sequence[Job]:
    """Queued jobs, or queued checks, locked, in the order in which they go; a thousand checks hide no job."""
    query = select(Job).where(Job.status == Status.QUEUED, Job.cancel_requested_at.is_(None), Job.work == work)
    query = query.order_by(Job.priority.desc(), Job.id).limit(QUEUE_LOOK).with_for_update(skip_locked=True)
    return session.scalars(query).all()


def _roomiest_for(session: Session, job: Job, profile: Profile, lending: list[Room]) -> Room | None:
    ready = job.data_ready_at is not None
    fitting = [room for room in lending if profile.serves(room.worker) and room.takes(profile.devices, ready=ready)]
    home = _home(session, job) if ready else None
    return max(fitting, key=lambda room: (room.worker.name == home, _roominess(room)), default=None)


def _home(session: Session, job: Job) -> str | None:
    """The host that gave the job back in good health: its data lies there, ready."""
    last = queries.newest_attempt(session, job.id)
    return last.worker if last is not None and last.reason in _GIVEN_BACK else None


def _roominess(room: Room) -> tuple[int, int]:
    """The most free slots first, then the fewest attempts; equal rooms in the order of their names."""
    return room.unclaimed, -len(room.booked)


def _used_up(session: Session, job: Job, lent: Lent) -> bool:
    """Whether a job that comes back has nothing left to spend, which ends it."""
    if job.dispatched_at is None:
        return False
    return endings.end_if_used_up(session, job, lock_trial(session, job.id, 0), lent)


def _ticket(session: Session, attempt: Attempt, job: Job) -> Ticket:
    attempts = queries.attempts_of(session, job.id)
    first = costs.first_limit(job, attempts, Lent.to(attempt), now(session))
    return Ticket(
        attempt_id=attempt.id,
        job_id=attempt.job_id,
        trial=attempt.trial,
        attempt=attempt.number,
        work=job.work,
        spec=JobSpec.model_validate(job.spec),
        device=attempt.device,
        devices=attempt.devices,
        incarnation=attempt.incarnation,
        resume_from=attempt.resume_from,
        train_seconds=max(0.0, first.left_seconds) if attempt.devices else None,
        ends_because=first.reason,
    )
