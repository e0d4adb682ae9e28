"""Counts what the planner knows of each network, and writes `training_core/planner/network_table.py`.

    python -m benchmarks.engine.model_facts [--check]

Floating-point operations of a forward pass by torch's own counter, and the bytes that autograd keeps for the backward
pass, both of one 3-channel image at several sides. `--check` writes nothing and fails where the file differs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import get_args

import torch
from torch.utils.flop_counter import FlopCounterMode

from training_core.contract.spec import ModelName
from training_core.optimisation.layers import has_batch_norm, head
from training_core.vision.networks import make_model

SIDES = (32, 64, 128, 224)
CLASSES = 10
FILE = Path(__file__).parents[2] / "training_core" / "planner" / "network_table.py"
BEGINNING = '''"""What each network takes, counted by `python -m benchmarks.engine.model_facts`. Generated."""

from training_core.planner.networks import At, Network

NETWORKS = {
'''


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    content = formatted(BEGINNING + "".join(facts(name) for name in get_args(ModelName) if name != "auto") + "}\n")
    if check:
        return int(content != FILE.read_text())
    FILE.write_text(content)
    return 0


def facts(name: str) -> str:
    model = make_model(name, channels=3, classes=CLASSES)
    last = head(model)[1]
    numbers = {
        "parameters": sum(one.numel() for one in model.parameters()) - (last.in_features + 1) * CLASSES,
        "features": last.in_features,
        "buffer_bytes": sum(one.numel() * one.element_size() for one in model.buffers()),
        "layers": sum(1 for one in model.modules() if not list(one.children())),
        "batch_norm": has_batch_norm(model),
    }
    at = ", ".join(f"{side}: At({flops(model, side)}, {kept_bytes(model, side)})" for side in SIDES)
    fields = ", ".join(f"{key}={value}" for key, value in numbers.items())
    return f'"{name}": Network({fields}, at={{{at}}}),\n'


def flops(model: torch.nn.Module, side: int) -> int:
    """Of the forward pass of one image."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    model.train()
    return int(counter.get_total_flops())


def kept_bytes(model: torch.nn.Module, side: int) -> int:
    """That autograd keeps of one image, in fp32: the difference between two batches, each storage once."""
    return _kept(model, 3, side) - _kept(model, 2, side)


def _kept(model: torch.nn.Module, images: int, side: int) -> int:
    parameters = {one.untyped_storage().data_ptr() for one in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(images, 3, side, side)).sum()
    return sum(storage.nbytes() for storage in storages.values())


def formatted(content: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "-"]
    return subprocess.run(command, input=content, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
