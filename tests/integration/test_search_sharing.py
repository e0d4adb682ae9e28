"""What the trials of a search take of their workers and of the budget, and what is left of both for others."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from api.book import costs, objective
from api.book.models import Attempt
from api.book.slots import AHEAD, Booked, Room
from api.settings import Settings
from tests.integration.conftest import SPEC, Control
from tests.integration.search_book import SEARCH, Book, finished
from training_core.contract.errors import Reason
from training_core.contract.messages import WISHES_HASH
from training_core.contract.spec import Search

HOUR = 3600
PROFILES = [{"name": "cpu", "device": "cpu", "devices": 1, "price_per_hour": "0.30", "currency": "EUR"}]


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "profiles.json"
    file.write_text(json.dumps(PROFILES))
    return settings.model_copy(update={"profiles_file": file})


def ready(book: Book, *, share: float = 1.0) -> None:
    """As if a first trial had prepared the data."""
    book.note(share=share)
    with book.control.sessions.begin() as session:
        session.execute(text("UPDATE jobs SET data_ready_at = now() WHERE id = :id"), {"id": book.id})


def booked(control: Control) -> list[tuple[str, int, float]]:
    control.dispatcher.dispatch()
    return [(one.job_id, one.trial, one.share) for one in control.attempts()]


def test_two_halves_share_a_slot_and_two_more_wait_there(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    ready(book, share=0.5)
    for rate in (0.01, 0.02, 0.03, 0.04, 0.05):
        book.add(rate)
    assert booked(control) == [(book.id, number, 0.5) for number in range(2 + AHEAD)]
    [worker] = client.get("/v1/workers").json()["data"]
    assert worker["slots_free"] == 0


def test_before_its_data_is_ready_a_search_waits_for_nothing_in_advance(
    client: httpx2.Client, control: Control
) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    book.add(0.01)
    book.add(0.02)
    assert booked(control) == [(book.id, 0, 1.0)]


def test_who_waits_longer_is_not_overtaken_by_trials_that_go_ahead(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    ready(book)
    book.add(0.01)
    first = book.trains(0)
    urgent = client.post("/v1/jobs", json={**SPEC, "priority": 5}).json()["id"]
    book.add(0.02)
    assert [job for job, _, _ in booked(control)] == [book.id, urgent, book.id]  # it prepares beside the full slot
    again = client.post("/v1/jobs", json={**SPEC, "priority": 5}).json()["id"]
    for rate in (0.03, 0.04, 0.05):
        book.add(rate)
    control.report(first, finished(Reason.NAN_LOSS, 1))
    assert [job for job, _, _ in booked(control)][3:] == []
    assert client.get(f"/v1/jobs/{again}").json()["status"] == "queued"


def test_a_job_that_waits_long_for_a_whole_device_gets_it_from_shares_that_come_free(
    client: httpx2.Client, control: Control
) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    ready(book, share=0.5)
    for rate in (0.01, 0.02):
        book.add(rate)
    halves = [book.trains(number) for number in (0, 1)]
    whole = client.post("/v1/jobs", json={**SPEC, "priority": 5}).json()["id"]
    waits(control, whole, seconds=10)
    for rate in (0.03, 0.04, 0.05):
        book.add(rate)
    control.report(halves[0], finished(Reason.NAN_LOSS, 1))
    assert booked(control)[2:] == [(book.id, 2, 0.5)]  # what comes free serves who fits, for a while
    waits(control, whole, seconds=301)
    control.report(halves[1], finished(Reason.NAN_LOSS, 1))
    assert booked(control)[3:] == []
    control.report(book.trains(2), finished(Reason.NAN_LOSS, 1))
    assert booked(control)[3] == (whole, 0, 1.0)  # behind it trials may be sent ahead again
    assert len(booked(control)[4:]) == AHEAD
    assert client.get(f"/v1/jobs/{book.id}").json()["status"] != "failed"


def waits(control: Control, job_id: str, *, seconds: float) -> None:
    """As if its data had been ready and it had waited for its device so long."""
    change = "UPDATE jobs SET data_ready_at = now(), queued_at = now() - make_interval(secs => :s) WHERE id = :id"
    with control.sessions.begin() as session:
        session.execute(text(change), {"id": job_id, "s": seconds})


def test_a_part_of_a_device_has_its_part_of_the_price_and_of_the_budget(
    client: httpx2.Client, control: Control
) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control, budget={"max_device_hours": 4}, compute={"profile": "cpu", "share": 0.25})
    ready(book)
    book.add(0.01, rung=None, until=None)
    attempt = book.trains(0)
    assert (attempt.share, attempt.price_per_hour) == (0.25, Decimal("0.075"))
    book.add(0.02)
    book.booked(1)
    assert [round(one.train_seconds or 0) for one in book.tickets()] == [16 * HOUR, 8 * HOUR]  # in equal parts
    book.long_ago(attempt)
    control.report(attempt, finished(Reason.WORKER_SHUTDOWN, 4 * HOUR))
    answer = client.get(f"/v1/jobs/{book.id}").json()
    assert (answer["device_hours"], answer["cost"]["accrued"]) == (1.0, "0.3000")


def test_sums_of_the_database_are_those_of_the_attempts(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=4)
    book = Book(client, control)
    for number, rate in enumerate((0.01, 0.02, 0.03)):
        book.add(rate)
        attempt = book.trains(number)
        book.long_ago(attempt, number)
        if number:
            control.report(attempt, finished(Reason.NAN_LOSS, 100.5 * number))
    moment = datetime.now(UTC)
    attempts = control.attempts()
    with control.sessions() as session:
        found = costs.total(session, book.id, moment)
        one = costs.total(session, book.id, moment, trial=2)
    held = [costs.held_seconds(attempt, moment, moment) for attempt in attempts]
    assert found.seconds == pytest.approx(sum(held))
    assert found.device_seconds == pytest.approx(sum(held))
    paid = sum(costs.price(seconds, Decimal("0.30")) for seconds in held)
    assert (found.currency, float(found.cost or 0)) == ("EUR", pytest.approx(float(paid)))
    assert one.seconds == pytest.approx(201.0)


def test_what_an_attempt_left_of_the_budget_is_for_all(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=2)
    book = Book(client, control, budget={"max_device_hours": 2}, compute={"profile": "cpu"})
    for rate in (0.01, 0.02):
        book.add(rate)
    attempts = [book.trains(number) for number in (0, 1)]
    book.long_ago(attempts[0])
    control.report(attempts[0], book.saved(attempts[0], 10), finished(Reason.BUDGET_EXHAUSTED, HOUR))
    assert (book.trial(0).status, (book.job().study or {}).get("stopping")) == ("queued", None)
    assert book.booked(0).number == 2
    book.long_ago(attempts[1])
    control.report(attempts[1], book.saved(attempts[1], 10), finished(Reason.BUDGET_EXHAUSTED, HOUR))
    assert (book.trial(1).status, (book.job().study or {}).get("stopping")) == ("queued", "budget_exhausted")


def test_trials_that_use_the_budget_up_together_are_called_back(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=2)
    book = Book(client, control, budget={"max_cost": "0.90"}, compute={"profile": "cpu"})
    for rate in (0.01, 0.02):
        book.add(rate)
    attempts = [book.trains(number) for number in (0, 1)]
    for attempt in attempts:
        book.long_ago(attempt)
    used(control, hours=1.3)
    control.heartbeat(*(one.id for one in attempts), slots=2)
    assert book.events()[-1] == "budget.warning"
    used(control, hours=1.6)
    control.heartbeat(*(one.id for one in attempts), slots=2)
    assert (book.job().study or {})["stopping"] == "budget_exhausted"
    control.dispatcher.dispatch()
    assert set(control.redis.hvals(WISHES_HASH)) == {b"pause"}  # type: ignore[arg-type]


def used(control: Control, hours: float) -> None:
    """As if every open attempt had used its devices for so long."""
    with control.sessions.begin() as session:
        session.execute(
            text("UPDATE attempts SET started_at = now() - make_interval(secs => :seconds) WHERE finished_at IS NULL"),
            {"seconds": hours * HOUR},
        )


def test_ten_thousand_attempts_are_added_up_in_no_time(client: httpx2.Client, control: Control) -> None:
    book = Book(client, control)
    rows = """
      INSERT INTO trials (job_id, number, status, reason, attempt, losses, finished_at)
        SELECT :job, n, 'succeeded', 'completed', 1, 0, now() FROM generate_series(0, 9999) AS n;
      INSERT INTO attempts (id, job_id, trial, number, worker, incarnation, device, devices, last_seq, made_progress,
                            reason, finished_at, started_at, held_seconds)
        SELECT 'att_' || n, :job, n, 1, 'host-a', 'one', 'cpu', 1, 0, true, 'completed', now(), now(), 1.5
        FROM generate_series(0, 9999) AS n"""
    with control.sessions.begin() as session:
        for statement in rows.split(";"):
            session.execute(text(statement), {"job": book.id})
    before = time.process_time()
    with control.sessions() as session:
        assert costs.total(session, book.id, datetime.now(UTC)).seconds == pytest.approx(15_000)
    assert time.process_time() - before < 0.05  # of ours: rows that were loaded would take ten times that
    assert client.get(f"/v1/jobs/{book.id}").json()["device_hours"] == pytest.approx(15_000 / HOUR)


def room(slots: int, *booked: tuple[str, float, bool]) -> Room:
    worker: Any = type("Worker", (), {"slots": slots})()
    return Room(worker, [Booked(job, "train", size, ready, job.startswith("s")) for job, size, ready in booked])


def test_room_is_counted_in_parts() -> None:
    third = 1 / 3
    assert room(1, ("s", third, True), ("s", third, True)).takes(third, ready=True)
    assert not room(1, ("s", third, True), ("s", third, True)).takes(0.5, ready=True)
    assert room(2, ("s", 0.5, True)).free == 1
    full = room(1, ("s", 0.5, True), ("s", 0.5, True), ("s", 0.5, True))
    assert (full.takes(0.5, ready=True), full.takes(0.5, ready=True, ahead=AHEAD)) == (False, True)
    assert full.takes(1, ready=False)  # what only waits ahead keeps nobody from preparing
    assert not room(1, ("a", 1, True), ("b", 1, True)).takes(1, ready=False)


def test_the_best_trials_of_several_objectives_are_those_that_the_fewest_beat() -> None:
    search = Search.model_validate(
        {**SEARCH, "objective": [{"metric": "validation/accuracy"}, {"metric": "device_seconds"}]}
    )
    values = {
        number: {"validation/accuracy": accuracy, "device_seconds": seconds}
        for number, (accuracy, seconds) in enumerate([(0.9, 20), (0.7, 25), (0.8, 5), (0.8, 10)])
    }
    assert objective.best_first(search, values) == [0, 2, 3, 1]


def test_an_attempt_is_lent_a_part_of_one_device_alone() -> None:
    one = costs.Lent("cuda", 1, "gpu", Decimal("2"), "EUR").part(0.25)
    assert (one.share, one.size, one.price_per_hour) == (0.25, 0.25, Decimal("0.50"))
    two = costs.Lent("cuda", 2, "gpu-2", Decimal("4"), "EUR").part(0.25)
    assert (two.share, two.size, two.price_per_hour) == (1.0, 2.0, Decimal("4"))
    assert costs.Lent.to(Attempt(device="cuda", devices=1, share=0.5)).size == 0.5
