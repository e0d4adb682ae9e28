"""An attempt from its ticket to its one outcome, with a real process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.contract.outcome import Outcome
from worker import outcome
from worker.host import Host
from worker.outcome import Cause
from worker.runner import run_attempt

Make = Callable[..., Ticket]


@contextmanager
def running(host: Host, ticket: Ticket) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=run_attempt, args=(host, ticket))
    thread.start()
    eventually(host.current)
    yield thread
    thread.join(timeout=20)
    assert not thread.is_alive()


def run_dir(host: Host, ticket: Ticket) -> Path:
    return host.runs / ticket.job_id / "trial-0" / f"attempt-{ticket.attempt}"


def test_a_complete_run_reports_everything_once_and_in_order(host: Host, ticket: Make, book: Book) -> None:
    run_attempt(host, ticket(host, "complete"))
    finished = eventually(lambda: book.finished("att_complete_1"))
    assert (finished["reason"], finished["exit_code"]) == (Reason.COMPLETED, 0)
    lines = book.lines["att_complete_1"]
    assert [line["seq"] for line in lines] == list(range(1, 504))
    assert [line["kind"] for line in lines[:3]] == ["claimed", "started", "metric"]


def test_a_repeated_or_outdated_ticket_is_dropped(host: Host, ticket: Make, book: Book) -> None:
    for _ in range(3):
        run_attempt(host, ticket(host, "complete"))
    run_attempt(host, ticket(host, "complete", 2, incarnation="an earlier life"))
    eventually(lambda: book.finished("att_complete_1"))
    assert len(book.lines["att_complete_1"]) == 503
    assert not run_dir(host, ticket(host, "complete", 2)).exists()


def test_the_training_sees_no_secret_of_the_worker(host: Host, ticket: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_REDIS_URL", "redis://:canary@broker")
    monkeypatch.setenv("TRAINYARD_SECRETS_KEY", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    run_attempt(host, ticket(host, "complete"))
    for stage in ("prepare", "train"):
        seen = (run_dir(host, ticket(host, "complete")) / f"{stage}.json").read_text()
        assert "canary" not in seen
        assert json.loads(seen)["environment"]["CUDA_VISIBLE_DEVICES"] == ""


def test_a_wish_to_stop_becomes_the_stop_file(host: Host, ticket: Make, book: Book) -> None:
    with running(host, ticket(host, "obey")):
        eventually((run_dir(host, ticket(host, "obey")) / "train.json").exists)
        host.current()[0].stop(Cause.CANCELLED)
    finished = eventually(lambda: book.finished("att_obey_1"))
    assert (finished["reason"], finished["exit_code"]) == (Reason.CANCELLED_BY_CLIENT, 0)


def test_who_does_not_stop_is_ended(host: Host, ticket: Make, book: Book) -> None:
    with running(host, ticket(host, "deaf")):
        eventually((run_dir(host, ticket(host, "deaf")) / "train.json").exists)
        host.current()[0].stop(Cause.SHUTDOWN)
    finished = eventually(lambda: book.finished("att_deaf_1"))
    assert (finished["reason"], finished["exit_code"]) == (Reason.WORKER_SHUTDOWN, -15)


def test_what_the_book_gave_up_ends_at_once_and_in_silence(host: Host, ticket: Make, book: Book) -> None:
    with running(host, ticket(host, "deaf")):
        eventually((run_dir(host, ticket(host, "deaf")) / "train.json").exists)
        host.current()[0].stop(Cause.ABANDONED)
    eventually(lambda: book.record() or (run_dir(host, ticket(host, "deaf")) / "journaled").exists())
    assert book.finished("att_deaf_1") is None


def test_a_process_that_dies_leaves_its_last_words_without_secrets(host: Host, ticket: Make, book: Book) -> None:
    run_attempt(host, ticket(host, "die"))
    finished = eventually(lambda: book.finished("att_die_1"))
    assert (finished["reason"], finished["exit_code"]) == (Reason.PROCESS_DIED, -9)
    assert "the end" in str(finished["log_excerpt"])
    assert "hunter2" not in str(finished["log_excerpt"])


def test_a_silent_run_is_stalled(
    settings: object, program: tuple[str, ...], host: Host, ticket: Make, book: Book
) -> None:
    quick = Host(host.settings.model_copy(update={"stall_seconds": 1.0}), program)
    quick.journal.start()
    run_attempt(quick, ticket(quick, "silent"))
    assert eventually(lambda: book.finished("att_silent_1"))["reason"] == Reason.STALLED
    quick.journal.stop(5)


COMPLETED = Outcome(result="completed", phase="running")
AT_RUNG = Outcome(result="completed", reason=Reason.RUNG_REACHED, phase="running")
STOPPED = Outcome(result="stopped", phase="running")
FAILED = Outcome(result="failed", reason=Reason.IMAGE_CORRUPT, phase="preparing", message="x.png")


@pytest.mark.parametrize(
    ("exit_code", "told", "cause", "oom", "reason"),
    [
        (0, COMPLETED, None, False, Reason.COMPLETED),
        (0, COMPLETED, Cause.CANCELLED, False, Reason.COMPLETED),
        (0, COMPLETED.model_copy(update={"reason": Reason.EARLY_STOPPED}), None, False, Reason.EARLY_STOPPED),
        (0, AT_RUNG, None, False, Reason.RUNG_REACHED),
        (0, AT_RUNG, Cause.PAUSED, False, Reason.RUNG_REACHED),
        (0, AT_RUNG, Cause.CANCELLED, False, Reason.RUNG_REACHED),
        (0, AT_RUNG, Cause.ABANDONED, False, None),
        (0, STOPPED, Cause.CANCELLED, False, Reason.CANCELLED_BY_CLIENT),
        (0, STOPPED, Cause.TIME_LIMIT, False, Reason.TIME_LIMIT),
        (0, STOPPED, Cause.SHUTDOWN, False, Reason.WORKER_SHUTDOWN),
        (0, STOPPED, Cause.PAUSED, False, Reason.PAUSED_BY_CLIENT),
        (0, STOPPED, Cause.BUDGET, False, Reason.BUDGET_EXHAUSTED),
        (0, COMPLETED, Cause.PAUSED, False, Reason.COMPLETED),
        (-9, None, Cause.PAUSED, False, Reason.PAUSED_BY_CLIENT),
        (1, FAILED, None, False, Reason.IMAGE_CORRUPT),
        (1, FAILED, Cause.SHUTDOWN, False, Reason.IMAGE_CORRUPT),
        (-9, None, None, False, Reason.PROCESS_DIED),
        (-9, None, None, True, Reason.OUT_OF_MEMORY),
        (-9, None, Cause.CANCELLED, False, Reason.CANCELLED_BY_CLIENT),
        (-9, None, Cause.STALLED, False, Reason.STALLED),
        (0, None, None, False, Reason.PROCESS_DIED),
        (0, STOPPED, None, False, Reason.PROCESS_DIED),
        (0, COMPLETED, Cause.ABANDONED, False, None),
    ],
)
def test_every_ending_has_one_reason(
    *, exit_code: int, told: Outcome | None, cause: Cause | None, oom: bool, reason: Reason | None, tmp_path: Path
) -> None:
    report = outcome.settle(exit_code, told, cause, phase="running", out_of_memory=oom, log=tmp_path / "none")
    assert (report.reason if report else None) == reason
