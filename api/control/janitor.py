"""Watches the workers: writes their heartbeats into the book and takes attempts back from those that fell silent.

Liveness is "the beat counter changed", timed by the database's clock alone. While Redis cannot be read nobody's
heart is heard, so after such a gap every worker gets its full time again before it is called lost.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import cast

import redis
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book import transitions
from api.book.database import Sessions
from api.book.events import record_event
from api.book.locks import StaleAttempt, lock_job
from api.book.models import Attempt, Job, Worker
from api.control import budgets
from api.settings import Settings
from training_core.contract.messages import RECORDED_HASH, WISHES_HASH, WORKERS_HASH, Heartbeat, Wish

LOOK_SECONDS = 1.0
MISSING_SECONDS = 60.0  # a live worker that neither runs an attempt nor reports its end: time for the spool to drain
REMEMBER = timedelta(days=1)  # how long an ended attempt's acknowledged number waits for a journal that was away

log = logging.getLogger("trainyard.janitor")


class Janitor:
    """One pass: hear, suspect, take back, warn of budgets, tidy."""

    def __init__(self, sessions: Sessions, client: redis.Redis, settings: Settings) -> None:
        self._sessions, self._redis, self._settings = sessions, client, settings
        self._missing_since: dict[str, float] = {}

    def __call__(self, stop: threading.Event) -> None:
        with self._sessions.begin() as session:
            _give_everyone_full_time(session)
        while not stop.is_set():
            self.look()
            stop.wait(LOOK_SECONDS)

    def look(self) -> None:
        """Compare the heartbeats with the book once."""
        beats = self._heartbeats()
        with self._sessions.begin() as session:
            for beat in beats.values():
                _write_down(session, beat)
            self._judge(session)
        self._take_back(beats)
        with self._sessions.begin() as session:
            budgets.watch(session)
        self._tidy(beats)

    def _heartbeats(self) -> dict[str, Heartbeat]:
        beats = {}
        for name, value in self._redis.hgetall(WORKERS_HASH).items():
            try:
                beat = Heartbeat.model_validate_json(value)
            except ValidationError:
                log.warning("a heartbeat in field %r cannot be read", name[:64])
                continue
            beats[beat.worker] = beat
        return beats

    def _judge(self, session: Session) -> None:
        """online -> suspected -> lost by silence, and back by a beat."""
        now = session.execute(select(func.now())).scalar_one()
        for worker in session.scalars(select(Worker).with_for_update()):
            silent_seconds = (now - worker.last_seen_at) / timedelta(seconds=1)
            if silent_seconds > self._settings.worker_lost_seconds:
                worker.status = "lost"
            elif silent_seconds > self._settings.worker_suspected_seconds:
                if worker.status == "online":
                    self._suspect(session, worker)
                worker.status = "suspected"
            else:
                worker.status = "online"

    def _suspect(self, session: Session, worker: Worker) -> None:
        for job_id in session.scalars(
            select(Attempt.job_id).distinct().where(Attempt.worker == worker.name, Attempt.finished_at.is_(None))
        ).all():
            job = lock_job(session, job_id)
            job.status_detail = f"Worker {worker.name} is unreachable; the job moves on if it stays silent"
            record_event(session, job, "worker.suspected", job.status_detail, {"worker": worker.name}, level="warning")

    def _take_back(self, beats: dict[str, Heartbeat]) -> None:
        with self._sessions.begin() as session:
            found = session.execute(
                select(Attempt, Worker).join(Worker, Worker.name == Attempt.worker).where(Attempt.finished_at.is_(None))
            ).all()
        for attempt, worker in found:
            message = self._why_lost(attempt, worker, beats.get(worker.name))
            if message is None:
                continue
            with self._sessions.begin() as session:
                try:
                    lost = session.get_one(Attempt, attempt.id)
                    transitions.lose(session, lost, message, self._settings.losses_limit)
                except StaleAttempt:
                    continue  # it settled by itself in the meantime, which is the better end
            log.warning("%s: %s", attempt.id, message)

    def _why_lost(self, attempt: Attempt, worker: Worker, beat: Heartbeat | None) -> str | None:
        if worker.status == "lost":
            return f"Worker {worker.name} was lost: no heartbeat"
        if worker.incarnation != attempt.incarnation:
            return f"Worker {worker.name} was restarted and does not hold attempt {attempt.number} any more"
        if beat is None or attempt.id in beat.attempts:
            self._missing_since.pop(attempt.id, None)
            return None
        missing_seconds = time.monotonic() - self._missing_since.setdefault(attempt.id, time.monotonic())
        if missing_seconds > MISSING_SECONDS:
            del self._missing_since[attempt.id]
            return f"Worker {worker.name} is alive but has not had attempt {attempt.number} for {missing_seconds:.0f} s"
        return None

    def _tidy(self, beats: dict[str, Heartbeat]) -> None:
        """Tell workers to drop what the book gave up, and forget messages about attempts that have ended."""
        running = {attempt_id for beat in beats.values() for attempt_id in beat.attempts}
        keys = cast("list[bytes]", [*self._redis.hkeys(WISHES_HASH), *self._redis.hkeys(RECORDED_HASH)])
        noted = {key.decode() for key in keys}
        with self._sessions.begin() as session:
            rows = select(Attempt.id, Attempt.finished_at, Job.finished_at < func.now() - REMEMBER)
            rows = rows.join(Job, Job.id == Attempt.job_id).where(Attempt.id.in_(running | noted))
            known = session.execute(rows).all()
        ended = {attempt_id for attempt_id, finished_at, _ in known if finished_at is not None}
        if abandoned := running & ended:
            self._redis.hset(WISHES_HASH, mapping=dict.fromkeys(abandoned, Wish.ABANDON.value))
        if done := (noted & ended) - running:
            self._redis.hdel(WISHES_HASH, *done)
        if old := {attempt_id for attempt_id, _, long_ago in known if long_ago} & noted:
            self._redis.hdel(RECORDED_HASH, *old)


def _write_down(session: Session, beat: Heartbeat) -> None:
    """A new beat moves `last_seen_at` to the database's now; a repeated one moves nothing."""
    values = {**beat.model_dump(exclude={"worker"}), "name": beat.worker, "status": "online"}
    statement = insert(Worker).values(**values)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Worker.name],
            set_={**{key: statement.excluded[key] for key in values if key not in ("name", "status")},
                  "last_seen_at": func.now()},
            where=(Worker.beat != statement.excluded.beat) | (Worker.incarnation != statement.excluded.incarnation),
        )
    )  # fmt: skip


def _give_everyone_full_time(session: Session) -> None:
    for worker in session.scalars(select(Worker).where(Worker.status != "lost").with_for_update()):
        worker.last_seen_at = func.now()
