"""What two ranks do in a few optimizer steps: `python -m tests.training.rank_cases` prints all cases as JSON.

One process imports torch once and forks the ranks of every case from itself.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.stepping import ALONE, allow, forked, make_training, one_step  # first: it is a good neighbour

# isort: split
import torch

from tests.waiting import eventually
from training_core.distributed import gradient_sync
from training_core.distributed.fsdp import full_state, local_shards
from training_core.distributed.ranks import TIMEOUT_VARIABLE, Ranks, is_silent_peer
from training_core.engine import oom_history
from training_core.engine.training import Training
from training_core.planner.host import look_at_host
from training_core.planner.table import key_of

STEPS = 5
MIB = 2**20
# The first filters alone make 17 MB of one rank's share.
PLENTY: dict[str, Any] = {"batch_size": 128, "image_size": 64}


class OutOfBackward(torch.autograd.Function):
    """Lets a rank run out of memory in the middle of a backward pass, where the kernel's limit cannot be aimed."""

    armed = False

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        if OutOfBackward.armed:
            OutOfBackward.armed = False
            raise MemoryError
        return gradient


def curve(compute: dict[str, Any] | None = None, **plan: Any) -> Callable[[Ranks, Path], Any]:
    def case(ranks: Ranks, folder: Path) -> Any:
        training = make_training(_own(folder, ranks), ranks, compute=compute, **plan)
        return [one_step(training) for _ in range(STEPS)]

    return case


def recovery(fail_at: tuple[int, ...], compute: dict[str, Any] | None = None) -> Callable[[Ranks, Path], Any]:
    """Rank 1 fails in the backward pass of some steps, between the gradients of its last layers and its first."""

    def case(ranks: Ranks, folder: Path) -> Any:
        gradient_sync.BUCKET_MIB = 0.02  # so that some are on their way when the rank fails
        training = make_training(_own(folder, ranks), ranks, compute=compute, batch_size=32)
        training.network[4].register_forward_hook(lambda module, given, made: OutOfBackward.apply(made))
        losses = []
        for step in range(STEPS + 3):
            OutOfBackward.armed = ranks.rank == 1 and step in fail_at
            losses.append(one_step(training))
        buckets = len(getattr(training.exchange, "_all_sizes", []))
        told, micro = _told(training), training.state.micro_batch_size
        return {"losses": losses, "micro": micro, "told": told, "buckets": buckets}

    return case


def scarce(ranks: Ranks, folder: Path) -> Any:
    """The kernel gives rank 1 too little for its share of the batch."""
    training = make_training(_own(folder, ranks), ranks, **PLENTY)
    if ranks.rank == 1:
        allow(60 * MIB)
    losses = [one_step(training) for _ in range(3)]
    host = look_at_host(training.materials.run)
    known = oom_history.known(_own(folder, ranks) / "cache", key_of(training.plan, host), "fp32")
    return {"losses": losses, "micro": training.state.micro_batch_size, "told": _told(training), "known": known}


def sharded(ranks: Ranks, folder: Path) -> Any:
    compute = {"strategy": "fsdp", "micro_batch_size": 3, "activation_checkpointing": True}
    training = make_training(_own(folder, ranks), ranks, compute=compute, gradient_clipping=1.0)
    losses = [one_step(training) for _ in range(STEPS)]
    whole = full_state(training.model)
    with training.exchange.evaluating(), torch.no_grad():
        # Rank 1 has one batch less to evaluate.
        answers = [float(training.model(torch.ones(2, 1, 28, 28)).sum()) for _ in range(2 - ranks.rank)]
    own = sum(one.numel() for one in local_shards(training.model).values())
    return {
        "losses": [*losses, one_step(training)],
        "whole": sum(float(one.double().sum()) for one in whole.values()),
        "share": own / sum(one.numel() for one in whole.values()),
        "answers": answers,
    }


def forgetful(ranks: Ranks, folder: Path) -> Any:
    """PowerSGD: a training that begins at a checkpoint goes on as the one that wrote it."""
    compute = {"gradient_compression": "powersgd"}
    first = make_training(_own(folder, ranks), ranks, compute=compute)
    for _ in range(STEPS):
        one_step(first)
    first.exchange.forget()
    weights = {name: tensor.clone() for name, tensor in first.network.state_dict().items()}
    state = first.optimizer.state_dict()
    second = make_training(_own(folder, ranks), ranks, compute=compute)
    second.network.load_state_dict(weights)
    second.optimizer.load_state_dict(json_free(state))
    second.state.step = first.state.step
    return [[one_step(training) for _ in range(STEPS)] for training in (first, second)]


def json_free(state: dict[str, Any]) -> dict[str, Any]:
    """A copy: both trainings go on with it."""
    tensors = {
        number: {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in one.items()}
        for number, one in state["state"].items()
    }
    return {"state": tensors, "param_groups": state["param_groups"]}


def hopeless(ranks: Ranks, folder: Path) -> Any:
    """Rank 1 fails however few images it takes."""
    training = make_training(_own(folder, ranks), ranks)

    def never(module: Any, given: Any, made: Any) -> Any:
        if ranks.rank == 1:
            raise MemoryError

    training.network[4].register_forward_hook(never)
    return one_step(training)


def silent(ranks: Ranks, folder: Path) -> Any:
    """Rank 1 never comes to the exchange, and is there until rank 0 has had enough."""
    training = make_training(_own(folder, ranks), ranks)
    one_step(training)
    enough = folder / "enough"
    if ranks.rank == 1:
        eventually(enough.exists)
        return "left"
    try:
        one_step(training)
    except RuntimeError as error:
        return {"silent_peer": is_silent_peer(error)}
    finally:
        enough.touch()


def _own(folder: Path, ranks: Ranks) -> Path:
    own = folder / f"rank-{ranks.rank}"
    own.mkdir(exist_ok=True)
    return own


def _told(training: Training) -> list[tuple[int, int, int]]:
    told = training.reports.told  # type: ignore[attr-defined]
    return [(one.step, one.micro_batch_before, one.micro_batch_after) for one in told]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two = lambda case: forked(2, case, folder)  # noqa: E731
        uneven, accumulated = {"batch_size": 13}, {"micro_batch_size": 2}
        found = {
            "scarce": two(scarce),  # first: what this process frees, its ranks may use again
            "alone": curve(**uneven)(ALONE, folder),
            "ddp": two(curve(**uneven)),
            "accumulated": two(curve(accumulated, **uneven)),
            "fp16": two(curve({"gradient_compression": "fp16"}, **uneven)),
            "bf16": two(curve({"gradient_compression": "bf16"}, **uneven)),
            "powersgd": two(curve({"gradient_compression": "powersgd"}, **uneven)),
            "forgetful": two(forgetful),
            "undisturbed": recovery(())(ALONE, folder),
            "recovered": two(recovery((0, 1, 6))),
            "recovered fp16": two(recovery((1, 6), {"gradient_compression": "fp16"})),
            "plenty": curve(**PLENTY)(ALONE, folder),
            "clipped": curve(gradient_clipping=1.0)(ALONE, folder),
            "sharded": two(sharded),
            "hopeless": two(hopeless),
        }
        os.environ[TIMEOUT_VARIABLE] = "2"
        found |= {
            "silent": two(silent),
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
