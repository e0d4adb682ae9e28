"""What a hundred trials cost through the real service, counted in whole trainings of the best of them.

    python -m benchmarks.search.cost [--trials 100] [--quick]

All of Fashion-MNIST's training images, a tenth of them to validate on, five parameters that vary over wide ranges, and
every choice of the search its default. The batch size does not vary: an image costs every trial alike, so that a whole
training is one price. Then the best trial's spec is trained as a plain job: once alone, and as many at once as there
are slots, for the trials shared the machine's caches and memory with each other too.
What is compared is the time for which attempts held a device, starting and stopping included: it means something on a
quiet machine alone. The images trained on are counted beside it. Whether the best is as good as that of as many whole
trainings drawn at random is asked of recorded trainings (`compete.py`): here those would take two hours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.data.fashion import read_part
from benchmarks.data.machine import machine
from benchmarks.engine.submit import start, until_warm

RESULT = Path(__file__).parent / "results" / "cost.md"
MOST_TRAININGS = 5.0
SLOTS, SIDE, EPOCHS, IMAGES = 2, 28, 10, 60_000
QUICK_TRIALS, QUICK_IMAGES = 12, 6000
PATIENCE_SECONDS = 3600.0
SPACE = {
    "training.optimizer.name": {"type": "categorical", "choices": ["adamw", "sgd"]},
    "training.optimizer.learning_rate": {"type": "float", "low": 2e-4, "high": 0.6, "log": True},
    "training.optimizer.weight_decay": {"type": "float", "low": 1e-5, "high": 0.5, "log": True},
    "training.augmentation.preset": {"type": "categorical", "choices": ["none", "light"]},
    "training.label_smoothing": {"type": "float", "low": 0.0, "high": 0.3},
}


Answer = dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What the API says of the search, its trials, its efficiency and its best trial, and of plain jobs' only trials:
    of one `alone`, and of as many `beside` each other as there are slots."""

    search: Answer
    trials: list[Answer]
    efficiency: Answer
    best: Answer
    alone: Answer
    beside: list[Answer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="twelve trials of a tenth of the images; writes no file")
    options = parser.parse_args()
    trials, images = (QUICK_TRIALS, QUICK_IMAGES) if options.quick else (options.trials, IMAGES)
    table = measure(trials, images)
    print(table)
    if not options.quick:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(table)


def measure(trials: int, images: int) -> str:
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folder = Path(name)
        folder.chmod(0o755)
        write_idx(folder / "roots" / "data", images)
        os.environ |= {
            "TRAINYARD_DEVICE": "cpu",
            "TRAINYARD_SLOTS": str(SLOTS),
            "TRAINYARD_DATA_ROOTS": str(folder / "roots"),
        }
        stack = start(folder / "service", "1", ends)
        until_warm(stack)
        headers = {"Authorization": f"Bearer {stack.key()}"}
        with httpx2.Client(base_url=stack.url, headers=headers, timeout=90, trust_env=False) as client:
            search = finished(client, [spec(trials)])[0]
            best = get(client, f"/v1/jobs/{search['id']}/trials/best")
            (alone,), beside = finished(client, [best["spec"]]), finished(client, [best["spec"]] * SLOTS)
            efficiency = get(client, f"/v1/jobs/{search['id']}/efficiency")
            first, *others = [get(client, f"/v1/jobs/{job['id']}/trials/0") for job in (alone, *beside)]
            listed = all_trials(client, search["id"])
    return show(Ran(search, listed, efficiency, best, first, others), images)


def write_idx(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for kind, array in zip(("images-idx3-ubyte", "labels-idx1-ubyte"), read_part("train"), strict=True):
        part = array[:count]
        header = struct.pack(f">{1 + part.ndim}I", 0x0800 + part.ndim, *part.shape)
        (folder / f"train-{kind}").write_bytes(header + part.tobytes())


def spec(trials: int) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "dataset": {"uri": "file://data"},
        "model": {"name": "small_cnn"},
        "compute": {"profile": "cpu"},
        "training": {"epochs": EPOCHS, "image_size": SIDE, "batch_size": 256, "early_stopping": None},
        "search": {"space": SPACE, "trials": trials, "seed": 0},
    }


