"""What the efficiency account costs: steps by turns with it and without it, in one process. Started by `faults.py`.

python -m benchmarks.engine.metering RUN_DIR
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from training_core.contract.run_dir import RunDir
from training_core.processes.process import share_cores

PAIRS, STEPS_A_BLOCK = 400, 20


def meter_here(run_dir: RunDir) -> None:
    """Blocks of steps by turns with the account and without it; prints medians over the pairs."""
    share_cores()
    import torch  # noqa: PLC0415

    from training_core.contract.reporter import Reports  # noqa: PLC0415
    from training_core.distributed.ranks import Ranks, use_threads  # noqa: PLC0415
    from training_core.efficiency.clock import PhaseClock  # noqa: PLC0415
    from training_core.engine.accounting import Accounting  # noqa: PLC0415  cores are shared before
    from training_core.engine.step import train_step  # noqa: PLC0415
    from training_core.runtime.attempt import assemble  # noqa: PLC0415

    run = run_dir.read_spec()
    use_threads(1, 1)
    ranks, reports = Ranks(0, 1, torch.device("cpu")), Reports(None)
    training = assemble(run_dir, run, run_dir.read_prepared(), ranks, reports=reports, clock=PhaseClock())
    accounting = Accounting(training)
    batches = accounting.batches()
    batch = next(batches)
    metered, silent = training.meter, Silent()

    def block(meter: Any) -> float:
        training.meter = meter
        begun = time.process_time()
        for _ in range(STEPS_A_BLOCK):
            meter.lap("loop")
            meter.lap("data_wait")
            train_step(training, batch)
            if meter is metered:
                accounting.step_done()
        return (time.process_time() - begun) / STEPS_A_BLOCK

    block(metered), block(silent)
    alone = min(laps_alone(metered, accounting) for _ in range(20))
    pairs = []
    for number in range(PAIRS):
        first, second = (metered, silent) if number % 2 else (silent, metered)
        times = {id(first): block(first), id(second): block(second)}
        pairs.append((times[id(metered)], times[id(silent)]))
    training.meter = metered
    begun = time.process_time()
    for _ in range(20):
        accounting.exchange()
    exchange = (time.process_time() - begun) / 20
    accounting.pause()
    training.feed.close()
    differences = statistics.quantiles([metered - silent for metered, silent in pairs], n=4)
    step = statistics.median(silent for _, silent in pairs)
    print(json.dumps({"step": step, "differences": differences, "alone": alone, "exchange": exchange}))


def laps_alone(meter: Any, accounting: Any) -> float:
    """CPU seconds of all that the account does in a step, without the step."""
    begun = time.process_time()
    for _ in range(STEPS_A_BLOCK):
        for name in ("loop", "data_wait", "transfer", "compute", "optimizer", "loop"):
            meter.lap(name)
        accounting.step_done()
    return (time.process_time() - begun) / STEPS_A_BLOCK


class Silent:
    """Stands where a meter does, and measures nothing."""

    def lap(self, name: str) -> None:
        """Nothing."""

    def backward(self, loss: Any) -> None:
        loss.backward()


if __name__ == "__main__":
    meter_here(RunDir(Path(sys.argv[1])))
