"""A short, seeded form of `make fuzz`: the same requests each time, against a live API."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from api.book.database import make_engine, make_sessions
from api.settings import Settings
from tests.fuzz.hostile import Hostile
from tests.fuzz.hunting import hunt
from tests.fuzz.judging import Judge
from tests.fuzz.service import SETTINGS, furnish
from tests.integration.conftest import serving
from training_core.contract.sealing import new_key

CASES = 800


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    secrets_key = SecretStr(new_key())
    return Settings(database_url=SecretStr(database_url), store=tmp_path.as_uri(), secrets_key=secrets_key, **SETTINGS)


def test_whatever_is_sent_is_answered_in_time_and_as_documented(settings: Settings, tmp_path: Path) -> None:
    engine = make_engine(settings, "fuzz")
    key, pools = furnish(make_sessions(engine), tmp_path)
    engine.dispose()
    with serving(settings) as url:
        document = httpx2.get(f"{url}/openapi.json").json()
        sources = [Hostile(document, pools, key, f"test.{line}").next for line in range(2)]
        found = hunt(url, Judge(document), sources, CASES)
    assert found.faults == [], str(found)
    assert found.cases == CASES
    assert {200, 404, 422} <= set(found.statuses)
