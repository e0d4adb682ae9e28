"""Two ranks against one: how gradients are exchanged, and what happens when one rank runs out of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.training.running import ROOT

Found = dict[str, Any]


@pytest.fixture(scope="module")
def found() -> Found:
    """What `tests.training.rank_cases` saw."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.rank_cases"], cwd=ROOT, capture_output=True, check=False, timeout=170
    )
    assert done.returncode == 0, done.stderr.decode()
    cases: Found = json.loads(done.stdout)
    return cases


def both(found: Found, name: str) -> Any:
    """What both ranks say, who must agree."""
    one, two = found[name]
    for answer in (one, two):
        assert not (isinstance(answer, dict) and "error" in answer), answer
    assert curve_of(one) == curve_of(two)
    return one


def curve_of(answer: Any) -> list[float]:
    losses: list[float] = answer["losses"] if isinstance(answer, dict) else answer
    return losses


@pytest.mark.parametrize("name", ["ddp", "accumulated"])
def test_an_uneven_batch_is_the_same_on_two_ranks_whole_or_in_pieces(found: Found, name: str) -> None:
    assert both(found, name) == pytest.approx(found["alone"], rel=1e-5)


@pytest.mark.parametrize(("name", "closeness"), [("fp16", 1e-3), ("bf16", 5e-3), ("powersgd", 5e-2)])
def test_compressed_gradients_are_nearly_the_same(found: Found, name: str, closeness: float) -> None:
    losses = both(found, name)
    assert losses == pytest.approx(found["alone"], rel=closeness)
    assert losses[-1] != found["ddp"][0][-1], "nothing was compressed"


def test_powersgd_goes_on_from_a_checkpoint_as_if_there_had_been_none(found: Found) -> None:
    (first, second), _ = found["forgetful"]
    assert first == second


def test_sharded_ranks_learn_and_answer_as_one(found: Found) -> None:
    both(found, "sharded")
    one, two = found["sharded"]
    assert one["losses"][:-1] == pytest.approx(found["clipped"], rel=1e-5)
    assert one["whole"] == two["whole"]
    assert 0.4 < one["share"] < 0.6
    assert (len(one["answers"]), len(two["answers"])) == (2, 1)
    assert {*one["answers"], *two["answers"]} == {one["answers"][0]}


def test_a_rank_without_memory_in_its_backward_pass_costs_nothing_but_the_step(found: Found) -> None:
    """Twice before buckets go out as soon as they are full, once after."""
    recovered = both(found, "recovered")
    assert recovered["buckets"] > 2
    assert recovered["told"] == [[0, 16, 8], [1, 8, 4], [6, 4, 2]]
    assert found["recovered"][1]["micro"] == recovered["micro"] == 2
    assert recovered["losses"] == pytest.approx(found["undisturbed"]["losses"], rel=5e-4)


def test_recovery_works_with_compressed_gradients(found: Found) -> None:
    recovered = both(found, "recovered fp16")
    assert recovered["told"] == [[1, 16, 8], [6, 8, 4]]
    assert recovered["losses"] == pytest.approx(found["undisturbed"]["losses"], rel=2e-3)


def test_a_rank_that_the_kernel_gives_too_little_takes_smaller_pieces(found: Found) -> None:
    scarce = both(found, "scarce")
    assert scarce["told"], "it had enough"
    assert scarce["micro"] == scarce["told"][-1][2] < 64
    assert scarce["known"] == scarce["micro"], "the next job of this kind is told"
    assert scarce["losses"] == pytest.approx(found["plenty"][:3], rel=1e-3)


def test_a_rank_that_cannot_be_helped_ends_all_with_the_reason(found: Found) -> None:
    for answer in found["hopeless"]:
        assert answer["reason"] == "out_of_memory"
        assert "micro-batch of 1 " in answer["message"]


def test_a_rank_that_says_nothing_is_given_up(found: Found) -> None:
    waited, silent = found["silent"]
    assert silent == "left"
    assert waited == {"silent_peer": True}
