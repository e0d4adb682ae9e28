"""Memory that a step frees stays with the process that trains, until a lack of memory asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.training.running import ROOT

MANY, FEW = 1000, 50  # page faults of a step


@pytest.fixture(scope="module")
def found() -> Any:
    """What `tests.training.heap_cases` saw."""
    command = [sys.executable, "-m", "tests.training.heap_cases"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=120).stdout)


def test_a_step_touches_no_new_page(found: Any) -> None:
    faults = found["faults"]
    assert faults["as it comes"] > MANY, "glibc has changed: is the setting still needed?"
    assert faults["kept"] < FEW


def test_under_a_limit_on_addresses_memory_goes_back(found: Any) -> None:
    assert found["faults"]["under a limit"] > MANY


def test_freed_memory_is_kept_until_it_is_given_back(found: Any) -> None:
    mib = found["mib"]
    assert mib["held"] - mib["freed"] < 10
    assert mib["freed"] - mib["given back"] > 50
