"""One control process leads at a time, by a PostgreSQL advisory lock that ends with its connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

LEADER_LOCK = 7_271_002
CHECK_SECONDS = 2.0

UNREACHABLE = (RedisError, DBAPIError, PoolTimeout, psycopg.OperationalError)

log = logging.getLogger("trainyard.control")

Loop = Callable[[threading.Event], None]


def lead(engine: Engine, loops: dict[str, Loop], stop: threading.Event) -> None:
    """Wait for leadership, run all loops until it is lost, and begin again, until `stop`.

    A loop that fails for any reason but an unreachable Redis or PostgreSQL is a bug: it ends the process with its
    traceback, so that a supervisor starts it afresh and nobody trusts half a control plane.
    """
    while not stop.is_set():
        with suppress(DBAPIError, PoolTimeout), engine.connect() as connection:
            if not _acquired(connection):
                stop.wait(CHECK_SECONDS)
                continue
            log.info("leading")
            _run_while_leading(connection, loops, stop)
        stop.wait(0.5)


def _acquired(connection: Connection) -> bool:
    granted = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": LEADER_LOCK}).scalar_one()
    connection.commit()  # the lock belongs to the session, not to a transaction left open for hours
    return bool(granted)


def _run_while_leading(connection: Connection, loops: dict[str, Loop], stop: threading.Event) -> None:
    ended = threading.Event()
    failures: list[BaseException] = []

    def run(name: str, loop: Loop) -> None:
        try:
            keep_trying(name, loop, ended)
        except BaseException as failure:  # noqa: BLE001  carried to the main thread, which raises it
            failures.append(failure)
            ended.set()

    threads = [threading.Thread(target=run, args=item, name=item[0]) for item in loops.items()]
    for thread in threads:
        thread.start()
    try:
        while not stop.is_set() and not ended.wait(CHECK_SECONDS):
            connection.execute(text("SELECT 1"))
            connection.commit()
    except DBAPIError:
        log.warning("leadership lost: the database connection ended")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def keep_trying(name: str, loop: Loop, stop: threading.Event) -> None:
    """Run `loop` until `stop`, with growing pauses while Redis or PostgreSQL cannot be reached."""
    pause_seconds = 0.2
    while not stop.is_set():
        try:
            loop(stop)
            pause_seconds = 0.2
        except UNREACHABLE as failure:
            log.warning("%s: %s; again in %.1f s", name, type(failure).__name__, pause_seconds)
            stop.wait(pause_seconds)
            pause_seconds = min(pause_seconds * 2, 5.0)
