"""`python -m worker.health`: exit 0 when this worker's heart beats, 1 when it does not within a few seconds."""

from __future__ import annotations

import sys
import threading
import time

import redis

from training_core.contract.messages import HEARTBEAT_SECONDS, WORKERS_HASH, Heartbeat
from training_core.contract.settings import load
from worker.settings import Settings


def beating(client: redis.Redis, worker: str, seconds: float) -> bool:
    """Whether the beat counter of `worker` changes within `seconds`."""
    first: Heartbeat | None = None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = client.hget(WORKERS_HASH, worker)
        beat = Heartbeat.model_validate_json(value) if value else None
        if beat is not None and first is not None and beat.beat != first.beat:
            return True
        first = first or beat
        threading.Event().wait(HEARTBEAT_SECONDS / 4)
    return False


def main() -> None:
    settings = load(Settings)
    with redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=2) as client:
        sys.exit(0 if beating(client, settings.worker_name, 4 * HEARTBEAT_SECONDS) else 1)


if __name__ == "__main__":
    main()
