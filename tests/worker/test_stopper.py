"""When a run has to end, and how hard it is pressed: deadline, stop file, SIGTERM, SIGKILL, on a clock of our own."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import EventsFile, RunDir
from worker import stopper as worker_stopper
from worker.host import Host, Run
from worker.outcome import Cause
from worker.settings import Settings
from worker.stopper import Stopper


class Clock:
    """Monotonic seconds that go on when told to, and a process that notes its signals with their time."""

    pid = 7

    def __init__(self) -> None:
        self.now = 1000.0
        self.signals: list[tuple[float, signal.Signals]] = []

    def signal(self, number: signal.Signals) -> None:
        self.signals.append((self.now, number))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(worker_stopper, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def run(host: Host, ticket: Callable[..., Ticket], tmp_path: Path) -> Run:
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    EventsFile(run_dir.events).close()
    return Run(ticket(host, "obey", train_seconds=100.0, ends_because=Reason.BUDGET_EXHAUSTED), run_dir)


def look_until(stopper: Stopper, clock: Clock, end: float) -> None:
    while clock.now < end:
        clock.now += 0.5
        stopper.look(clock)  # type: ignore[arg-type]


def test_the_time_of_the_devices_begins_when_they_are_held(settings: Settings, clock: Clock, run: Run) -> None:
    stopper = Stopper(settings, run)
    look_until(stopper, clock, 1500.0)  # a preparation of 500 s, and devices for 100
    assert run.cause is None
    stopper.slots_held()
    look_until(stopper, clock, 1600.0)
    assert run.cause is None
    look_until(stopper, clock, 1601.0)
    assert run.cause is Cause.BUDGET


def test_the_stop_file_then_sigterm_once_then_sigkill(settings: Settings, clock: Clock, run: Run) -> None:
    patient = settings.model_copy(update={"stop_grace_seconds": 120.0, "term_grace_seconds": 15.0})
    stopper = Stopper(patient, run)
    stopper.slots_held()
    look_until(stopper, clock, 1100.0)
    assert not run.run_dir.stop_requested()
    look_until(stopper, clock, 1101.0)
    assert run.run_dir.stop_requested()
    look_until(stopper, clock, 1236.5)
    assert clock.signals == [(1221.0, signal.SIGTERM), (1236.0, signal.SIGKILL), (1236.5, signal.SIGKILL)]


def test_what_the_book_gave_up_is_killed_whatever_was_asked_before(settings: Settings, clock: Clock, run: Run) -> None:
    stopper = Stopper(settings, run)
    run.stop(Cause.PAUSED)
    stopper.look(clock)  # type: ignore[arg-type]
    assert clock.signals == []
    run.stop(Cause.ABANDONED)
    stopper.look(clock)  # type: ignore[arg-type]
    assert clock.signals == [(1000.0, signal.SIGKILL)]


def test_the_preparation_may_take_max_hours(settings: Settings, clock: Clock, run: Run) -> None:
    stopper = Stopper(settings.model_copy(update={"stall_seconds": 10**9}), run)
    look_until(stopper, clock, 1000.0 + 24 * 3600)
    assert run.cause is None
    look_until(stopper, clock, 1001.0 + 24 * 3600)
    assert run.cause is Cause.TIME_LIMIT
