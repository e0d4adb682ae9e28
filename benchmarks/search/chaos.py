"""A search whose services are killed all the time, beside the same search left alone.

    python -m benchmarks.search.chaos [--trials 60] [--quick]

Control is killed every 20 s, the worker every 30 s, and Valkey flushed once, each started again at once; the images are
300 of the sample, the network small_cnn. The rules that nothing may break are in `tests/e2e/chaos.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.data.machine import machine
from tests.e2e import chaos
from tests.e2e.conftest import Service, write_small_data

RESULT = Path(__file__).parent / "results" / "chaos.md"
EPOCHS, QUICK_EPOCHS, QUICK_TRIALS = 600, 8, 12
QUICK_TURNS = {2: "control", 4: "worker", 7: "flush", 9: "control"}
WORDS = {"control": "control killed", "worker": "worker killed", "flush": "Valkey flushed"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="twelve trials, four disturbances; writes no file")
    options = parser.parse_args()
    trials = QUICK_TRIALS if options.quick else options.trials
    spec = chaos.search_spec(trials=trials, epochs=QUICK_EPOCHS if options.quick else EPOCHS)
    table = show(run(spec, by_the_clock=not options.quick), trials)
    print(table)
    if not options.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table)


def run(spec: dict[str, Any], *, by_the_clock: bool) -> dict[str, chaos.Searched]:
    """Both searches, one after the other, on one service."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_small_data(folder / "data")
        os.environ |= {
            "TRAINYARD_DATA_ROOTS": str(folder / "data"),
            "TRAINYARD_SLOTS": "2",
            "TRAINYARD_DEVICE": "cpu",
        }
        service = Service(folder / "service")
        try:
            service.start()
            alone = chaos.undisturbed(service, spec)
            if by_the_clock:
                disturbed = chaos.disturbed_by_the_clock(service, spec)
            else:
                disturbed = chaos.disturbed_in_turn(service, spec, QUICK_TURNS)
            return {"left alone": alone, "disturbed": disturbed}
        finally:
            service.stop()


def show(searches: dict[str, chaos.Searched], trials: int) -> str:
    rows = [_row(name, one, trials) for name, one in searches.items()]
    faults = [f"- {name}: {fault}" for name, one in searches.items() for fault in one.faults(trials)]
    alone, disturbed = searches.values()
    as_good = disturbed.best >= alone.best - chaos.MARGIN
    return "\n".join(
        [
            "# A search under kills",
            "",
            f"`python -m benchmarks.search.chaos --trials {trials}` on {machine()}, {datetime.now(UTC).date()}, load "
            f"average {os.getloadavg()[0]:.1f} at the end.",
            "",
            "| search | done to it | trials ended once | attempts | of them lost | trained twice | best validation "
            "accuracy | best three | seconds |",
            "|---|---|---:|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"Every trial ended once, no parameters twice, attempts without gaps: {'MISSED' if faults else 'met'}. The "
            f"answer is as good, within {chaos.MARGIN:g}: {'met' if as_good else 'MISSED'}.",
            *faults,
            "",
        ]
    )


def _row(name: str, one: chaos.Searched, trials: int) -> str:
    done = ", ".join(f"{WORDS[victim]} {count}x" for victim, count in sorted(one.done_to_it.items())) or "nothing"
    attempts = [attempt for trial in one.trials for attempt in trial["attempts"]]
    lost = sum(attempt["reason"] == "worker_lost" for attempt in attempts)
    once = sum(one.ends_of(trial) == 1 for trial in one.trials)
    values = sorted((trial["value"] for trial in one.trials if trial["value"] is not None), reverse=True)[:3]
    return (
        f"| {name} | {done} | {once} of {trials} | {len(attempts)} | {lost} | {len(one.repeated())} | {one.best:.4f} | "
        f"{statistics.mean(values):.4f} | {one.seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
