"""What `auto` makes of few large pictures on a CPU: 140 of them, nine classes, one in four of the largest class.

    python -m benchmarks.engine.few_photographs --seeds 5 [--images FOLDER] [--tree CHECKOUT]

`FOLDER` has a folder of pictures for each class; without one, pictures are drawn: marks of nine kinds, of much the same
colour two by two, in any size and place, over grounds of any colour, in uneven light. Half of them are the test part,
looked at once a run.
`--tree` is another checkout of the project, whose `auto` is measured in the place of this one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
SIDE = 128
RED, GREEN, BLUE, WHITE, BLACK = (210, 50, 40), (60, 190, 70), (50, 80, 210), (230, 230, 230), (30, 30, 30)
# Loosely, as things have colours: half of the kinds share theirs with another.
COLOURS = np.array([RED, RED, GREEN, GREEN, BLUE, BLUE, WHITE, WHITE, BLACK])
# Of 280 pictures, the largest class 68: as in the photographs that the fault was found on.
COUNTS = (68, 40, 34, 30, 28, 24, 22, 18, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=Path, help="class folders, in place of pictures drawn here")
    parser.add_argument("--tree", type=Path, default=ROOT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        images = asked.images or draw(Path(place) / "drawn")
        found = [measure(asked.tree, images.resolve(), Path(place) / str(seed), seed) for seed in range(asked.seeds)]
    accuracies = [one["test/accuracy"] for one in found]
    for one in found:
        print(json.dumps(one))
    print(f"median {statistics.median(accuracies):.3f}, {min(accuracies):.3f} to {max(accuracies):.3f}")


def measure(tree: Path, images: Path, folder: Path, seed: int) -> dict[str, Any]:
    """One job with nothing pinned but its split: accuracies, steps, seconds and what it was warned of."""
    split = {"validation": 0.1, "test": 0.5, "seed": seed}
    spec = {
        "task": "image-classification",
        "dataset": {"uri": f"file://{images}", "split": split},
        "training": {"image_size": SIDE, "seed": seed},
    }
    run = folder / "run"
    run.mkdir(parents=True)
    places = {"store": f"file://{folder}/store", "cache_dir": f"{folder}/cache", "data_roots": [str(images.parent)]}
    (run / "spec.json").write_text(json.dumps({"spec": spec, "threads": 1, **places}))
    started = time.monotonic()
    command = [sys.executable, "-m", "training_core.runtime.launch", str(run)]
    with (run / "log.txt").open("wb") as log:
        subprocess.run(command, cwd=tree, check=True, stdout=log, stderr=log)
    seconds = time.monotonic() - started
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    [summary] = [line for line in lines if line["kind"] == "summary"]
    wanted = {name: round(summary["metrics"][name], 4) for name in ("validation/accuracy", "test/accuracy")}
    steps = max(line["step"] for line in lines if line["kind"] == "metric")
    alerts = sorted({line["alert"] for line in lines if line["kind"] == "alert_raised"})
    return {"seed": seed, **wanted, "steps": steps, "seconds": round(seconds, 1), "alerts": alerts}


def draw(folder: Path) -> Path:
    random = np.random.default_rng(11)
    for kind, count in enumerate(COUNTS):
        (folder / f"kind-{kind}").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(picture(kind, random)).save(folder / f"kind-{kind}" / f"{number:03d}.png")
    return folder


def picture(kind: int, random: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """`(side, side, 3)`: a ground of one colour with noise, a mark of the kind in another, and light from somewhere."""
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    turn = random.uniform(-0.35, 0.35)
    x = (columns - random.uniform(-0.15, 0.15)) * np.cos(turn) + (rows - random.uniform(-0.15, 0.15)) * np.sin(turn)
    y = -columns * np.sin(turn) + rows * np.cos(turn)
    size = random.uniform(0.22, 0.4)
    mark = MARKS[kind](x / size, y / size)[..., None]
    ground, colour = random.uniform(30, 225, 3), COLOURS[kind] + random.normal(0, 50, 3)
    light = 1 + random.uniform(-0.4, 0.4) * rows[..., None] + random.uniform(-0.4, 0.4) * columns[..., None]
    grain = random.normal(0, random.uniform(4, 18), (side, side, 1))
    return np.clip((ground * (1 - mark) + colour * mark) * light + grain, 0, 255).astype(np.uint8)


def _stripes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.sin(values * 9) > 0).astype(np.float64)


def _disc(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x**2 + y**2 < 1).astype(np.float64)


MARKS = (
    _disc,
    lambda x, y: _disc(x, y) - _disc(2 * x, 2 * y),
    lambda x, y: ((abs(x) < 0.85) & (abs(y) < 0.85)).astype(np.float64),
    lambda x, y: ((abs(x) < 0.3) & (abs(y) < 1) | (abs(y) < 0.3) & (abs(x) < 1)).astype(np.float64),
    lambda x, y: ((y < 0.8) & (y > 2 * abs(x) - 0.9)).astype(np.float64),
    lambda x, y: _stripes(y) * _disc(x, y),
    lambda x, y: _stripes(x) * _disc(x, y),
    lambda x, y: _stripes(x) * _stripes(y) * _disc(x, y),
    lambda x, y: _disc(3 * (x - 0.6), 3 * y) + _disc(3 * (x + 0.6), 3 * y),
)

if __name__ == "__main__":
    main()
