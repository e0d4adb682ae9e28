"""A training without a run around it, for benchmarks and tests of the step alone; and ranks forked from here."""

from __future__ import annotations

import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from training_core.processes.process import share_cores

share_cores()  # before torch is there

import torch  # noqa: E402
from torch import nn  # noqa: E402

from training_core.contract.compute_plan import ComputePlan  # noqa: E402
from training_core.contract.reporter import Reports  # noqa: E402
from training_core.contract.reports import AnyReport  # noqa: E402
from training_core.contract.run_dir import RunDir, RunSpec  # noqa: E402
from training_core.contract.spec import JobSpec  # noqa: E402
from training_core.distributed.gradient_sync import distribute  # noqa: E402
from training_core.distributed.ranks import Ranks, join  # noqa: E402
from training_core.efficiency.clock import PhaseClock  # noqa: E402
from training_core.engine.objective import Objective  # noqa: E402
from training_core.engine.precision import make_scaler  # noqa: E402
from training_core.engine.training import Training  # noqa: E402
from training_core.optimisation.optimizers import make_optimizer  # noqa: E402
from training_core.planner.plan import Plan, choose_plan  # noqa: E402
from training_core.planner.recipe import DataFacts  # noqa: E402
from training_core.tasks.image_classification import task  # noqa: E402
from training_core.vision.prefetch import Batch, Normalise  # noqa: E402

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
CLASSES = 10


def make_training(
    folder: Path,
    ranks: Ranks = ALONE,
    *,
    model: str,
    image_size: int,
    channels: int,
    batch_size: int,
    compute: dict[str, Any] | None = None,
) -> Training:
    """As an attempt puts it together: plain SGD with momentum, at one rate, without augmentation or averaging."""
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///nowhere"},
            "model": {"name": model},
            "training": {
                "epochs": 1, "batch_size": batch_size, "image_size": image_size, "augmentation": "none",
                "optimizer": {"name": "sgd", "learning_rate": 0.01, "weight_decay": 0.0},
                "schedule": {"name": "constant", "warmup_epochs": 0},
                "gradient_clipping": None, "ema_decay": None, "label_smoothing": 0.0, "resizing": None,
            },
        }
    )  # fmt: skip
    facts = DataFacts(batch_size * 1000, CLASSES, channels, image_size, "as requested")
    computed = ComputePlan(**{"ranks": ranks.world_size, **(compute or {})})
    plan = choose_plan(spec, facts, device="cpu").on(computed)
    return assemble(folder, plan, RunSpec(spec=spec, store="file:///nowhere", cache_dir=folder / "cache"), ranks)


def assemble(
    folder: Path,
    plan: Plan,
    run: RunSpec,
    ranks: Ranks = ALONE,
    *,
    network: nn.Module | None = None,
    normalise: Normalise | None = None,
) -> Training:
    """As an attempt puts it together, without data and checkpoints."""
    network = (network or task.build(plan)).to(memory_format=torch.channels_last)
    assert network is not None
    exchange = distribute(network, plan.compute, ranks)
    unused: Any = None
    materials: Any = SimpleNamespace(run=run)
    training = Training(
        run_dir=RunDir(folder),
        plan=plan,
        ranks=ranks,
        materials=materials,
        feed=unused,
        normalise=normalise or Normalise([128.0] * plan.channels, [64.0] * plan.channels, CPU),
        network=network,
        model=network,
        parallel=exchange.parallel,
        objective=Objective(plan),
        optimizer=make_optimizer(network, plan),
        scaler=make_scaler(plan.precision, CPU),
        checkpoints=unused,
        reports=Told(),
        clock=PhaseClock(),
    )
    training.exchange = exchange
    training.model.train()
    return training


class Told(Reports):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[AnyReport] = []

    def say(self, report: AnyReport) -> None:
        self.told.append(report)


def batch_of(training: Training, step: int = 0) -> Batch:
    """This rank's share of a batch that the step decides, with classes that its brightness tells."""
    plan, ranks = training.plan, training.ranks
    random = torch.Generator().manual_seed(step)
    labels = torch.randint(0, CLASSES, (plan.batch_size,), generator=random)
    shape = (plan.batch_size, plan.channels, plan.image_size, plan.image_size)
    noise = torch.randint(0, 160, shape, generator=random)
    images = (noise + labels[:, None, None, None] * 9).to(torch.uint8)
    mine = slice(ranks.rank, None, ranks.world_size)
    return Batch(images[mine].contiguous(memory_format=torch.channels_last), labels[mine])


def forked(count: int, case: Callable[[Ranks], Any]) -> list[Any]:
    """What each of `count` ranks returns, through JSON. Raises `RuntimeError` for one that ended without a word."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        children = [_fork(rank, count, case, folder) for rank in range(count)]
        codes = [os.waitpid(child, 0)[1] for child in children]
        if any(codes):
            raise RuntimeError(f"ranks ended with {codes}")
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _fork(rank: int, count: int, case: Callable[[Ranks], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        result = case(meet(rank, count, folder))
        (folder / f"{rank}.json").write_text(json.dumps(result))
        code = 0
    except Exception:  # noqa: BLE001  the parent sees the code, a person the rest
        traceback.print_exc()
    os._exit(code)


def meet(rank: int, count: int, folder: Path) -> Ranks:
    """Join as under torchrun; rank 0 serves the store on a port that the system chooses, and tells it."""
    file = folder / "port"
    if rank == 0:
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        _alive.append(store)
        (folder / "port.tmp").write_text(str(store.port))
        (folder / "port.tmp").rename(file)
    while not file.exists():
        time.sleep(0.002)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": file.read_text(), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    return join("cpu")


_alive: list[Any] = []
