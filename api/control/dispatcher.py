"""Queue -> workers: books the next attempt of waiting jobs, sends tickets and wishes, repeats what took no effect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

import psycopg
import redis
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from api.book import lifecycle
from api.book.database import Sessions
from api.book.models import Attempt, Job, Trial, Worker
from api.book.status import HELD, Status
from api.control.broker import Postman
from api.profiles import Profile, Profiles
from api.settings import Settings
from training_core.spec import JobSpec
from training_core.wire import WISHES_HASH, Ticket, Wish

POLL_SECONDS = 1.0
QUEUE_LOOK = 200

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
            bell.execute(f"LISTEN {lifecycle.QUEUE_CHANNEL}")
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
        free = _free_slots(session)
        waiting = session.scalars(
            select(Job)
            .where(Job.status == Status.QUEUED, Job.cancel_requested_at.is_(None))
            .order_by(Job.priority.desc(), Job.id)
            .limit(QUEUE_LOOK)
            .with_for_update(skip_locked=True)
        ).all()
        for job in waiting:
            profile = self._profiles.choose(JobSpec.model_validate(job.spec).compute.profile, free)
            worker = next((worker for worker, slots in free.items() if _fits(profile, worker, slots)), None)
            if profile is None or worker is None:
                continue
            trial = session.scalars(select(Trial).where(Trial.job_id == job.id).with_for_update()).one()
            lifecycle.book_attempt(session, job, trial, worker, device=profile.device, devices=profile.devices)
            free[worker] -= profile.devices

    def _send_tickets(self) -> None:
        """Send every ticket that was never sent or not claimed in time; a lost or doubled one does no harm."""
        overdue = func.now() - text(f"interval '{self._settings.claim_seconds} seconds'")
        with self._sessions.begin() as session:
            unclaimed = session.execute(
                select(Attempt, Job.spec)
                .join(Job, Job.id == Attempt.job_id)
                .where(Attempt.finished_at.is_(None), Attempt.claimed_at.is_(None))
                .where(or_(Attempt.sent_at.is_(None), Attempt.sent_at < overdue))
            ).all()
        for attempt, spec in unclaimed:
            try:
                self._postman.send(_ticket(attempt, JobSpec.model_validate(spec)), attempt.worker)
            except BrokerError as error:
                log.warning("ticket of %s not sent (%s); it will be", attempt.id, type(error).__name__)
                return
            with self._sessions.begin() as session:
                session.execute(update(Attempt).where(Attempt.id == attempt.id).values(sent_at=func.now()))

    def _send_wishes(self) -> None:
        """Repeat every wish while it is not fulfilled, so that a flushed Redis forgets none."""
        with self._sessions.begin() as session:
            stopping = session.scalars(
                select(Attempt.id)
                .join(Job, Job.id == Attempt.job_id)
                .where(Attempt.finished_at.is_(None), Job.status.in_(HELD), Job.cancel_requested_at.is_not(None))
            ).all()
        if stopping:
            self._redis.hset(WISHES_HASH, mapping=dict.fromkeys(stopping, Wish.STOP.value))


def _ticket(attempt: Attempt, spec: JobSpec) -> Ticket:
    return Ticket(
        attempt_id=attempt.id,
        job_id=attempt.job_id,
        trial=attempt.trial,
        attempt=attempt.number,
        spec=spec,
        device=attempt.device,
        devices=attempt.devices,
        incarnation=attempt.incarnation,
        resume_from=attempt.resume_from,
    )


def _free_slots(session: Session) -> dict[Worker, int]:
    """Slots that each live worker can lend now, by the book's own count of what it gave away."""
    given = (
        select(Attempt.worker, func.sum(Attempt.devices)).where(Attempt.finished_at.is_(None)).group_by(Attempt.worker)
    )
    held: dict[str, int] = dict(session.execute(given).all())
    workers: Iterable[Worker] = session.scalars(
        select(Worker).where(Worker.status == "online", Worker.draining.is_(False)).order_by(Worker.name)
    )
    return {worker: worker.slots - held.get(worker.name, 0) for worker in workers}


def _fits(profile: Profile | None, worker: Worker, slots: int) -> bool:
    return profile is not None and profile.device == worker.device and profile.devices <= slots
