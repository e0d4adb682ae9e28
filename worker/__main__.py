"""`python -m worker`: takes tickets until SIGTERM; then every run writes a checkpoint and is handed back."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.signals import worker_shutting_down
from redis.exceptions import RedisError

from training_core.contract.messages import host_queue
from training_core.contract.redaction import redact_logs
from training_core.contract.settings import load
from training_core.processes.handover import keep_private
from worker import production
from worker.app import make_app
from worker.heartbeat import Heart
from worker.host import Host
from worker.name import Name, NameTaken
from worker.settings import Settings

DRAIN_SECONDS = 10.0

log = logging.getLogger("trainyard.worker")

# A thread watches one attempt, and is made when it is needed. A slot takes 20 small trials; more wait or prepare beside
# them, and checks of data hold no slot at all.
THREADS_PER_SLOT = 24
SPARE_THREADS = 8


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    redact_logs()
    settings = load(Settings)
    keep_private()
    production.check(settings)
    host = Host(settings)
    heart = Heart(host)
    take_name(heart.name)

    def drain(**_: Any) -> None:
        host.drain()

    worker_shutting_down.connect(drain, weak=False)
    worker = make_app(host).Worker(
        pool="threads",
        concurrency=THREADS_PER_SLOT * host.devices.slots + SPARE_THREADS,
        queues=[host_queue(settings.worker_name)],
        hostname=f"{settings.worker_name}@trainyard",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel="INFO",
    )
    host.journal.start()
    heart.start()
    if host.launcher is not None:
        host.launcher.start()
    worker.start()
    if not host.journal.stop(DRAIN_SECONDS):
        log.warning("some reports stay in their files until the next start")
    heart.stop()
    if host.launcher is not None:
        host.launcher.stop()
    if heart.replaced_by is not None:
        raise SystemExit(f"The name of this worker was taken while it was frozen, by one on {heart.replaced_by.host}")
    raise SystemExit(worker.exitcode)


def take_name(name: Name) -> None:
    """Ends the process with one line where another worker lives under it; waits for a Redis that does not answer."""
    while True:
        try:
            return name.take()
        except NameTaken as taken:
            raise SystemExit(str(taken)) from None
        except RedisError as error:
            log.warning("Redis: %s; the worker starts when it answers", type(error).__name__)
            time.sleep(1)


if __name__ == "__main__":
    main()
