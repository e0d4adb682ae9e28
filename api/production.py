"""What `TRAINYARD_MODE=production` refuses to start with."""

from __future__ import annotations

import redis

from api.settings import Settings
from training_core.contract.settings import weak_password, without_password


def check(settings: Settings, *, with_redis: bool) -> None:
    """Ends the process with one line where a password is none, or where Redis answers without one."""
    if settings.mode != "production":
        return
    if problem := weak_password(settings.database_url.get_secret_value()):
        raise SystemExit(f"TRAINYARD_DATABASE_URL {problem}; TRAINYARD_MODE=production does not start with it")
    if not with_redis:
        return
    url = settings.redis_url.get_secret_value()
    if problem := weak_password(url):
        raise SystemExit(f"TRAINYARD_REDIS_URL {problem}; TRAINYARD_MODE=production does not start with it")
    if is_open(url):
        raise SystemExit("The Redis of TRAINYARD_REDIS_URL answers without a password; set requirepass or an ACL there")


def is_open(url: str) -> bool:
    """Whether the server answers somebody without credentials. One that does not answer at all is not open."""
    with redis.Redis.from_url(without_password(url), socket_timeout=2, socket_connect_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
