"""Optimizer steps on made-up images without a run around them, by one process or by ranks forked from it."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from training_core.process import share_cores

share_cores()

import torch  # noqa: E402

from tests.training.plans import make_plan  # noqa: E402
from training_core.clock import PhaseClock  # noqa: E402
from training_core.data.load import Batch, Normalise  # noqa: E402
from training_core.distributed import Ranks, join  # noqa: E402
from training_core.events import AnyReport  # noqa: E402
from training_core.exchange import distribute  # noqa: E402
from training_core.objective import Objective  # noqa: E402
from training_core.optim import make_optimizer  # noqa: E402
from training_core.planner.compute_plan import ComputePlan  # noqa: E402
from training_core.precision import make_scaler  # noqa: E402
from training_core.reports import Reports  # noqa: E402
from training_core.rundir import RunDir, RunSpec  # noqa: E402
from training_core.spec import JobSpec  # noqa: E402
from training_core.step import train_step  # noqa: E402
from training_core.tasks import image_classification as task  # noqa: E402
from training_core.training import Training  # noqa: E402

M_MMAP_THRESHOLD, MMAP_FROM_BYTES = -3, 2**18  # malloc.h
CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
SPEC = {"task": "image-classification", "dataset": {"uri": "file:///nowhere"}, "model": {"name": "small_cnn"}}


class Told(Reports):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[AnyReport] = []

    def say(self, report: AnyReport) -> None:
        self.told.append(report)


def make_training(
    folder: Path, ranks: Ranks = ALONE, *, compute: dict[str, Any] | None = None, network: Any = None, **plan: Any
) -> Training:
    """As an attempt puts it together, of one grey network, with a cache in `folder`."""
    computed = ComputePlan(**{"ranks": ranks.world_size, "precision": "fp32", **(compute or {})})
    planned = make_plan(**{"augmentation": "none", "gradient_clipping": None, "ema_decay": None, **plan}).on(computed)
    torch.manual_seed(planned.seed)
    network = network or task.build(planned).to(memory_format=torch.channels_last)
    exchange = distribute(network, planned.compute, ranks)
    run = RunSpec(spec=JobSpec.model_validate(SPEC), store="file:///nowhere", cache_dir=folder / "cache")
    unused: Any = None
    training = Training(
        run_dir=RunDir(folder),
        plan=planned,
        ranks=ranks,
        materials=SimpleNamespace(run=run),  # type: ignore[arg-type]
        feed=unused,
        normalise=Normalise([128.0] * planned.channels, [64.0] * planned.channels, CPU),
        network=network,
        model=network,
        parallel=exchange.parallel,
        objective=Objective(planned),
        optimizer=make_optimizer(network, planned),
        scaler=make_scaler(planned.precision, CPU),
        checkpoints=unused,
        reports=Told(),
        clock=PhaseClock(),
    )
    training.exchange = exchange
    training.model.train()
    return training


def batch_of(training: Training, step: int) -> Batch:
    """This rank's share of a batch that the step decides."""
    plan, ranks = training.plan, training.ranks
    random = torch.Generator().manual_seed(step)
    shape = (plan.batch_size, plan.channels, plan.image_size, plan.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    labels = torch.randint(0, plan.classes, (plan.batch_size,), generator=random)
    mine = slice(ranks.rank, None, ranks.world_size)
    return Batch(images[mine].contiguous(memory_format=torch.channels_last), labels[mine])


def one_step(training: Training) -> float:
    """The mean loss over all ranks."""
    part = train_step(training, batch_of(training, training.state.step))
    training.state.step += 1
    return float(training.ranks.sum(part.double()))


def forked(count: int, case: Callable[[Ranks, Path], Any], folder: Path) -> list[Any]:
    """What each of `count` ranks returns, or the error it ends with."""
    with tempfile.TemporaryDirectory(dir=folder) as meeting:
        children = [_fork(rank, count, case, Path(meeting)) for rank in range(count)]
        results = []
        for rank, child in enumerate(children):
            os.waitpid(child, 0)
            file = Path(meeting) / f"{rank}.json"
            results.append(json.loads(file.read_text()) if file.exists() else {"error": "no word"})
        return results


def _fork(rank: int, count: int, case: Callable[[Ranks, Path], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    try:
        result = case(_meet(folder, rank), folder)
    except Exception as error:  # noqa: BLE001  it is what the test wants to see
        result = {"error": type(error).__name__, "message": str(error), "reason": getattr(error, "reason", None)}
    (folder / f"{rank}.tmp").write_text(json.dumps(result))
    (folder / f"{rank}.tmp").rename(folder / f"{rank}.json")
    os._exit(0)


def _meet(folder: Path, rank: int) -> Ranks:
    """Rank 0 serves the store on a port that the system chooses, and tells it."""
    file = folder / "port"
    if rank == 0:
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        _alive.append(store)
        (folder / "port.tmp").write_text(str(store.port))
        (folder / "port.tmp").rename(file)
    while not file.exists():
        time.sleep(0.002)
    os.environ |= {"MASTER_PORT": file.read_text(), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return join("cpu")


_alive: list[Any] = []


def allow(more: int) -> None:
    """From now on the kernel refuses to give this process more than `more` bytes beside those that it has.

    What is freed goes back at once: glibc would keep blocks of up to 32 MiB in its heap, where a limit on addresses
    counts them although they are free, and pieces of any size would then be too large.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES)
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmData")]
    limit = int(line.split()[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
