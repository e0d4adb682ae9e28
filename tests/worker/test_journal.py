"""Nothing that a run wrote is lost or doubled, whatever happens to Redis or to the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable

from local.valkey import Valkey
from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_runner import run_dir, running
from training_core.contract.messages import REPORTS_STREAM, Ticket
from worker.host import Host
from worker.outcome import Cause
from worker.runner import run_attempt
from worker.settings import Settings


def whole(book: Book, attempt: str) -> bool:
    return [line["seq"] for line in book.lines[attempt]] == list(range(1, len(book.lines[attempt]) + 1))


def test_a_flushed_redis_loses_no_line(host: Host, ticket: Callable[..., Ticket], book: Book) -> None:
    with running(host, ticket(host, "obey")):
        for _ in range(3):
            eventually(lambda: host.redis.xlen(REPORTS_STREAM) > 5)
            host.redis.flushall()  # unread and unacknowledged lines go
            book.record()
        eventually(lambda: book.record() or len(book.lines.get("att_obey_1", ())) > 50)
        host.redis.flushall()
        host.current()[0].stop(Cause.CANCELLED)
    assert eventually(lambda: book.finished("att_obey_1"), 20)
    assert whole(book, "att_obey_1")


def test_a_redis_that_was_away_gets_everything_afterwards(
    host: Host, ticket: Callable[..., Ticket], book: Book, valkey_server: Valkey
) -> None:
    valkey_server.kill()
    run_attempt(host, ticket(host, "complete"))
    valkey_server.start()
    assert eventually(lambda: book.finished("att_complete_1"), 20)
    assert len(book.lines["att_complete_1"]) == 503


def test_the_next_process_sends_what_the_last_one_could_not(
    host: Host, ticket: Callable[..., Ticket], book: Book, settings: Settings
) -> None:
    host.journal.stop(0)
    run_attempt(host, ticket(host, "complete"))
    events = run_dir(host, ticket(host, "complete")) / "events.jsonl"
    with events.open("ab") as file:
        file.write(b'{"seq": 504, "ki')  # the power went
    reborn = Host(settings, host.program)
    reborn.journal.start()
    assert eventually(lambda: book.finished("att_complete_1"))
    assert reborn.journal.stop(5)
    assert whole(book, "att_complete_1")


def test_a_book_that_knows_less_gets_it_all_again(host: Host, ticket: Callable[..., Ticket], book: Book) -> None:
    with running(host, ticket(host, "obey")):
        eventually(lambda: book.record() or len(book.lines.get("att_obey_1", ())) > 30)
        book.lines.clear()  # restored from yesterday's backup
        eventually(lambda: book.record() or len(book.lines.get("att_obey_1", ())) > 40, 20)
        host.current()[0].stop(Cause.CANCELLED)
    assert eventually(lambda: book.finished("att_obey_1"), 20)
    assert whole(book, "att_obey_1")


def test_shipping_and_recording_side_by_side(host: Host, ticket: Callable[..., Ticket], book: Book) -> None:
    threads = [threading.Thread(target=run_attempt, args=(host, ticket(host, "complete", n))) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for number in (1, 2, 3):
        assert eventually(lambda number=number: book.finished(f"att_complete_{number}"), 20)
        assert len(book.lines[f"att_complete_{number}"]) == 503, str(book.lines[f"att_complete_{number}"][-1])
    for thread in threads:
        thread.join()
