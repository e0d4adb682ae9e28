"""What a client wishes of a search, and how one ends: trials that are held come back first, each with a checkpoint."""

from __future__ import annotations

import httpx2
import pytest

from api.book import studies
from api.book.locks import lock_job
from tests.integration.conftest import Control
from tests.integration.search_book import Book, finished
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.messages import WISHES_HASH


@pytest.fixture
def book(client: httpx2.Client, control: Control) -> Book:
    control.heartbeat(slots=4)
    return Book(client, control)


def wishes(book: Book) -> list[str]:
    book.control.dispatcher.dispatch()
    found = book.control.redis.hgetall(WISHES_HASH)
    return sorted(value.decode() for value in found.values())  # type: ignore[union-attr]


def test_cancel_lets_held_trials_write_and_ends_the_others_at_once(book: Book) -> None:
    book.add(0.01)
    waiting = book.trains(0)
    book.add(0.02)
    held = book.trains(1)
    book.reaches(waiting, 0.7)
    book.add(0.03)
    assert book.client.post(f"/v1/jobs/{book.id}/cancel").status_code == 202
    assert book.states(0, 2) == [("cancelled", "cancelled_by_client")] * 2
    assert (book.job().status, wishes(book)) == ("running", ["stop"])
    book.control.report(held, book.saved(held, 10), finished(Reason.CANCELLED_BY_CLIENT))
    assert book.states(1) == [("cancelled", "cancelled_by_client")]
    assert (book.job().status, book.job().reason) == ("cancelled", "cancelled_by_client")
    assert book.events().count("job.cancelled") == 1
    assert book.client.get(f"/v1/jobs/{book.id}").json()["status"] == "cancelled"


def test_a_trial_that_completes_while_the_search_is_cancelled_keeps_its_values(book: Book) -> None:
    book.add(0.01, rung=None, until=None)
    held = book.trains(0)
    book.client.post(f"/v1/jobs/{book.id}/cancel")
    book.completes(held, 0.9)
    assert (book.trial(0).status, book.job().status) == ("succeeded", "cancelled")


def test_a_search_is_cancelled_at_once_while_no_trial_is_held(book: Book) -> None:
    book.add(0.01)
    book.reaches(book.trains(0), 0.7)
    book.client.post(f"/v1/jobs/{book.id}/pause")
    assert book.job().status == "paused"
    book.client.post(f"/v1/jobs/{book.id}/cancel")
    assert (book.job().status, book.trial(0).status) == ("cancelled", "cancelled")


def test_pause_gives_the_devices_back_and_resume_goes_on(book: Book) -> None:
    book.add(0.01)
    attempt = book.trains(0)
    book.add(0.02)
    book.client.post(f"/v1/jobs/{book.id}/pause")
    assert (book.job().status, wishes(book)) == ("running", ["pause"])
    assert len(book.control.attempts()) == 1  # the other is not begun
    book.control.report(attempt, book.saved(attempt, 10), finished(Reason.PAUSED_BY_CLIENT))
    assert (book.job().status, book.states(0, 1)) == (
        "paused", [("queued", "paused_by_client"), ("queued", "submitted")],
    )  # fmt: skip
    book.control.dispatcher.dispatch()
    assert len(book.control.attempts()) == 1
    book.client.post(f"/v1/jobs/{book.id}/resume")
    assert book.trains(0, resumed=10).resume_from is not None
    assert book.events()[-3:] == ["job.paused", "job.resumed", "job.started"]


def test_a_stopped_search_books_nothing_and_calls_its_trials_back(book: Book) -> None:
    book.add(0.01)
    attempt = book.trains(0)
    book.add(0.02)
    with book.control.sessions.begin() as session:
        studies.stop(session, lock_job(session, book.id), Reason.TIME_LIMIT)
    assert wishes(book) == ["pause"]
    book.control.report(attempt, book.saved(attempt, 10), finished(Reason.PAUSED_BY_CLIENT))
    book.control.dispatcher.dispatch()
    assert len(book.control.attempts()) == 1
    book.note(trials=2)
    assert (book.job().study or {})["stopping"] == "time_limit"
    book.end(Reason.TIME_LIMIT, "search.max_hours is over, and no trial has a value yet")
    assert (book.job().status, (book.job().error or {})["code"]) == ("failed", "time_limit")
    assert book.states(0, 1) == [("pruned", "pruned")] * 2
    assert "search.max_hours" in (book.trial(1).why or "")


def test_a_search_that_ends_gives_up_the_attempts_that_are_still_held(book: Book) -> None:
    book.add(0.01)
    attempt = book.trains(0)
    book.end(Reason.ALL_TRIALS_FAILED, "all failed")
    assert book.states(0) == [("pruned", "pruned")]
    book.control.report(attempt, reports.Progress(step=1, epoch=1, fraction=0.1, images_per_second=1, eta_seconds=1))
    assert book.trial(0).progress is None  # what it still says changes nothing
    book.control.heartbeat(attempt.id, slots=4)
    assert book.control.redis.hget(WISHES_HASH, attempt.id) == b"abandon"


def test_of_the_trials_that_train_one_is_traced(book: Book) -> None:
    for rate in (0.01, 0.02):
        book.add(rate)
    first, _ = book.trains(0), book.trains(1)
    book.client.post(f"/v1/jobs/{book.id}/profile")
    assert wishes(book) == ["profile"]
    trace = reports.ArtifactSaved(
        path="p", artifact="trace", format="chrome_trace", step=5, size_bytes=1, files={}, sha256={}
    )
    book.control.report(first, trace)
    assert (wishes(book), book.events(0)[-1]) == ([], "artifact.saved")
