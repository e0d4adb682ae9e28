"""One pass through the queue: which trial is booked on which worker, by the order of the queue and the room there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.book import costs, endings, lifecycle, queries, slots, studies
from api.book.costs import Lent
from api.book.events import touch
from api.book.locks import lock_trial, now
from api.book.models import Job, Trial
from api.book.slots import AHEAD, Room
from api.book.status import REASONS, Status
from api.profiles import Profile, Profiles
from training_core.wire import Reason

_GIVEN_BACK = {Reason.NO_SLOT, Reason.WORKER_SHUTDOWN, Reason.PAUSED_BY_CLIENT}


Place = tuple[int, str]  # in the queue: less is earlier


class Queue:
    """`book` is called for queued trials in their order, each with its job's row locked.

    A job that has waited for `reserve_after` keeps a worker for itself: nobody behind it is booked there, so that what
    comes free adds up to what it wants. `reserved` are those workers, by name, with the place of who waits for each.
    """

    def __init__(
        self,
        session: Session,
        profiles: Profiles,
        lending: Sequence[Room],
        reserve_after: timedelta,
        reserved: Mapping[str, Place],
    ) -> None:
        self._session, self._profiles, self._lending = session, profiles, lending
        self._reserve_after, self.reserved = reserve_after, dict(reserved)
        self._awaited: set[str] = set()  # workers on which somebody earlier in the queue waits for a slot

    def book(self, job: Job, trial: Trial) -> None:
        """Give the trial a worker, if one has room for it."""
        if queries.stopping(job) is not None:
            return
        profile = self._profiles.choose(job.spec["compute"]["profile"], [room.worker for room in self._lending])
        if profile is None:
            self._wait(job, [])
            return
        trial, lent = lock_trial(self._session, job.id, trial.number), profile.lent().part(share_of(job))
        if trial.status != Status.QUEUED or self._hopeless(job, trial, lent):
            return
        # One that came back for want of a slot waits here for one that is free, and not on a worker again.
        ahead = queries.is_search(job) and trial.reason != Reason.NO_SLOT
        room = self._room_for(job, profile, lent, ahead=ahead)
        if room is None:
            self._wait(job, self._serving(job, profile))
        else:
            self._book_on(job, trial, room, lent)

    def book_check(self, job: Job, trial: Trial) -> None:
        """Checks need no device, and wait only for each other."""
        room = max((room for room in self._lending if room.takes_check()), key=_roominess, default=None)
        if room is not None:
            trial = lock_trial(self._session, job.id, trial.number)
            self._book_on(job, trial, room, Lent(room.worker.device, 0))

    def _book_on(self, job: Job, trial: Trial, room: Room, lent: Lent) -> None:
        lifecycle.book_attempt(self._session, job, trial, room.worker, lent)
        ready = job.data_ready_at is not None
        room.booked.append(slots.Booked(job.id, job.work, lent.size, ready, queries.is_search(job)))

    def _hopeless(self, job: Job, trial: Trial, lent: Lent) -> bool:
        """Whether nothing is left to spend on it, or its parameters make no spec; both have an end of their own."""
        if not queries.is_search(job):
            return endings.end_if_used_up(self._session, job, trial, lent)
        limit = costs.search_used_up(self._session, job, lent, now(self._session))
        if limit is not None:
            studies.stop(self._session, job, limit.reason)
            return True
        try:
            queries.trial_spec(job, trial)
        except ValidationError as error:
            refused = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            why = f"the spec refuses these parameters together ({refused})"
            studies.end_trial(self._session, job, trial, Reason.UNSUPPORTED, why)
            return True
        return False

    def _room_for(self, job: Job, profile: Profile, lent: Lent, *, ahead: bool) -> Room | None:
        """The roomiest one. With nobody before it, the next trial of a search may wait on its worker for a slot."""
        ready = job.data_ready_at is not None
        home = _home(self._session, job) if ready and not queries.is_search(job) else None
        fitting = [room for room in self._serving(job, profile) if room.takes(lent.size, ready=ready)]
        if not fitting and ahead:
            free = [room for room in self._serving(job, profile) if room.worker.name not in self._awaited]
            fitting = [room for room in free if room.takes(lent.size, ready=ready, ahead=AHEAD)]
        return max(fitting, key=lambda room: (room.worker.name == home, _roominess(room)), default=None)

    def _wait(self, job: Job, serving: Sequence[Room]) -> None:
        """Nobody behind it goes ahead. A search of which no trial is held any more is itself in the queue again."""
        self._awaited |= {room.worker.name for room in serving}
        if not queries.is_search(job):
            self._reserve(job, serving)
            return
        if job.status == Status.QUEUED:
            return
        if not queries.held_trials(self._session, job.id):
            job.status, job.reason = REASONS[Reason.NO_SLOT].status, Reason.NO_SLOT
            job.queued_at = now(self._session)
            touch(self._session, job)

    def _reserve(self, job: Job, serving: Sequence[Room]) -> None:
        place = place_of(job)
        if place in self.reserved.values() or now(self._session) - job.queued_at < self._reserve_after:
            return
        free = [room for room in serving if room.worker.name not in self.reserved]
        if free:
            self.reserved[max(free, key=_roominess).worker.name] = place

    def _serving(self, job: Job, profile: Profile) -> list[Room]:
        """Workers of the profile that nobody before it waits for."""
        place = place_of(job)
        return [
            room
            for room in self._lending
            if profile.serves(room.worker) and self.reserved.get(room.worker.name, place) >= place
        ]


def place_of(job: Job) -> Place:
    return -job.priority, job.id


def share_of(job: Job) -> float:
    """The part of a device that each training of the job takes: its client's word, else what the tuner found best."""
    wanted = job.spec["compute"].get("share", "auto")
    chosen = (job.study or {}).get("share", 1.0) if wanted == "auto" else wanted
    return float(chosen)


def _home(session: Session, job: Job) -> str | None:
    """The host that gave the job back in good health: its data lies there, ready."""
    last = queries.newest_attempt(session, job.id)
    return last.worker if last is not None and last.reason in _GIVEN_BACK else None


def _roominess(room: Room) -> tuple[float, int]:
    """The most free slots first, then the fewest attempts; equal rooms in the order of their names."""
    return room.unclaimed, -len(room.booked)
