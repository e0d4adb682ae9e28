"""Why work waits: the words of the dispatcher's decisions, and of the answers to what is not booked yet."""

from __future__ import annotations

from collections.abc import Sequence

from api import schemas
from api.book.lanes import Decision
from api.book.slots import Room
from api.profiles import Profile, Profiles

NO_WORKER = "No worker is online; start one with `python -m worker`"


def nobody_serves(name: str, profiles: Profiles, rooms: Sequence[Room]) -> Decision | None:
    """For a job by the profile `name` (or a check, by none) that no worker which is there could ever do."""
    there = [room for room in rooms if room.worker.status != "lost"]
    if not there:
        return Decision("no_worker", NO_WORKER, unserved=True)
    profile = profiles.choose(name, [room.worker for room in there])
    if profile is None:
        return Decision("not_served", f"No online worker offers profile {name}", unserved=True)
    if not any(profile.serves(room.worker) for room in there):
        needs = f"one with {profile.devices} {profile.device} slot{'s' if profile.devices > 1 else ''} would"
        return Decision("not_served", f"No online worker offers profile {profile.name}; {needs}", unserved=True)
    return None


def as_warning(found: Decision) -> str:
    """To whoever submits a job that nobody here could do."""
    return f"compute.profile cannot be served now: {found.message}"


def warnings_of(queue: schemas.Queue) -> list[str]:
    """Of a plan's queue."""
    found = Decision(queue.code, queue.reason)
    return [as_warning(found)] if queue.code in ("no_worker", "not_served") else []


def nobody_lends(profile: Profile) -> Decision:
    message = f"Every worker that offers profile {profile.name} is about to go, or was not heard for a while"
    return Decision("not_lending", message)


def kept(profile: Profile) -> Decision:
    return Decision("kept_for_another", f"What comes free for profile {profile.name} is kept for one that waited long")


def full(profile: Profile, *, ready: bool) -> Decision:
    if ready:
        return Decision("slots_taken", f"All slots for profile {profile.name} are taken")
    message = f"All slots for profile {profile.name} are taken or awaited by jobs whose data is being prepared"
    return Decision("slots_awaited", message)


CHECKS_FULL = Decision("checks_full", "Every worker has as many dataset checks as it runs at once")
NO_LENDER = Decision("not_lending", "Every worker is about to go, or was not heard for a while")
IN_USE = Decision("changing", "It is being changed at this moment; the next look takes it")
NO_TRIAL = Decision("no_trial_yet", "The search has not put a trial into the queue yet")
MORE_TO_BOOK = Decision("next", "Others were booked at this look; the next one follows at once")
UNSEEN = Decision("not_looked_at", "The dispatcher has not looked at it yet, which it does every second")


def likely(name: str, profiles: Profiles, rooms: Sequence[Room]) -> Decision:
    """What a job that is not booked would wait for, with nobody before it."""
    if (nobody := nobody_serves(name, profiles, rooms)) is not None:
        return nobody
    lending = [room for room in rooms if room.lends]
    profile = profiles.choose(name, [room.worker for room in lending])
    serving = [room for room in lending if profile is not None and profile.serves(room.worker)]
    if profile is None or not serving:
        return NO_LENDER
    if not any(room.takes(profile.devices, ready=False) for room in serving):
        return full(profile, ready=False)
    return Decision("slot_free", f"A slot for profile {profile.name} is free")
