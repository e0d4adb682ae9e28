"""A search loses no trial, and trains none twice, whoever dies around it."""

from __future__ import annotations

import pytest

from tests.e2e import chaos
from tests.e2e.conftest import Service

GOOD = 0.9  # what an undisturbed search of this kind has always found: three classes that are easy to tell apart


def test_a_search_goes_on_while_control_worker_and_valkey_fail(service: Service) -> None:
    turns = {2: "control", 4: "worker", 7: "flush", 9: "control"}
    found = chaos.disturbed_in_turn(service, chaos.search_spec(trials=12, epochs=8), turns)
    assert found.faults(12) == []
    assert found.best >= GOOD


@pytest.mark.long
def test_a_search_of_sixty_trials_under_a_hail_of_kills_finds_what_it_would_have_found(service: Service) -> None:
    spec = chaos.search_spec(trials=60, epochs=600)
    reference, found = chaos.undisturbed(service, spec), chaos.disturbed_by_the_clock(service, spec)
    assert found.done_to_it["control"] >= 2
    assert found.done_to_it["worker"] >= 1
    assert found.done_to_it["flush"] == 1
    assert found.faults(60) == []
    assert found.best >= reference.best - chaos.MARGIN
