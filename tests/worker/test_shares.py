"""Parts of slots: who sits where, who goes first, and what a training with a part of a slot sees of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import run_dir, running
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import RunDir
from worker.host import Host
from worker.outcome import Cause
from worker.runner import run_attempt
from worker.slots import Slots, threads_of

Make = Callable[..., Ticket]
LONG_SECONDS = 20.0


def take(ends: ExitStack, slots: Slots, count: int, share: float = 1.0) -> list[int] | None:
    return ends.enter_context(slots.hold(count, share, 0, lambda: False))


class Waiter:
    """Somebody who asks for slots in a thread of his own, and keeps them until told otherwise."""

    def __init__(self, slots: Slots, count: int, share: float, seconds: float = LONG_SECONDS) -> None:
        self.got: list[int] | None = None
        self.given_up, self.over = False, threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(slots, count, share, seconds), daemon=True)
        self._thread.start()

    def _run(self, slots: Slots, count: int, share: float, seconds: float) -> None:
        with slots.hold(count, share, seconds, lambda: self.given_up) as self.got:
            self.over.set()
            self._leave.wait(LONG_SECONDS)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(LONG_SECONDS)
        assert not self._thread.is_alive()


@contextmanager
def waiting(slots: Slots, count: int, share: float = 1.0) -> Iterator[Waiter]:
    """One who stands in the line before the block goes on."""
    before = len(slots._line)
    waiter = Waiter(slots, count, share)
    eventually(lambda: len(slots._line) > before)
    yield waiter
    waiter.leave()


def test_a_share_goes_beside_shares_and_whole_slots_stay_whole() -> None:
    slots = Slots(2)
    with ExitStack() as ends:
        assert [take(ends, slots, 1, 0.5) for _ in range(3)] == [[0], [0], [1]]
        assert take(ends, slots, 1) is None
        assert take(ends, slots, 1, 0.5) == [1]
        assert take(ends, slots, 1, 0.05) is None
    with ExitStack() as ends:
        assert take(ends, slots, 2) == [0, 1]


def test_a_share_takes_the_least_room_that_is_enough() -> None:
    slots = Slots(2)
    with ExitStack() as ends:
        assert (take(ends, slots, 1, 0.4), take(ends, slots, 1, 0.7)) == ([0], [1])
        assert take(ends, slots, 1, 0.3) == [1]
        assert take(ends, slots, 1, 0.6) == [0]


@pytest.mark.parametrize("parts", [3, 6, 7, 10, 20])
def test_equal_parts_fill_a_slot_whatever_their_rounding(parts: int) -> None:
    slots = Slots(1)
    with ExitStack() as ends:
        assert [take(ends, slots, 1, 1 / parts) for _ in range(parts)] == [[0]] * parts
        assert take(ends, slots, 1, 0.05) is None
    with ExitStack() as ends:
        assert take(ends, slots, 1) == [0]


def test_a_whole_request_is_not_overtaken_by_shares() -> None:
    slots = Slots(1)
    with ExitStack() as first, ExitStack() as second:
        assert take(first, slots, 1, 0.5) == take(second, slots, 1, 0.5) == [0]
        with waiting(slots, 1) as whole, waiting(slots, 1, 0.5) as share:
            first.close()
            assert not share.over.wait(0.3), "there was room for it, but another was there before"
            second.close()
            assert whole.over.wait(LONG_SECONDS)
            assert whole.got == [0]
            whole.leave()
            assert share.over.wait(LONG_SECONDS)
            assert share.got == [0]


def test_who_gives_up_lets_the_next_go() -> None:
    slots = Slots(1)
    with ExitStack() as first:
        assert take(first, slots, 1, 0.5) == [0]
        with waiting(slots, 1) as whole, waiting(slots, 1, 0.5) as share:
            whole.given_up = True
            assert share.over.wait(LONG_SECONDS)
            assert (whole.got, share.got) == (None, [0])


def test_who_has_given_up_takes_nothing() -> None:
    slots = Slots(1)
    with slots.hold(1, 1.0, LONG_SECONDS, lambda: True) as got:
        assert got is None
        with ExitStack() as ends:
            assert take(ends, slots, 1) == [0]


def test_many_shares_at_once_never_overfill_a_slot() -> None:
    slots = Slots(2)
    in_use, most, lock = [0.0, 0.0], [0.0, 0.0], threading.Lock()

    def use(share: float) -> None:
        for _ in range(60):
            with slots.hold(1, share, LONG_SECONDS, lambda: False) as got:
                assert got is not None
                with lock:
                    in_use[got[0]] += share
                    most[got[0]] = max(most[got[0]], in_use[got[0]])
                with lock:
                    in_use[got[0]] -= share

    threads = [threading.Thread(target=use, args=(share,)) for share in (0.25, 0.25, 0.5, 0.5, 0.75, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    assert max(most) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("share", "threads", "expected"), [(1, 8, 8), (0.5, 8, 4), (0.25, 2, 1), (0.05, 8, 1), (0.3, 8, 2)]
)
def test_a_share_has_its_part_of_the_threads(share: float, threads: int, expected: int) -> None:
    assert threads_of(share, threads) == expected


@pytest.fixture
def eight_cores(host: Host) -> Host:
    host.threads = 8
    return host


def test_a_training_is_told_what_is_its_share_and_where_it_ends(eight_cores: Host, ticket: Make) -> None:
    told = {"share": 0.25, "rung": 1, "until": 0.5, "adopt": True, "resume_from": "jobs/job_1/trial-3/x"}
    one = ticket(eight_cores, "complete", device="cuda", **told)
    run_attempt(eight_cores, one)
    run = RunDir(run_dir(eight_cores, one)).read_spec()
    assert {name: getattr(run, name) for name in told} == told
    assert run.threads == 2
    environment = json.loads((run_dir(eight_cores, one) / "train.json").read_text())["environment"]
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("0", "2")


def test_two_shares_train_on_one_slot_at_the_same_time(host: Host, ticket: Make, book: Book) -> None:
    with running(host, ticket(host, "obey", 1, share=0.5)), running(host, ticket(host, "obey", 2, share=0.5)):
        for number in (1, 2):
            eventually((run_dir(host, ticket(host, "obey", number)) / "train.json").exists)
        with running(host, ticket(host, "complete", 3, share=0.5)):
            eventually((run_dir(host, ticket(host, "complete", 3)) / "prepared.json").exists)
            assert not (run_dir(host, ticket(host, "complete", 3)) / "train.json").exists()
            host.current()[0].stop(Cause.PAUSED)
            assert eventually(lambda: book.finished("att_complete_3"))["reason"] == Reason.COMPLETED
        for run in host.current():
            run.stop(Cause.PAUSED)
    assert eventually(lambda: book.finished("att_obey_1"))["reason"] == Reason.PAUSED_BY_CLIENT
