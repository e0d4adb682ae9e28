"""While an attempt waits for a slot, a process is at hand that has not begun; not needed, it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import run_dir, running
from tests.worker.test_stages import no_free_slot, trained
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from worker import launcher as worker_launcher
from worker.host import Host
from worker.launcher import Launcher
from worker.outcome import Cause

Make = Callable[..., Ticket]
NoChildBut = Callable[[int | None], bool]


@pytest.fixture
def warm(host: Host, start_launcher: Callable[..., Launcher]) -> Host:
    host.launcher = start_launcher()
    return host


@contextmanager
def waiting(host: Host, ticket: Ticket) -> Iterator[int]:
    """An attempt that has all but a slot; the id of the process that waits with it."""
    before = {child.pid for child in psutil.Process().children()}

    def at_hand() -> int | None:
        if not (run_dir(host, ticket) / "prepared.json").exists():
            return None
        prepared = json.loads((run_dir(host, ticket) / "prepare.json").read_text())["pid"]
        new = {child.pid for child in psutil.Process().children()} - before - {prepared}
        return next((pid for pid in new if os.getsid(pid) == pid), None)

    with running(host, ticket):
        yield eventually(at_hand)  # type: ignore[misc]


def who_trained(host: Host, ticket: Ticket) -> int:
    pid: int = json.loads((run_dir(host, ticket) / "train.json").read_text())["pid"]
    return pid


def test_the_process_at_hand_is_the_one_that_trains(
    warm: Host, ticket: Make, book: Book, no_child_but: NoChildBut
) -> None:
    one = ticket(warm, "complete", device="cuda")
    with ExitStack() as attempt, no_free_slot(warm):
        pid = attempt.enter_context(waiting(warm, one))
        assert not trained(warm, one)
    assert who_trained(warm, one) == pid
    environment = json.loads((run_dir(warm, one) / "train.json").read_text())["environment"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    assert warm.launcher is not None
    eventually(lambda: no_child_but(warm.launcher.pid))  # type: ignore[union-attr]


def test_it_ends_with_an_attempt_that_gets_no_slot(
    warm: Host, ticket: Make, book: Book, no_child_but: NoChildBut
) -> None:
    one = ticket(warm, "complete")
    with no_free_slot(warm), waiting(warm, one):
        warm.current()[0].stop(Cause.PAUSED)
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.PAUSED_BY_CLIENT
    assert not trained(warm, one)
    assert warm.launcher is not None
    assert no_child_but(warm.launcher.pid)


def test_one_that_was_killed_is_replaced(warm: Host, ticket: Make, book: Book) -> None:
    one = ticket(warm, "complete")
    with ExitStack() as attempt, no_free_slot(warm):
        pid = attempt.enter_context(waiting(warm, one))
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    assert who_trained(warm, one) != pid


def test_one_of_old_code_never_begins(warm: Host, ticket: Make, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ticket(warm, "complete")
    with ExitStack() as attempt, no_free_slot(warm):
        pid = attempt.enter_context(waiting(warm, one))
        monkeypatch.setattr(worker_launcher, "code_version", lambda: 1)
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    assert who_trained(warm, one) != pid


def test_one_survives_the_launcher_that_forked_it(warm: Host, ticket: Make, book: Book) -> None:
    one, launcher = ticket(warm, "complete"), warm.launcher
    assert launcher is not None
    with ExitStack() as attempt, no_free_slot(warm):
        pid, first = attempt.enter_context(waiting(warm, one)), launcher.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: launcher.pid not in {None, first}, 30)
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    assert who_trained(warm, one) == pid
