"""SIGKILL at random moments of a training: the resumed one ends with the weights and curves of the undisturbed one.

    python -m benchmarks.engine.kill --kills 50 --seed 0
    python -m benchmarks.engine.kill --quick

On one rank and on two, in fp32 and in bf16: each kind is trained once undisturbed; then it is started, killed at a
moment drawn evenly over its whole length, and resumed from the newest checkpoint that it had reported, or from the
start without one. Compared are all bytes of the last and of the best weights, those of the optimizer, and every point
of every curve. Processes are forked from the warm launcher.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path

from benchmarks.data.machine import machine
from tests.training.killing import Kind, differences, on_their_way, warm_launcher
from tests.training.running import make_images

RESULTS = Path(__file__).parent / "results" / "kill.md"
HEAD = """# SIGKILL at random moments of a training

`python -m benchmarks.engine.kill --kills {kills} --seed {seed}`; {machine}; {seconds:.0f} s in all.
small_cnn, 72 images of 16 px, 12 epochs of 3 steps, a checkpoint every other step and at every evaluation.

| ranks | precision | killed | while a checkpoint was being written | before the first one | too late, drawn again \
| bit for bit as undisturbed |
|---:|---|---:|---:|---:|---:|---:|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="three kills of each kind; keeps no result")
    arguments = parser.parse_args()
    kills, began = 3 if arguments.quick else arguments.kills, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warm_launcher() as launcher:
        images = make_images(Path(folder) / "data" / "stripes")
        rows = []
        for ranks, precision in product((1, 2), ("fp32", "bf16")):
            kind = Kind(launcher, Path(folder) / f"{ranks}-{precision}", images, ranks=ranks, precision=precision)
            rows.append(kill_many(kind, kills, arguments.seed))
    head = HEAD.format(kills=kills, seed=arguments.seed, machine=machine(), seconds=time.perf_counter() - began)
    text = head + "\n".join(rows) + "\n"
    print(text)
    if not arguments.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)


def kill_many(kind: Kind, kills: int, seed: int) -> str:
    name = f"{kind.ranks}-{kind.precision}"
    began = time.perf_counter()
    whole = kind.run("undisturbed")
    process, started = kind.start(whole), time.perf_counter()
    assert process.wait(300) == 0, whole.log()
    seconds, chance, counts = time.perf_counter() - started, random.Random(f"{seed} {name}"), Counter[str]()
    while counts["killed"] < kills:
        run = kind.killed_after(chance.uniform(0, 1.05 * seconds))
        if run is None:
            counts["too late"] += 1
            continue
        counts["killed"] += 1
        counts["in a write"] += on_their_way(run) > 0
        counts["before the first"] += not run.dir.events.exists() or "checkpoint_saved" not in run.kinds()
        wrong = differences(whole, kind.resumed(run))
        counts["the same"] += not wrong
        print(f"{name} {counts['killed']}: {dict(counts)} {wrong or ''}", file=sys.stderr)
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    told = [counts[one] for one in ("killed", "in a write", "before the first", "too late", "the same")]
    return f"| {kind.ranks} | {kind.precision} | {' | '.join(str(one) for one in told)} |"


if __name__ == "__main__":
    main()
