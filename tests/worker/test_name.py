"""Two real workers of one name: the second is refused, a crashed one is followed at once, a frozen one gives way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_process import STARTER, beat_of, obedient, send
from training_core.contract.messages import WORKERS_HASH, name_key
from worker.name import Holder, Name, NameTaken
from worker.settings import Settings

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def start(settings: Settings, program: tuple[str, ...], tmp_path: Path) -> Iterator[Start]:
    """A worker named host-a, in folders of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(folder: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "TRAINYARD_REDIS_URL": settings.redis_url.get_secret_value(),
            "TRAINYARD_STORE": settings.store,
            "TRAINYARD_WORKER_NAME": "host-a",
            "TRAINYARD_WORK_DIR": str(tmp_path / folder / "work"),
            "TRAINYARD_CACHE_DIR": str(tmp_path / folder / "cache"),
            "TRAINYARD_DEVICE": "cpu",
            "TRAINYARD_WARM_LAUNCHER": "0",
            "PYTHONPATH": os.getcwd(),
        }
        with (tmp_path / f"{folder}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", STARTER, program[1]], env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def test_a_living_name_is_refused_a_dead_one_is_free_and_a_frozen_worker_gives_way(
    start: Start, settings: Settings, redis_client: redis.Redis, book: Book, tmp_path: Path
) -> None:
    first = start("first")
    beat = eventually(lambda: beat_of(redis_client), 30)
    assert start("refused").wait(30) == 1
    [line] = [line for line in (tmp_path / "refused.log").read_text().splitlines() if "host-a" in line]
    assert "running already" in line
    assert "TRAINYARD_WORKER_NAME" in line
    first.kill()
    first.wait()
    second = start("second")
    beat = eventually(lambda: (now := beat_of(redis_client)) and now.incarnation != beat.incarnation and now, 30)
    send(settings, obedient(beat))
    eventually(lambda: book.record() or len(book.lines.get("att_1", ())) > 5, 20)
    second.send_signal(signal.SIGSTOP)
    redis_client.delete(name_key("host-a"))  # as its lease would end
    third = start("third")
    beat = eventually(lambda: (now := beat_of(redis_client)) and now.incarnation != beat.incarnation and now, 30)
    second.send_signal(signal.SIGCONT)
    assert second.wait(30) == 1
    assert "The name of this worker was taken" in (tmp_path / "second.log").read_text()
    assert book.finished("att_1") is None  # whatever became of it there, nothing is said about it
    now = beat_of(redis_client)
    assert now is not None
    assert (now.incarnation, now.attempts, third.poll()) == (beat.incarnation, [], None)


def test_a_name_is_prolonged_by_each_beat_and_left_at_the_end(redis_client: redis.Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        mine, other = Name(client, "host-a", "one"), Name(client, "host-a", "two")
        mine.take()
        redis_client.pexpire(name_key("host-a"), 2000)
        assert mine.keep('{"beat": 1}') is None
        assert redis_client.pttl(name_key("host-a")) > 2000
        holder = other.keep('{"beat": 2}')
        assert holder is not None
        assert (holder.incarnation, holder.pid) == ("one", os.getpid())
        assert redis_client.hget(WORKERS_HASH, "host-a") == '{"beat": 1}'
        other.leave()
        assert redis_client.hget(WORKERS_HASH, "host-a") == '{"beat": 1}'
        mine.leave()
        assert redis_client.keys("*") == []
        redis_client.flushall()  # a Redis that forgot everything
        assert mine.keep() is None


def test_who_prolongs_lives_and_who_does_not_is_waited_for(redis_client: redis.Redis, redis_url: str) -> None:
    elsewhere = Holder(incarnation="far", host="far-away", system="another boot", pid=1).model_dump_json()
    dead = Holder.me("dead").model_copy(update={"born": 1.0}).model_dump_json()
    with redis.Redis.from_url(redis_url) as client:
        redis_client.set(name_key("host-a"), elsewhere, px=300)
        Name(client, "host-a", "two").take()
        redis_client.set(name_key("host-a"), dead)  # without an end: it is seen that it is dead
        Name(client, "host-a", "three").take()
        redis_client.set(name_key("host-a"), elsewhere, px=5000)
        with pytest.raises(NameTaken, match="far-away"), living(redis_client):
            Name(client, "host-a", "four").take()


@contextmanager
def living(client: redis.Redis) -> Iterator[None]:
    """Whoever has the name prolongs it."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            client.pexpire(name_key("host-a"), 5000)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
