"""Preparation before any slot is held, and what may happen between the two stages."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import run_dir, running
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from worker.host import Host
from worker.outcome import Cause
from worker.runner import run_attempt

Make = Callable[..., Ticket]


@contextmanager
def no_free_slot(host: Host) -> Iterator[None]:
    with host.slots.hold(host.devices.slots, 1.0, 0, lambda: False) as slots:
        assert slots is not None
        yield


@pytest.fixture
def hasty(host: Host) -> Iterator[Host]:
    """A host that hardly waits for a slot."""
    hasty = Host(host.settings.model_copy(update={"slot_wait_seconds": 0.2}), host.program)
    hasty.journal.start()
    yield hasty
    hasty.journal.stop(0)
    hasty.redis.close()


def trained(host: Host, ticket: Ticket) -> bool:
    return (run_dir(host, ticket) / "train.json").exists()


def test_only_the_training_sees_a_gpu(host: Host, ticket: Make) -> None:
    gpu = ticket(host, "complete", device="cuda")
    run_attempt(host, gpu)
    seen = {stage: json.loads((run_dir(host, gpu) / f"{stage}.json").read_text()) for stage in ("prepare", "train")}
    assert seen["prepare"]["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["train"]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert seen["prepare"]["pid"] != seen["train"]["pid"]


def test_bad_data_needs_no_slot(host: Host, ticket: Make, book: Book) -> None:
    with no_free_slot(host):
        run_attempt(host, ticket(host, "bad-data"))
    finished = eventually(lambda: book.finished("att_bad-data_1"))
    assert (finished["reason"], finished["phase"]) == (Reason.DATASET_INVALID, "preparing")
    assert not trained(host, ticket(host, "bad-data"))


def test_prepared_work_without_a_slot_is_given_back(hasty: Host, ticket: Make, book: Book) -> None:
    with no_free_slot(hasty):
        run_attempt(hasty, ticket(hasty, "complete"))
    finished = eventually(lambda: book.finished("att_complete_1"))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (Reason.NO_SLOT, "preparing", None)
    assert not trained(hasty, ticket(hasty, "complete"))


def test_a_slot_that_comes_free_is_taken(host: Host, ticket: Make, book: Book) -> None:
    one = ticket(host, "complete")
    with no_free_slot(host):
        thread = threading.Thread(target=run_attempt, args=(host, one))
        thread.start()
        eventually((run_dir(host, one) / "prepared.json").exists)
    assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.COMPLETED
    thread.join()


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (Cause.CANCELLED, Reason.CANCELLED_BY_CLIENT),
        (Cause.SHUTDOWN, Reason.WORKER_SHUTDOWN),
        (Cause.ABANDONED, None),
    ],
)
def test_waiting_for_a_slot_can_be_ended(
    host: Host, ticket: Make, book: Book, cause: Cause, reason: Reason | None
) -> None:
    one = ticket(host, "complete")
    with no_free_slot(host), running(host, one):
        eventually((run_dir(host, one) / "prepared.json").exists)
        host.current()[0].stop(cause)
    eventually(lambda: book.record() or (run_dir(host, one) / "journaled").exists())
    finished = book.finished("att_complete_1")
    assert (finished and finished["reason"]) == reason
    assert not trained(host, one)


def test_a_preparation_is_stopped_like_a_training(host: Host, ticket: Make, book: Book) -> None:
    with running(host, ticket(host, "slow-data")):
        host.current()[0].stop(Cause.CANCELLED)
    finished = eventually(lambda: book.finished("att_slow-data_1"))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (
        Reason.CANCELLED_BY_CLIENT, "preparing", 0,
    )  # fmt: skip


def test_a_preparation_that_dies_is_told_as_such(host: Host, ticket: Make, book: Book) -> None:
    run_attempt(host, ticket(host, "die-preparing"))
    finished = eventually(lambda: book.finished("att_die-preparing_1"))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (Reason.PROCESS_DIED, "preparing", -9)
    assert "preparation" in str(finished["message"])


def test_a_quiet_preparation_is_not_stalled_while_it_lives(host: Host, ticket: Make, book: Book) -> None:
    quick = Host(host.settings.model_copy(update={"stall_seconds": 1.0}), host.program)
    quick.journal.start()
    run_attempt(quick, ticket(quick, "quiet-data"))  # for two seconds
    assert eventually(lambda: book.finished("att_quiet-data_1"))["reason"] == Reason.COMPLETED
    quick.journal.stop(0)
    quick.redis.close()


def test_a_check_ends_with_its_data(host: Host, ticket: Make, book: Book) -> None:
    check = ticket(host, "complete", work="check", devices=0)
    with no_free_slot(host):
        run_attempt(host, check)
    finished = eventually(lambda: book.finished("att_complete_1"))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (Reason.COMPLETED, "preparing", 0)
    assert not trained(host, check)
