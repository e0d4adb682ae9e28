"""Injected faults, and whether the efficiency account names them; and what the account itself costs.

    python -m benchmarks.engine.faults            (about three minutes, on an idle machine)
    python -m benchmarks.engine.faults --quick

Every case is one training of the Fashion-MNIST sample in processes of its own. A fault is put in from outside: a
renderer that decodes slowly, a rank that sleeps in each step, a network namespace whose loopback is slow, processes
that take the cores, a batch that is far too small. No product code knows of any of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.data.machine import machine
from benchmarks.engine.metering import PAIRS, STEPS_A_BLOCK
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.run_dir import RunDir, RunSpec, complete_lines
from training_core.contract.spec import JobSpec
from training_core.efficiency.model import Account
from training_core.processes.process import leave, share_cores

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "faults.md"
SAMPLE = ROOT / "examples" / "data" / "fashion-mnist-sample.zip"
COMMAND = "python -m benchmarks.engine.faults"
DECODE_BYTES, SLEEP_SECONDS, LINK = 2 * 2**20, 0.1, "20mbit"


@dataclass(frozen=True)
class Case:
    """`fault` is put in by `inject` within the training's own process; the others come from around it."""

    name: str
    expected: str
    batch_size: int = 128
    epochs: int = 24
    ranks: int = 1
    fault: str = "none"
    hogs: int = 0
    slow_link: bool = False
    options: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("undisturbed", "compute_bound"),
    Case("slow decode", "data_bound", epochs=6, fault="slow_decode"),
    Case("a rank that sleeps", "straggler", ranks=2, epochs=3, fault="sleeping_rank"),
    Case("slow all-reduce", "communication_bound", ranks=2, epochs=6, slow_link=True),
    Case("a CPU hog", "noisy_neighbour", epochs=12, hogs=2),
    Case("a tiny batch", "small_batch", batch_size=1, epochs=1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the steps")
    parser.add_argument("--only", nargs="+", default=[case.name for case in CASES], metavar="CASE")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep the accounts, one JSON file a case")
    parser.add_argument("--one", nargs=2, metavar=("FAULT", "RUN_DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        leave(train_here(options.one[0], RunDir(Path(options.one[1]))))
    accounts: dict[str, Account] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in CASES:
            if case.name in options.only:
                accounts[case.name] = run_case(case, folder, quick=options.quick)
                print(case.name, accounts[case.name].verdict, file=sys.stderr)
                if options.record:
                    record(options.record, case, accounts[case.name])
        cost = metering_cost(folder)
    table = make_table(accounts, cost, quick=options.quick)
    print(table)
    if len(accounts) == len(CASES):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table)


def record(folder: Path, case: Case, account: Account) -> None:
    """For the tests of the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name.replace(' ', '_').replace('-', '_').lower()}.json"
    path.write_text(json.dumps(account.model_dump(mode="json"), indent=1) + "\n")


def make_run(folder: Path, case: Case, *, quick: bool) -> RunDir:
    """A run dir whose data is prepared and whose plan is made."""
    cores = len(os.sched_getaffinity(0))
    epochs = max(1, case.epochs // 3) if quick else case.epochs
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": f"file://{SAMPLE}"},
            "model": {"name": "small_cnn"},
            "training": {
                "epochs": epochs,
                "batch_size": case.batch_size,
                "early_stopping": None,
                "augmentation": "none",
                "checkpoint_every_steps": 10**6,
            },
        }
    )
    run_dir = RunDir(folder / f"run-{len(list(folder.glob('run-*')))}")
    run_dir.path.mkdir()
    run = RunSpec(
        spec=spec,
        job_id=run_dir.path.name,
        devices=case.ranks,
        threads=max(1, cores // case.ranks),
        store=f"file://{folder}/store",
        cache_dir=folder / "cache",
        data_roots=[SAMPLE.parent],
    )
    run_dir.write_spec(run)
    command = [sys.executable, "-m", "training_core.runtime.launch", "--stage", "prepare", str(run_dir.path)]
    subprocess.run(command, cwd=ROOT, check=True)
    run_dir.write_plan(ComputePlan(strategy="ddp" if case.ranks > 1 else "single", ranks=case.ranks))
    return run_dir


def run_case(case: Case, folder: Path, *, quick: bool) -> Account:
    """The final account of a training under the fault."""
    run_dir = make_run(folder, case, quick=quick)
    command = [sys.executable, "-m", "benchmarks.engine.faults", "--one", case.fault, str(run_dir.path)]
    if case.slow_link:
        # The burst must hold a whole packet, and loopback's are large.
        shape = f"ip link set lo up && tc qdisc add dev lo root tbf rate {LINK} burst 128kb latency 400ms"
        command = ["unshare", "--net", "sh", "-c", f'{shape} && exec "$@"', "sh", *command]
    with ExitStack() as neighbours:
        for _ in range(case.hogs):
            neighbours.enter_context(hog())
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    lines = [json.loads(line) for line, _ in complete_lines(run_dir.events, 0)]
    final = [line for line in lines if line["kind"] == "efficiency" and line["final"]]
    return Account.model_validate(final[-1]["account"])


@contextmanager
def hog() -> Iterator[None]:
    """A process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def train_here(fault: str, run_dir: RunDir) -> int:
    """The exit code of the training, in this process or in ranks forked from it."""
    share_cores()
    inject(fault)
    from training_core.runtime.attempt import Attempt  # noqa: PLC0415  cores are shared before torch is imported
    from training_core.runtime.ranks import run_ranks  # noqa: PLC0415

    count = run_dir.read_plan().ranks
    return run_ranks(run_dir, count) if count > 1 else Attempt(run_dir).run()


def inject(fault: str) -> None:
    """Spoil what the training is made of, before any rank is forked."""
    from training_core.engine import loop  # noqa: PLC0415
    from training_core.vision.transforms import Renderer  # noqa: PLC0415

    if fault == "slow_decode":
        changed, junk = Renderer.change, os.urandom(DECODE_BYTES)

        def slow_change(self: Any, bits: Any, out: Any) -> None:
            for _ in range(len(out)):
                hashlib.sha256(junk)
            changed(self, bits, out)

        Renderer.change = slow_change  # type: ignore[method-assign]
    elif fault == "sleeping_rank":
        step = loop.train_step

        def sleepy_step(training: Any, batch: Any) -> Any:
            if training.ranks.rank == 1:
                time.sleep(SLEEP_SECONDS)
            return step(training, batch)

        loop.train_step = sleepy_step


def metering_cost(folder: Path) -> dict[str, Any]:
    """Of a step of the smallest network, in one process."""
    run_dir = make_run(folder, Case("metering", "", batch_size=12, epochs=50), quick=False)
    command = [sys.executable, "-m", "benchmarks.engine.metering", str(run_dir.path)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def make_table(accounts: dict[str, Account], cost: dict[str, Any], *, quick: bool) -> str:
    lines = [
        "## Injected faults: does the account name them?",
        "",
        "| fault | expected | verdict | right | seconds told / wall | evidence | metering |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if (account := accounts.get(case.name)) is None:
            continue
        verdict = account.verdict
        told = sum(part.seconds for part in (*account.phases.values(), *account.steps.values()))
        right = "yes" if verdict.kind == case.expected else "**no**"
        lines.append(
            f"| {case.name} | {case.expected} | {verdict.kind} | {right} | {told / account.wall_seconds:.4f} | "
            f"{'; '.join(verdict.evidence)} | {100 * account.metering_fraction:.2f} % |"
        )
    step, (low, middle, high) = cost["step"], cost["differences"]
    lines += [
        "",
        f"Metering beside none, in one process by turns ({PAIRS} pairs of {STEPS_A_BLOCK} steps, CPU time, small_cnn "
        f"at 28 px, 12 images): {1e6 * middle:.1f} µs of a step of {1e6 * step:.0f} µs, "
        f"{100 * middle / step:.2f} % (quartiles {100 * low / step:.2f} and {100 * high / step:.2f} %; limit: 0.5 %). "
        f"What it does in a step, alone: {1e6 * cost['alone']:.1f} µs, {100 * cost['alone'] / step:.2f} %. "
        f"A report every ten seconds costs {1e3 * cost['exchange']:.1f} ms of CPU time, "
        f"{100 * cost['exchange'] / 10:.3f} %.",
        "",
        f"`{COMMAND}{' --quick' if quick else ''}` on {machine()}. Nobody else tells: none of torch's DDP, Lightning "
        "and accelerate names a cause by itself.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
