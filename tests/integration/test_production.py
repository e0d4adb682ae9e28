"""Production does not start with passwords that everybody knows, nor beside a Redis that answers anybody."""

from __future__ import annotations

import pytest
import redis

from api import production
from api.settings import Settings

DATABASE = "postgresql+psycopg://trainyard:a-long-random-password@db/trainyard"


def settings(redis_url: str, database_url: str = DATABASE) -> Settings:
    return Settings(mode="production", database_url=database_url, redis_url=redis_url)


def test_an_open_redis_is_refused_though_a_password_was_sent(redis_url: str, redis_client: redis.Redis) -> None:
    password = redis_client.config_get("requirepass")["requirepass"]
    redis_client.config_set("requirepass", "")
    try:
        with pytest.raises(SystemExit, match="answers without a password"):
            production.check(settings(redis_url), with_redis=True)
    finally:
        redis_client.config_set("requirepass", password)


def test_a_redis_that_asks_for_its_password_is_taken(redis_url: str) -> None:
    production.check(settings(redis_url), with_redis=True)


@pytest.mark.parametrize(
    "database_url", [DATABASE.replace("a-long-random-password", "trainyard"), "postgresql+psycopg://u@db/trainyard"]
)
def test_a_default_database_password_is_refused_in_one_line(database_url: str) -> None:
    with pytest.raises(SystemExit) as ended:
        production.check(settings("redis://unused", database_url), with_redis=False)
    assert str(ended.value).startswith("TRAINYARD_DATABASE_URL has no password")
    assert "\n" not in str(ended.value)
