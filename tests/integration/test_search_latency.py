"""What keeps the next trial of a search close behind the last one: wake-ups, awaited locks, no ping-pong."""

from __future__ import annotations

import threading

import httpx2
import psycopg

from api.book.events import STUDY_CHANNEL
from api.book.locks import lock_job
from api.settings import Settings
from tests.integration.conftest import Control
from tests.integration.search_book import CLAIMED, READY, Book, finished
from tests.waiting import eventually
from training_core.contract.errors import Reason

HOUR_SECONDS = 3600.0


def trials(control: Control) -> list[int]:
    """Those of all attempts, after a pass of the dispatcher."""
    control.dispatcher.dispatch()
    return sorted(attempt.trial for attempt in control.attempts())


def test_a_search_that_reports_all_the_time_is_booked_in_the_same_pass(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    book.add(0.01)
    with control.sessions.begin() as session:
        lock_job(session, book.id)  # as the recorder does for each batch of its reports
        dispatching = threading.Thread(target=control.dispatcher.dispatch)
        dispatching.start()
        eventually(lambda: waits_for_a_lock(control))
        assert control.attempts() == []
    dispatching.join(10)
    assert [attempt.trial for attempt in control.attempts()] == [0]


def waits_for_a_lock(control: Control) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with control.sessions() as session:
        return bool(session.connection().exec_driver_sql(waiting).scalar_one())


def test_the_first_trial_wakes_the_tuner_when_its_data_is_ready(
    client: httpx2.Client, control: Control, settings: Settings
) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    book.add(0.01)
    attempt = book.booked(0)
    control.report(attempt, CLAIMED)
    url = settings.database_url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(url, autocommit=True) as bell:
        bell.execute(f"LISTEN {STUDY_CHANNEL}")
        control.report(attempt, READY)
        assert [note.payload for note in bell.notifies(timeout=10, stop_after=1)] == [book.id]


def test_a_trial_that_waited_in_vain_is_not_sent_ahead_again(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=1)
    book = Book(client, control)
    book.add(0.01)
    running = book.trains(0)
    for rate in (0.02, 0.03, 0.04, 0.05):
        book.add(rate)
    assert trials(control) == [0, 1, 2]
    ahead = [attempt for attempt in control.attempts() if attempt.trial]
    control.report(ahead[0], CLAIMED, finished(Reason.NO_SLOT, 0))
    assert trials(control) == [0, 1, 2], "neither it nor another one in its place"
    control.report(ahead[1], CLAIMED, finished(Reason.NO_SLOT, 0))
    control.report(running, finished(Reason.NAN_LOSS, HOUR_SECONDS))
    assert trials(control) == [0, 1, 1, 2], "it goes as soon as a slot is free, and the other waits on"
    failed = client.get(f"/v1/jobs/{book.id}/trials?status=failed").json()["data"]
    assert [trial["number"] for trial in failed] == [0], "and none is lost by it"
