"""Hostile URIs in every field that takes one: refused by the table, and those that are read lead nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.data.hostile_uris import Hostile, hostile_uris
from training_core.contract.spec import JobSpec
from training_core.contract.spec.space_faults import faults

SEED = 20261201
ROOT = Path(__file__).parents[2]


def body_with(one: Hostile) -> dict[str, Any]:
    body: dict[str, Any] = {"task": "image-classification", "dataset": {"uri": "file:///x"}}
    if one.field == "dataset.uri":
        return {**body, "dataset": {"uri": one.uri}}
    if one.field == "model.weights":
        return {**body, "model": {"name": "small_cnn", "weights": one.uri}}
    choices = ["s3://example/model.safetensors", one.uri]
    space = {"model.weights": {"type": "categorical", "choices": choices}}
    return {**body, "model": {"name": "small_cnn"}, "search": {"space": space, "trials": 2}}


def test_two_and_a_half_thousand_are_refused_or_read_by_the_table() -> None:
    told = {True: 0, False: 0}
    for one in hostile_uris(SEED, 2500):
        try:
            spec = JobSpec.model_validate(body_with(one))
            accepted = not list(faults(spec))
        except ValidationError:
            accepted = False
        assert accepted is one.is_uri, repr(one)
        told[accepted] += 1
    assert told[True] > 500


def namespaces() -> bool:
    """Whether this machine lends networks of one's own, and counts in them."""
    if shutil.which("unshare") is None or shutil.which("nft") is None or shutil.which("ip") is None:
        return False
    return (
        subprocess.run(["unshare", "-rn", "nft", "list", "ruleset"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not namespaces(), reason="needs network namespaces and nft")
@pytest.mark.parametrize("count", [250, pytest.param(4000, marks=pytest.mark.long)])
def test_no_packet_leaves_for_a_denied_address(tmp_path: Path, count: int) -> None:
    command = ["unshare", "-rn", sys.executable, "-m", "tests.data.hostile_child", str(tmp_path), str(SEED), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["denied_packets"] == 0, told
    assert told["reached"] == []
    assert told["ends"]["denied"] > count / 10
    assert told["other_packets"] > 0
    assert told["counter_sees"]
