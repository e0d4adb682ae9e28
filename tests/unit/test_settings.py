"""Settings that an operator can get wrong: each mistake is one line at the start, and no value is in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from api.settings import KNOWN_SCHEMES
from api.settings import Settings as ControlPlane
from docs import settings_reference
from training_core.contract.settings import KNOWN, weak_password
from worker.settings import Settings as Worker

GOOD = {
    "TRAINYARD_DATABASE_URL": "postgresql+psycopg://u:canary-password@h/d",
    "TRAINYARD_REDIS_URL": "redis://:canary@h",
}


def check(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINYARD_")}
    command = [sys.executable, "-m", program, "check"]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=False)


def test_every_setting_of_every_process_is_known_to_all_of_them() -> None:
    fields = {name.upper() for kind in (ControlPlane, Worker) for name in kind.model_fields}
    assert fields - KNOWN == set(), "add these to KNOWN in training_core/contract/settings.py"
    assert KNOWN - fields == {"COLLECTIVE_SECONDS", "DATA", "PARENT_PID", "RANKS_PARENT_PID", "SECRET_DESCRIPTOR"}


def test_every_setting_is_described_and_the_reference_page_is_current() -> None:
    for kind in (ControlPlane, Worker):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []
    assert settings_reference.PAGE.read_text() == settings_reference.page(), "run `make docs`"


def test_a_misspelt_variable_ends_the_process_and_names_the_nearest() -> None:
    done = check("api.settings", **GOOD, TRAINYARD_POOLSIZE="5")
    assert done.returncode == 1
    assert done.stderr == "TRAINYARD_POOLSIZE: there is no such setting; did you mean TRAINYARD_POOL_SIZE?\n"


def test_a_bad_value_is_one_line_that_does_not_repeat_it() -> None:
    done = check("worker.settings", TRAINYARD_REDIS_URL="redis://:canary@h", TRAINYARD_SLOTS="canary-secret")
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["TRAINYARD_STORE", "TRAINYARD_SLOTS"]
    assert "canary" not in done.stderr


def test_what_would_be_used_is_shown_without_secrets() -> None:
    done = check("api.settings", **GOOD, TRAINYARD_POOL_SIZE="7")
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout
    shown = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert shown["TRAINYARD_POOL_SIZE"] == ["7", "from", "the", "environment"]
    assert shown["TRAINYARD_DATABASE_URL"][:2] == ["(secret,", "set)"]


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://:redis@h:6379/0", "postgresql://u:trainyard@h/d", "redis://:short@h"]
)
def test_passwords_that_everybody_knows_are_weak(url: str) -> None:
    assert weak_password(url) is not None


def test_a_long_password_and_a_socket_are_not_weak() -> None:
    assert weak_password("redis://:a-long-random-password@h:6379/0") is None
    assert weak_password("postgresql+psycopg:///trainyard?host=/run/postgresql") is None


def test_schemes_are_split_and_every_known_one_can_be_allowed() -> None:
    assert ControlPlane(database_url="postgresql://x").schemes == {"file", "s3", "zip", "tar"}
    everything = ControlPlane(database_url="postgresql://x", allowed_schemes=" , ".join(KNOWN_SCHEMES))
    assert everything.schemes == set(KNOWN_SCHEMES) - {"abfs"}, "az by its other name"


def test_a_scheme_that_nothing_can_read_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="did you mean https"):
        ControlPlane(database_url="postgresql://x", allowed_schemes="file,htps")
