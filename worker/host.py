"""What the threads of one worker share: its name for this life, its slots, its runs, its journal."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import redis

from training_core.contract.messages import Ticket
from training_core.contract.run_dir import RunDir
from training_core.contract.sealing import sealer_of
from training_core.planner.facts import cpu_features
from worker.access import Access
from worker.cgroup import Cgroups
from worker.journal import Journal
from worker.launcher import Launcher
from worker.outcome import Cause
from worker.process import LAUNCH
from worker.redaction import places_of
from worker.secrets import Secrets
from worker.settings import Settings
from worker.slots import Slots, allowed_cores, find_devices


@dataclass
class Run:
    """One attempt on this host; other threads ask it to stop."""

    ticket: Ticket
    run_dir: RunDir
    cause: Cause | None = None
    _profiled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self, cause: Cause) -> None:
        """The first cause stays, but who cancels what is about to pause gets it cancelled.

        Nothing overrules that the book has given the attempt up.
        """
        with self._lock:
            cancels = self.cause is Cause.PAUSED and cause is Cause.CANCELLED
            if self.cause is None or cancels or cause is Cause.ABANDONED:
                self.cause = cause

    def profile(self, *, wanted: bool) -> None:
        """Ask for a trace once, however often the wish is repeated; the next wish begins when this one has gone."""
        if wanted and not self._profiled:
            self.run_dir.request_profile()
        self._profiled = wanted


class Host:
    """`incarnation` is new with every process, so that nobody takes a restarted worker for its former self."""

    def __init__(self, settings: Settings, program: Sequence[str] = LAUNCH) -> None:
        self.settings, self.program = settings, program
        self.incarnation = uuid4().hex
        self.devices = find_devices(settings)
        self.cpu_features = cpu_features()
        self.slots = Slots(self.devices.slots)
        self.threads = max(1, allowed_cores() // self.devices.slots)
        self.runs = settings.work_dir / "runs"
        self.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        self.redis = redis.Redis.from_url(
            settings.redis_url.get_secret_value(), socket_timeout=5, socket_connect_timeout=2
        )
        self.cgroups = Cgroups(settings.attempt_memory_bytes)
        self.journal = Journal(self.redis, self.runs, places_of(settings))
        self.launcher = Launcher(settings) if settings.warm_launcher else None
        self.access = Access(settings)
        self.secrets = Secrets(sealer_of(settings.secrets_key.get_secret_value()), settings.credentials_file)
        self.draining = False
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self, run: Run) -> Iterator[None]:
        """Count `run` among the heartbeat's attempts; one that begins while the worker drains is stopped at once."""
        with self._lock:
            self._runs[run.ticket.attempt_id] = run
            draining = self.draining
        if draining:
            run.stop(Cause.SHUTDOWN)
        try:
            yield
        finally:
            with self._lock:
                del self._runs[run.ticket.attempt_id]

    def current(self) -> list[Run]:
        with self._lock:
            return list(self._runs.values())

    def drain(self) -> None:
        """Every run writes a checkpoint and ends. Called in a signal handler: takes no lock that a thread may hold."""
        self.draining = True
        for run in list(self._runs.values()):
            run.stop(Cause.SHUTDOWN)
