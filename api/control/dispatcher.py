"""Queue -> workers: books the next attempt of waiting jobs, sends tickets and wishes, repeats what took no effect."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Iterable, Mapping
from datetime import timedelta

import psycopg
import redis
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import func, or_, select, text, update
from sqlalchemy.orm import Session

from api.book import costs, lanes, queries, references, secrets, slots
from api.book.costs import Lent
from api.book.database import Sessions
from api.book.events import QUEUE_CHANNEL
from api.book.locks import now
from api.book.models import Attempt, Job, Project, Trial
from api.book.status import TERMINAL
from api.control import unschedulable
from api.control.broker import Postman
from api.control.queue import Place, Queue
from api.profiles import Profiles
from api.settings import Settings
from training_core.contract.messages import WISHES_HASH, SealedSecret, Ticket, Wish

POLL_SECONDS = 1.0
GAP_SECONDS = 60.0  # without a look, after which nothing is known of the workers meanwhile

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
            with self._sessions.begin() as session:
                lanes.give_full_time(session, GAP_SECONDS)
            while not stop.is_set():
                self.dispatch()
                for _ in bell.notifies(timeout=POLL_SECONDS, stop_after=1):
                    pass  # the bell says "look"; the book says what at

    def dispatch(self) -> None:
        """Book, send and wish once."""
        while self._book():
            pass
        self._end_unschedulable()
        self._send_tickets()
        self._send_wishes()

    def _book(self) -> bool:
        """One look; whether there is more to book than one transaction should."""
        with self._sessions.begin() as session:
            queue = self._queue(session, {})
            queue.look()
            queue.queue_the_unbooked()
            lanes.decide(session, queue.decided)
        for job_id in queue.locked:
            # Reports of a busy search keep its row locked most of the time: it is waited for, with no other lock held.
            with self._sessions.begin() as session:
                self._queue(session, queue.reserved).look_at(job_id)
        return queue.more

    def _queue(self, session: Session, reserved: Mapping[str, Place]) -> Queue:
        after = timedelta(seconds=self._settings.reserve_after_seconds)
        return Queue(session, self._profiles, slots.rooms(session), after, reserved)

    def _end_unschedulable(self) -> None:
        """What nobody could do for as long as the operator lets it wait."""
        seconds = self._settings.unschedulable_after_seconds
        if not seconds:
            return
        with self._sessions() as session:
            late = lanes.overdue(session, seconds)
        for job_id in late:
            with self._sessions.begin() as session:
                unschedulable.end(session, job_id, seconds)

    def _send_tickets(self) -> None:
        """Send every ticket that was never sent or not claimed in time; a lost or doubled one does no harm."""
        overdue = func.now() - text(f"interval '{self._settings.claim_seconds} seconds'")
        with self._sessions.begin() as session:
            unclaimed = session.execute(
                select(Attempt, Job, Trial)
                .join(Job, Job.id == Attempt.job_id)
                .join(Trial, (Trial.job_id == Attempt.job_id) & (Trial.number == Attempt.trial))
                .where(Attempt.finished_at.is_(None), Attempt.claimed_at.is_(None))
                .where(or_(Attempt.sent_at.is_(None), Attempt.sent_at < overdue))
                .order_by(Attempt.id)
            ).all()
            tickets = [(attempt, _ticket(session, attempt, job, trial)) for attempt, job, trial in unclaimed]
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
                select(Attempt, Job)
                .join(Job, Job.id == Attempt.job_id)
                .where(Attempt.finished_at.is_(None), Job.status.not_in(TERMINAL))
                .order_by(Attempt.trial)
            ).all()
        wishes = _wishes((attempt, job) for attempt, job in held)
        wanted = {attempt_id: wish.value for attempt_id, wish in wishes.items() if wish is not None}
        if wanted:
            self._redis.hset(WISHES_HASH, mapping=wanted)  # type: ignore[arg-type]
        if unwished := wishes.keys() - wanted.keys():
            self._redis.hdel(WISHES_HASH, *unwished)


def _wishes(held: Iterable[tuple[Attempt, Job]]) -> dict[str, Wish | None]:
    """By attempt, the one that goes furthest. Of the trials of a search one is traced, the first that trains."""
    wishes: dict[str, Wish | None] = {}
    traced = set()
    for attempt, job in held:
        wish = _wish(job)
        if wish == Wish.PROFILE and queries.is_search(job):
            wish = wish if attempt.started_at is not None and job.id not in traced else None
            traced.add(job.id) if wish else None
        wishes[attempt.id] = wish
    return wishes


def _wish(job: Job) -> Wish | None:
    if job.cancel_requested_at is not None:
        return Wish.STOP
    if job.pause_requested_at is not None or queries.stopping(job) is not None:
        return Wish.PAUSE
    return Wish.PROFILE if job.profile_requested_at is not None else None


def _ticket(session: Session, attempt: Attempt, job: Job, trial: Trial) -> Ticket:
    lent, moment, spec = Lent.to(attempt), now(session), queries.trial_spec(job, trial)
    if queries.is_search(job):
        first = costs.trial_limit(session, job, trial, lent, moment)
    else:
        first = costs.first_limit(session, job, lent, moment)
    spec = queries.trial_spec(job, trial)
    return Ticket(
        attempt_id=attempt.id,
        job_id=attempt.job_id,
        project=session.get_one(Project, job.project_id).name,
        trial=attempt.trial,
        attempt=attempt.number,
        work=job.work,
        spec=spec,
        references=references.places(session, job.project_id, spec),
        secret=_secret(session, job.project_id, spec.dataset.credentials),
        device=attempt.device,
        devices=attempt.devices,
        share=attempt.share,
        incarnation=attempt.incarnation,
        resume_from=attempt.resume_from,
        rung=trial.rung,
        until=trial.until,
        adopt=trial.adopts is not None and attempt.resume_from is not None,
        train_seconds=max(0.0, first.left_seconds) if attempt.devices else None,
        ends_because=first.reason,
    )


def _secret(session: Session, project_id: str, name: str | None) -> SealedSecret | None:
    """The newest value; None also for a name that the project does not have now: the worker says so."""
    row = None if name is None else secrets.find(session, project_id, name)
    if row is None:
        return None
    return SealedSecret(project_id=project_id, name=row.name, sealed=base64.b64encode(row.sealed))
