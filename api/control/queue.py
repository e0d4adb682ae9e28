"""One look at the queue: which trial is booked on which worker, and why the others wait.

Of each lane (`api/book/lanes.py`) only the first ones are looked at: when one of them fits nowhere, nobody behind it
does. So a look costs what there are lanes and what it books, however many wait.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import ValidationError
from sqlalchemy.orm import Session

from api import waiting
from api.book import costs, lanes, lifecycle, queries, slots, studies, transitions
from api.book.costs import Lent
from api.book.events import touch
from api.book.lanes import Decision, Head, Lane
from api.book.locks import lock_trial, now
from api.book.models import Job, Trial
from api.book.slots import AHEAD, Room
from api.book.status import REASONS, Status
from api.profiles import Profile, Profiles
from training_core.contract.errors import Reason

BOOKINGS_AT_ONCE = 200  # in one transaction; the next look follows at once
_GIVEN_BACK = {Reason.NO_SLOT, Reason.WORKER_SHUTDOWN, Reason.PAUSED_BY_CLIENT}

Place = tuple[int, str]  # priority and job


@dataclass
class Line:
    """A lane as the look goes through it. `profile` is None for checks."""

    lane: Lane
    profile: Profile | None
    waiting: deque[Head] = field(default_factory=deque)
    trials: deque[int] | None = None  # of the head, where it is a search


class Queue:
    """`look` goes through all lanes, `look_at` through one job's part of its own.

    Priority decides, then who has the least: projects share the devices of a kind evenly, as far as they want them;
    then age. A job that has waited for `reserve_after` keeps a worker for itself: nobody behind it is booked there, so
    that what comes free adds up to what it wants. `reserved` are those workers, by name, with who waits for each.
    """

    def __init__(
        self,
        session: Session,
        profiles: Profiles,
        rooms: Sequence[Room],
        reserve_after: timedelta,
        reserved: Mapping[str, Place],
    ) -> None:
        self._session, self._profiles, self._rooms = session, profiles, rooms
        self._lending = [room for room in rooms if room.lends]
        self._reserve_after, self.reserved = reserve_after, dict(reserved)
        self._awaited: set[str] = set()  # workers on which somebody earlier in the queue waits for a slot
        self._shares = _shares(rooms)
        self.locked: set[str] = set()  # jobs that somebody else had locked
        self.decided: dict[Lane, Decision] = {}
        self.bookings = 0

    @property
    def more(self) -> bool:
        """Whether the look ended before the queue did."""
        return self.bookings >= BOOKINGS_AT_ONCE

    def look(self) -> None:
        """Through all lanes."""
        lines = [line for lane in lanes.open_lanes(self._session) if (line := self._line(lane)) is not None]
        order = [(*self._order(line), number) for number, line in enumerate(lines) if self._fill(line)]
        heapq.heapify(order)
        while order:
            *place, number = heapq.heappop(order)
            line = lines[number]
            if (current := self._order(line)) != tuple(place):  # its project was given something meanwhile
                heapq.heappush(order, (*current, number))
            elif self.more:
                self.decided[line.lane] = waiting.MORE_TO_BOOK
            elif self._next(line):
                heapq.heappush(order, (*self._order(line), number))

    def look_at(self, job_id: str) -> None:
        """One job alone, whose lock is waited for."""
        found = lanes.lock_waiting(self._session, job_id, wait=True)
        if found is not None and (line := self._line(found[1])) is not None:
            job, _ = found
            for number in lanes.waiting_trials(self._session, job.id):
                if not self._book(line, job, number):
                    return

    def _line(self, lane: Lane) -> Line | None:
        """None where nobody is there that could take anybody of it."""
        workers = [room.worker for room in self._lending]
        if lane.work == "check":
            if not self._lending:
                somebody = any(room.worker.status != "lost" for room in self._rooms)
                nobody = Decision("no_worker", waiting.NO_WORKER, unserved=True)
                self.decided[lane] = waiting.NO_LENDER if somebody else nobody
                return None
            return Line(lane, None)
        found = waiting.nobody_serves(lane.profile, self._profiles, self._rooms)
        if found is not None:
            self.decided[lane] = found
            return None
        profile = self._profiles.choose(lane.profile, workers)
        if profile is None or not any(profile.serves(worker) for worker in workers):
            self.decided[lane] = waiting.nobody_lends(profile) if profile is not None else waiting.NO_LENDER
            return None
        return Line(lane, profile)

    def _fill(self, line: Line, after: Head | None = None) -> bool:
        line.waiting.extend(lanes.heads(self._session, line.lane, after))
        return bool(line.waiting)

    def _order(self, line: Line) -> tuple[int, float, str]:
        """Less is earlier: priority, what the project has of such devices, age."""
        head = line.waiting[0]
        return head.place, self._shares[_kind(line), line.lane.project_id], head.job_id

    def _next(self, line: Line) -> bool:
        """Book the line's next trial; whether there may be another one."""
        head = line.waiting[0]
        found = lanes.lock_waiting(self._session, head.job_id, wait=False)
        if found is None or found[1] != line.lane:
            self.locked.add(head.job_id)
            self.decided.setdefault(line.lane, waiting.IN_USE)
            return self._pass(line)
        job, _ = found
        if line.trials is None:
            line.trials = deque(lanes.waiting_trials(self._session, job.id))
        if not line.trials:
            self.decided.setdefault(line.lane, waiting.NO_TRIAL)
            return self._pass(line)
        if not self._book(line, job, line.trials.popleft()):
            return False
        if not line.trials:  # of a search there may be more than were read at a time
            line.trials = None if queries.is_search(job) else deque()
        return True if line.trials is None else bool(line.trials) or self._pass(line)

    def _pass(self, line: Line) -> bool:
        """On to the next job of the line, if there is one."""
        line.trials = None
        last = line.waiting.popleft()
        return bool(line.waiting) or self._fill(line, last)

    def _book(self, line: Line, job: Job, number: int) -> bool:
        """Give the trial a worker, if one has room for it; where none has, it is decided that the line waits."""
        profile = line.profile
        if profile is None:
            return self._book_check(line, job, number)
        if queries.stopping(job) is not None:
            return True
        trial, lent = lock_trial(self._session, job.id, number), profile.lent().part(share_of(job))
        if trial.status != Status.QUEUED or self._hopeless(job, trial, lent):
            return True
        # One that came back for want of a slot waits here for one that is free, and not on a worker again.
        ahead = queries.is_search(job) and trial.reason != Reason.NO_SLOT
        room = self._room_for(job, profile, lent, ahead=ahead)
        if room is None:
            self._wait(line, job, profile)
            return False
        self._book_on(job, trial, room, lent)
        self._shares[_kind(line), job.project_id] += lent.size
        return True

    def _book_check(self, line: Line, job: Job, number: int) -> bool:
        """Checks need no device, and wait only for each other."""
        room = max((room for room in self._lending if room.takes_check()), key=_roominess, default=None)
        if room is None:
            self.decided[line.lane] = waiting.CHECKS_FULL
            return False
        self._book_on(job, lock_trial(self._session, job.id, number), room, Lent(room.worker.device, 0))
        self._shares[_kind(line), job.project_id] += 1
        return True

    def _book_on(self, job: Job, trial: Trial, room: Room, lent: Lent) -> None:
        lifecycle.book_attempt(self._session, job, trial, room.worker, lent)
        ready = job.data_ready_at is not None
        room.booked.append(slots.Booked(job.id, job.work, lent.size, ready, queries.is_search(job), job.project_id))
        self.bookings += 1

    def _hopeless(self, job: Job, trial: Trial, lent: Lent) -> bool:
        """Whether nothing is left to spend on it, or its parameters make no spec; both have an end of their own."""
        if not queries.is_search(job):
            return transitions.end_if_used_up(self._session, job, trial, lent)
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

    def _wait(self, line: Line, job: Job, profile: Profile) -> None:
        """Nobody behind it goes ahead."""
        serving = self._serving(job, profile)
        self.decided[line.lane] = waiting.full(profile, ready=line.lane.ready) if serving else waiting.kept(profile)
        self._awaited |= {room.worker.name for room in serving}
        if not queries.is_search(job):
            self._reserve(job, serving)

    def queue_the_unbooked(self) -> None:
        """A search of which no trial is held any more is itself in the queue again."""
        for job_id in lanes.unbooked(self._session):
            found = lanes.lock_waiting(self._session, job_id, wait=False)
            if found is None or found[0].status == Status.QUEUED or queries.held_trials(self._session, job_id):
                continue
            job, _ = found
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
        """Workers of the profile that are not kept for somebody before it."""
        return [
            room
            for room in self._lending
            if profile.serves(room.worker) and _may_use(job, self.reserved.get(room.worker.name))
        ]


def place_of(job: Job) -> Place:
    return job.priority, job.id


def _may_use(job: Job, kept_for: Place | None) -> bool:
    return kept_for is None or kept_for[1] == job.id or job.priority > kept_for[0]


def _kind(line: Line) -> str:
    return line.profile.device if line.profile is not None else "check"


def _shares(rooms: Sequence[Room]) -> dict[tuple[str, str], float]:
    """What each project has of each kind of device: slots, or of checks their number."""
    found = defaultdict[tuple[str, str], float](float)
    for room in rooms:
        for one in room.booked:
            kind, size = (room.worker.device, one.size) if one.work == "train" else ("check", 1.0)
            found[kind, one.project_id] += size
    return found


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
