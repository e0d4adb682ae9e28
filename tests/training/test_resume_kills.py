"""SIGKILL at two moments, one in the middle of a write in the background: the result is that of no kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.killing import Kind, differences, on_their_way, warm_launcher
from tests.training.running import Run
from worker.launcher import Launcher


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with warm_launcher() as launcher:
        yield launcher


def saved(run: Run) -> bool:
    return run.dir.events.exists() and "checkpoint_saved" in run.kinds()


def saved_and_writing(run: Run) -> bool:
    return saved(run) and on_their_way(run) > 0


KINDS = [
    {},
    pytest.param({"precision": "bf16"}, marks=pytest.mark.long),
    # With batch norms, whose running statistics are those of rank 0.
    {"ranks": 2, "model": "mobilenet_v3_small"},
    # Sums of three gradients depend on their order.
    pytest.param({"ranks": 3}, marks=pytest.mark.long),
    pytest.param({"ranks": 2, "strategy": "fsdp"}, marks=pytest.mark.long),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_changes_nothing(launcher: Launcher, tmp_path: Path, images: Path, kind: dict[str, Any]) -> None:
    trainings = Kind(launcher, tmp_path, images, **kind)
    trainings.training["epochs"] = 6
    whole = trainings.whole()
    for condition in (saved, saved_and_writing):
        killed = trainings.killed_when(condition)
        resumed = trainings.resumed(killed)
        assert resumed.of_kind("started")[0].resumed_from_step > 0
        assert differences(whole, resumed) == []
