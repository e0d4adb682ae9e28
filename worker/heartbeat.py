"""Says every second that this worker lives and what it runs, and hears what the control plane wishes of its runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from typing import cast

from redis.exceptions import RedisError

from training_core.contract.messages import HEARTBEAT_SECONDS, WISHES_HASH, Heartbeat, Wish
from training_core.planner.facts import memory_bytes
from worker.host import Host
from worker.name import Holder, Name
from worker.outcome import Cause
from worker.slots import allowed_cores

VERSION = "0.1.0"
LISTEN_SECONDS = 0.2
CAUSES = {
    Wish.STOP.value.encode(): Cause.CANCELLED,
    Wish.PAUSE.value.encode(): Cause.PAUSED,
    Wish.ABANDON.value.encode(): Cause.ABANDONED,
}
PROFILE = Wish.PROFILE.value.encode()

log = logging.getLogger("trainyard.worker")


class Heart:
    """One thread; a Redis that is away costs beats and nothing else."""

    def __init__(self, host: Host) -> None:
        self._host, self._redis = host, host.redis
        self.name = Name(host.redis, host.settings.worker_name, host.incarnation)
        self.replaced_by: Holder | None = None
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
            self.name.leave()
        except RedisError as error:
            log.warning("Redis: %s; the book will notice the silence", type(error).__name__)

    def _run(self) -> None:
        beat_at = time.monotonic()
        while not self._stop.wait(LISTEN_SECONDS if self._beat else 0) and self.replaced_by is None:
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + HEARTBEAT_SECONDS
                    self.beat()
                self.listen()
            except RedisError as error:
                log.warning("Redis: %s; no heartbeat", type(error).__name__)
                self._stop.wait(HEARTBEAT_SECONDS)

    def beat(self) -> None:
        """One sign of life; none once another worker has our name, as happens to one that was frozen for long."""
        self._beat += 1
        attempts = [run.ticket.attempt_id for run in self._host.current()]
        holder = self.name.keep(self._message(attempts))
        if holder is not None:
            self._give_way(holder)

    def _give_way(self, holder: Holder) -> None:
        """The book has given our attempts to others: they are dropped where they stand, and this process ends."""
        self.replaced_by = holder
        log.error("worker %s lives on %s now; this process ends", self.name.name, holder.host)
        for run in self._host.current():
            run.stop(Cause.ABANDONED)
        os.kill(os.getpid(), signal.SIGTERM)

    def listen(self) -> None:
        """One look at the wishes: more often than the heart beats, since somebody waits for what he wished."""
        runs = self._host.current()
        if not runs:
            return
        wishes = self._redis.hmget(WISHES_HASH, [run.ticket.attempt_id for run in runs])
        for run, wish in zip(runs, wishes, strict=True):
            run.profile(wanted=wish == PROFILE)
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
            memory_bytes=memory_bytes(),
            device_memory_bytes=host.devices.memory_bytes,
            cpu_features=host.cpu_features,
            draining=host.draining,
            attempts=attempts,
            version=VERSION,
            readable=host.access.readable(),
        ).model_dump_json()
