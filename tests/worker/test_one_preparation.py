"""The first trial of a search on a host prepares; the others take over what it left, and may wait for a slot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import running
from tests.worker.test_stages import no_free_slot
from training_core.contract.errors import Failed, Reason
from training_core.contract.messages import Ticket
from training_core.contract.run_dir import Prepared, RunDir
from training_core.data import cache
from training_core.data.meta import META_FILE
from worker import preparation
from worker.host import Host
from worker.outcome import Cause
from worker.runner import run_attempt

Make = Callable[..., Ticket]
Trial = Callable[..., Ticket]


@pytest.fixture
def trial(ticket: Make) -> Trial:
    """The ticket of a trial; `changes` are to its spec."""

    def make(host: Host, number: int, attempt: int = 1, changes: dict[str, Any] | None = None) -> Ticket:
        spec = {"name": "complete", "task": "image-classification", "dataset": {"uri": "file:///data/x"}}
        told = {"trial": number, "rung": 0, "until": 0.25, "spec": spec | (changes or {})}
        return ticket(host, "complete", attempt, attempt_id=f"att_{number}_{attempt}", **told)

    return make


@pytest.fixture
def hurried(host: Host) -> Iterator[Host]:
    """A host on which a plain job does not wait for a slot, and a trial waits hardly."""
    changes = {"slot_wait_seconds": 0.0, "ahead_wait_seconds": 0.3}
    hurried = Host(host.settings.model_copy(update=changes), host.program)
    hurried.journal.start()
    yield hurried
    hurried.journal.stop(0)
    hurried.redis.close()


def of(host: Host, ticket: Ticket) -> RunDir:
    return RunDir(host.runs / ticket.job_id / f"trial-{ticket.trial}" / f"attempt-{ticket.attempt}")


def stages(host: Host, ticket: Ticket) -> tuple[bool, bool]:
    """Whether a process prepared, and whether one trained."""
    prepared, trained = ((of(host, ticket).path / f"{stage}.json").exists() for stage in ("prepare", "train"))
    return prepared, trained


def evict_all(host: Host) -> None:
    """Ask for more room than there is, long after the last use of any data."""
    for lock in (host.settings.cache_dir / "locks").iterdir():
        os.utime(lock, (0, 0))
    run = of(host, host.current()[0].ticket) if host.current() else newest_run(host)
    with pytest.raises(Failed):
        cache.make_room(run.read_spec(), 2**60, "another version")


def newest_run(host: Host) -> RunDir:
    return RunDir(max(host.runs.glob("*/trial-*/attempt-*"), key=lambda path: path.stat().st_mtime))


def version(host: Host) -> Path:
    return host.settings.cache_dir / "version"


def test_later_trials_take_over_the_data_of_the_first(host: Host, trial: Trial, book: Book) -> None:
    first = trial(host, 0)
    run_attempt(host, first)
    assert stages(host, first) == (True, True)
    learning_rate = {"training": {"optimizer": {"learning_rate": 0.5}}, "model": {"name": "small_resnet"}}
    for later in (trial(host, 1, changes=learning_rate), trial(host, 0, 2), trial(host, 1, 2)):
        run_attempt(host, later)
        assert stages(host, later) == (False, True)
        prepared = of(host, later).read_prepared()
        assert (prepared.folder, prepared.seconds) == (of(host, first).read_prepared().folder, 0.0)
        assert eventually(lambda later=later: book.finished(later.attempt_id))["reason"] == Reason.COMPLETED


def test_the_data_of_a_former_life_of_the_worker_is_taken_over(host: Host, trial: Trial) -> None:
    run_attempt(host, trial(host, 0))
    reborn = Host(host.settings, host.program)
    run_attempt(reborn, trial(reborn, 1))
    assert stages(reborn, trial(reborn, 1)) == (False, True)
    reborn.redis.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"image_size": 64}},
        {"dataset": {"uri": "file:///data/x", "cleaning": {"blurred": "remove"}}},
        {"training": {"sampling": {"balance": "weights"}}},
        {"model": {"name": "resnet18", "pretrained": True}},
        {"model": {"name": "resnet18", "pretrained": True, "trainable": "head"}},
    ],
)
def test_a_trial_that_needs_other_data_or_other_checks_prepares(
    host: Host, trial: Trial, changes: dict[str, Any]
) -> None:
    first, other = trial(host, 0), trial(host, 1, changes=changes)
    leave_prepared(host, first)
    assert preparation.take_over(host.runs, trial(host, 2), made(host, trial(host, 2)))
    assert not preparation.take_over(host.runs, other, made(host, other))
    leave_prepared(host, other)
    assert preparation.take_over(host.runs, trial(host, 3, changes=changes), made(host, trial(host, 3)))


def leave_prepared(host: Host, ticket: Ticket) -> None:
    """As the first attempt on this host with such a spec does."""
    version(host).mkdir(exist_ok=True)
    (version(host) / META_FILE).touch()
    run = made(host, ticket)
    run.write_prepared(Prepared(folder=version(host), selection=version(host) / META_FILE))
    preparation.remember(host.runs, ticket, run)


def made(host: Host, ticket: Ticket) -> RunDir:
    run = of(host, ticket)
    run.path.mkdir(parents=True, exist_ok=True)
    return run


def test_parts_that_exclude_each_other_are_left_to_the_preparation_to_refuse(host: Host, trial: Trial) -> None:
    by_shape = {"training": {"sampling": {"buckets": "shape"}}}
    growing = {"training": {"sampling": {"buckets": "shape"}, "resizing": {}}}
    leave_prepared(host, trial(host, 0, changes=by_shape))
    for number, changes, expected in ((1, by_shape, True), (2, growing, False)):
        one = trial(host, number, changes=changes)
        assert preparation.take_over(host.runs, one, made(host, one)) is expected


def test_a_plain_job_prepares_each_time(host: Host, ticket: Make) -> None:
    for number in (1, 2):
        run_attempt(host, ticket(host, "complete", number))
        assert stages(host, ticket(host, "complete", number)) == (True, True)


def test_data_that_was_evicted_is_prepared_again(host: Host, trial: Trial) -> None:
    run_attempt(host, trial(host, 0))
    evict_all(host)
    assert not version(host).exists()
    run_attempt(host, trial(host, 1))
    assert stages(host, trial(host, 1)) == (True, True)


def test_a_trial_that_waits_for_a_slot_keeps_its_data(host: Host, trial: Trial, book: Book) -> None:
    run_attempt(host, trial(host, 0))
    with no_free_slot(host), running(host, trial(host, 1)):
        eventually(of(host, trial(host, 1)).prepared.exists)
        evict_all(host)
        assert version(host).exists()
        host.current()[0].stop(Cause.PAUSED)
    finished = eventually(lambda: book.finished("att_1_1"))
    assert (finished["reason"], finished["phase"]) == (Reason.PAUSED_BY_CLIENT, "preparing")
    evict_all(host)
    assert not version(host).exists()


def test_a_trial_waits_longer_for_a_slot_than_a_plain_job(
    hurried: Host, trial: Trial, ticket: Make, book: Book
) -> None:
    patient = Host(hurried.settings.model_copy(update={"ahead_wait_seconds": 60.0}), hurried.program)
    patient.journal.start()
    with ExitStack() as ahead, no_free_slot(patient):
        run_attempt(patient, ticket(patient, "complete"))
        assert eventually(lambda: book.finished("att_complete_1"))["reason"] == Reason.NO_SLOT
        ahead.enter_context(running(patient, trial(patient, 1)))
        eventually(of(patient, trial(patient, 1)).prepared.exists)
    assert eventually(lambda: book.finished("att_1_1"))["reason"] == Reason.COMPLETED
    patient.journal.stop(0)
    patient.redis.close()


def test_a_trial_that_waited_too_long_goes_back(hurried: Host, trial: Trial, book: Book) -> None:
    with no_free_slot(hurried):
        run_attempt(hurried, trial(hurried, 1))
    finished = eventually(lambda: book.finished("att_1_1"))
    assert (finished["reason"], finished["phase"], finished["exit_code"]) == (Reason.NO_SLOT, "preparing", None)
