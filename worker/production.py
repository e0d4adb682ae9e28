"""What `TRAINYARD_MODE=production` refuses to start with."""

from __future__ import annotations

import redis

from training_core.contract.settings import weak_password, without_password
from worker.settings import Settings


def check(settings: Settings) -> None:
    """Ends the worker with one line where Redis has no password, or answers without it."""
    url = settings.redis_url.get_secret_value()
    if settings.mode != "production":
        return
    if problem := weak_password(url):
        raise SystemExit(f"TRAINYARD_REDIS_URL {problem}; TRAINYARD_MODE=production does not start with it")
    client = redis.Redis.from_url(without_password(url), socket_timeout=2, socket_connect_timeout=2)
    try:
        answers = bool(client.ping())
    except redis.RedisError:  # it wants a password, or is not there: both are somebody else's to say
        answers = False
    finally:
        client.close()
    if answers:
        raise SystemExit("The Redis of TRAINYARD_REDIS_URL answers without a password; set requirepass or an ACL there")
