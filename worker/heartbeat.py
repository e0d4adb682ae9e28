"""Says every second that this worker lives and what it runs, and hears what the control plane wishes of its runs."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import cast

from redis.exceptions import RedisError

from training_core.wire import HEARTBEAT_SECONDS, WISHES_HASH, WORKERS_HASH, Heartbeat, Wish
from worker.host import Host
from worker.outcome import Cause
from worker.slots import allowed_cores

VERSION = "0.1.0"
CAUSES = {Wish.STOP.value.encode(): Cause.CANCELLED, Wish.ABANDON.value.encode(): Cause.ABANDONED}

log = logging.getLogger("trainyard.worker")


class Heart:
    """One thread; a Redis that is away costs beats and nothing else."""

    def __init__(self, host: Host) -> None:
        self._host, self._redis = host, host.redis
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fall silent and take the own entry away, so that the book need not wait for the silence to be noticed."""
        self._stop.set()
        self._thread.join()
        try:
            self._forget()
        except RedisError as error:
            log.warning("Redis: %s; the book will notice the silence", type(error).__name__)

    def _run(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS if self._beat else 0):
            try:
                self.beat()
            except RedisError as error:
                log.warning("Redis: %s; no heartbeat", type(error).__name__)

    def beat(self) -> None:
        """One sign of life, and one look at the wishes."""
        self._beat += 1
        runs = self._host.current()
        attempts = [run.ticket.attempt_id for run in runs]
        self._redis.hset(WORKERS_HASH, self._host.settings.worker_name, self._message(attempts))
        if not runs:
            return
        wishes = self._redis.hmget(WISHES_HASH, attempts)
        for run, wish in zip(runs, wishes, strict=True):
            if (cause := CAUSES.get(cast("bytes", wish))) is not None:
                run.stop(cause)

    def _message(self, attempts: list[str]) -> str:
        host = self._host
        return Heartbeat(
            worker=host.settings.worker_name,
            incarnation=host.incarnation,
            beat=self._beat,
            host=socket.gethostname(),
            device=host.devices.kind,
            device_name=host.devices.name,
            slots=host.devices.slots,
            cores=allowed_cores(),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            draining=host.draining,
            attempts=attempts,
            version=VERSION,
        ).model_dump_json()

    def _forget(self) -> None:
        name = self._host.settings.worker_name
        value = self._redis.hget(WORKERS_HASH, name)
        if value is not None and Heartbeat.model_validate_json(value).incarnation == self._host.incarnation:
            self._redis.hdel(WORKERS_HASH, name)