def finished(client: httpx2.Client, wanted: list[Answer]) -> list[Answer]:
    """The jobs of these specs, all at once, at their ends, which must be good ones."""
    answers = [client.post("/v1/jobs", json=one) for one in wanted]
    assert all(answer.status_code == 202 for answer in answers), answers[0].text
    return [at_its_end(client, answer.json()) for answer in answers]


def at_its_end(client: httpx2.Client, job: Answer) -> Answer:
    began = time.monotonic()
    while not job["terminal"]:
        assert time.monotonic() - began < PATIENCE_SECONDS, job
        job = get(client, f"/v1/jobs/{job['id']}?wait=60&until=terminal")
    assert job["status"] == "succeeded", job["error"]
    return job


def get(client: httpx2.Client, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def all_trials(client: httpx2.Client, job_id: str) -> list[Answer]:
    page = get(client, f"/v1/jobs/{job_id}/trials?limit=100")
    trials: list[Answer] = page["data"]
    while page["has_more"]:
        page = get(client, f"/v1/jobs/{job_id}/trials?limit=100&after={page['next_cursor']}")
        trials += page["data"]
    return trials


def show(ran: Ran, images: int) -> str:
    search, efficiency, best = ran.search, ran.efficiency, ran.best
    alone, again = ran.alone["device_seconds"], ran.alone["result"]["metrics"]["validation/accuracy"]
    one = statistics.fmean(job["device_seconds"] for job in ran.beside)
    trials, counts = efficiency["trials"], search["study"]["counts"]
    used = {
        f"search of {trials} trials, {efficiency['attempts']} attempts": efficiency["device_seconds"],
        "of it: steps": efficiency["training_seconds"],
        "evaluations": efficiency["evaluation_seconds"],
        "starting, saving, ending": efficiency["overhead_seconds"],
        f"the best trial's spec as a plain job, {SLOTS} at once": one,
        "the same alone, one slot idle": alone,
    }
    rows = "\n".join(f"| {what} | {took:.0f} | {took / one:.2f} | {took / alone:.2f} |" for what, took in used.items())
    ratio = efficiency["device_seconds"] / one
    seconds = moment(search["phases"]["finished"]) - moment(search["phases"]["queued"])
    verdict = "met" if ratio <= MOST_TRAININGS else "MISSED"
    return f"""# What {trials} trials cost

`python -m benchmarks.search.cost --trials {trials}` on {machine()}, {datetime.now(UTC).date()}, load
average {os.getloadavg()[0]:.1f} at the end; through the service, {SLOTS} slots of one core, small_cnn at {SIDE} px,
{images:,} images, {EPOCHS} epochs, five parameters, batches of 256, all else by default.

| | device seconds | whole trainings, each beside another as trials are | whole trainings alone |
|---|---:|---:|---:|
{rows}
| limit: no less than one whole training | {one:.0f} | 1.00 | |

Images that the trials were trained on: those of {sum(trial["reached"] for trial in ran.trials):.2f} whole trainings.
{trials} trials cost at most {MOST_TRAININGS:g} whole trainings: {verdict}.
Trials by their end: {", ".join(f"{count} {status}" for status, count in sorted(counts.items()))}; the ladder:
{", ".join(f"{rung:.4g}" for rung in search["study"]["ladder"])}. Overhead of an attempt: median
{efficiency["overhead_per_attempt_seconds"]:.2f} s. From POST to the end {seconds:.0f} s.

Best: trial {best["number"]} with validation accuracy {best["value"]:.4f}, again as a plain job
{again:.4f}; {best["parameters"]}.
"""


def moment(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


if __name__ == "__main__":
    main()
