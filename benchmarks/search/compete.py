"""How much must be trained until a search has a model as good as the best known: ours, Optuna's and Ray Tune's.

    python -m benchmarks.search.compete [--seeds 10] [--table first second third] [--quick]

All search the same table of real, recorded trainings (`table.py` made it), each with its own algorithm: ten searches of
six contenders for real would take days. `pool.py` says how is counted. Ray's row needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import optuna

from benchmarks.data.machine import machine
from benchmarks.search.courses import TABLES, Table
from benchmarks.search.peers import MOST_TRIALS, UNITS, OptunaSearch, RayAsha, has_ray
from benchmarks.search.pool import MARGIN, WORKERS, Found, replay
from benchmarks.search.replay import ours

RESULTS = Path(__file__).parent / "results"
FEWER_THAN_RANDOM, MOST_TRAININGS = 3.0, 5.0
TRIALS = 100
CHOSEN = {
    "first": "Our defaults were chosen on this table, by seeds from 100 on.",
    "second": "None of our numbers was chosen on this table. But it had shown four of ten searches to end too early, "
    "and what a search does once a finite space is used up was built after that.",
    "third": "Nothing of ours was chosen on this table.",
}
OURS, RANDOM, TPE, HYPERBAND, RAY = (
    "ours", "Optuna, random", "Optuna, TPE", "Optuna, TPE + Hyperband", "Ray Tune, random + ASHA",
)  # fmt: skip
COUNTED = (f"ours, {TRIALS} trials", f"Optuna, random, {TRIALS} whole trainings")


def searches(table: Table) -> dict[str, Callable[[int], Found]]:
    """By contender, one search by its seed: until it is within the margin, then those of a fixed number of trials."""

    def optuna_search(sampler: Callable[..., optuna.samplers.BaseSampler], pruner: bool) -> Callable[[int], Found]:
        return lambda seed: replay(table, OptunaSearch(table, sampler(seed=seed), seed, pruner=pruner))

    def counted(seed: int) -> Found:
        search = OptunaSearch(table, optuna.samplers.RandomSampler(seed=seed), seed, pruner=False, trials=TRIALS)
        return replay(table, search, to_the_end=True)

    found: dict[str, Callable[[int], Found]] = {
        OURS: lambda seed: ours(table, seed, trials=MOST_TRIALS),
        RANDOM: optuna_search(optuna.samplers.RandomSampler, False),
        TPE: optuna_search(optuna.samplers.TPESampler, False),
        HYPERBAND: optuna_search(optuna.samplers.TPESampler, True),
        COUNTED[0]: lambda seed: ours(table, seed, trials=TRIALS, to_the_end=True),
        COUNTED[1]: counted,
    }
    return {**found, RAY: lambda seed: replay(table, RayAsha(table, seed))} if has_ray() else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two seeds; writes no file")
    options = parser.parse_args()
    seeds = 2 if options.quick else options.seeds
    for name in options.table:
        table = Table.read(TABLES[name])
        shown = show(table, compete(searches(table), seeds, options.processes), name)
        print(shown)
        if not options.quick:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"compete_{name}.md").write_text(shown)


def compete(contenders: dict[str, Callable[[int], Found]], seeds: int, processes: int) -> dict[str, list[Found]]:
    tasks = [(name, seed) for seed in range(seeds) for name in contenders]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare, initargs=(contenders,)) as pool:
        results = list(pool.map(_search, tasks))
    return {name: [one for task, one in zip(tasks, results, strict=True) if task[0] == name] for name in contenders}


_contenders: dict[str, Callable[[int], Found]] = {}


def _prepare(contenders: dict[str, Callable[[int], Found]]) -> None:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    _contenders.update(contenders)


def _search(task: tuple[str, int]) -> Found:
    name, seed = task
    return _contenders[name](seed)


def show(table: Table, results: dict[str, list[Found]], name: str) -> str:
    return "\n".join(
        [
            *_title(table, len(results[OURS]), name),
            *_margin_table(table, results),
            "",
            *_counted_table(table, results),
            "",
        ]
    )


def _title(table: Table, seeds: int, name: str) -> list[str]:
    ends = sorted(course.accuracy[-1] for course in table.courses.values())
    about, good = table.about, sum(one >= ends[-1] - MARGIN for one in ends)
    return [
        "# Searching: how much is trained until the best is found",
        "",
        f"`python -m benchmarks.search.compete --seeds {seeds} --table {name}` on {machine()}, "
        f"{datetime.now(UTC).date()}. " + CHOSEN[name],
        "",
        f"A replay: {len(ends)} trainings of {about['network']} on {about['images']['train']:,} images of "
        f"Fashion-MNIST at {about['images']['side']} px, {about['epochs']} epochs each, were made for real and "
        f"recorded (`{about['command']}`, {about['machine']}, {about['made']}, {about['cpu_seconds'] / 60:.0f} "
        "core-minutes). Every contender searches that table with its own algorithm, "
        f"{WORKERS} workers and the same {seeds} seeds: for real it would take them hours, and no two would see the "
        "same trainings. Validation accuracy of the configurations, on "
        f"{about['images']['validation']:,} images: best {ends[-1]:.4f}, median {statistics.median(ends):.3f}, a "
        f"quarter below {ends[len(ends) // 4]:.3f}; {good} of them are within {MARGIN:g} of the best.",
        "",
        "Counted are the images that all workers have trained on when the best model at hand, of a whole training or "
        f"of a partial one, is for the first time within {MARGIN:g} of the best; a whole training is "
        f"{table.oracle().images:,} images. A configuration drawn again costs nothing as far as it was trained before. "
        f"Optuna and Ray may report at every {UNITS}th of a training, keep their defaults and may start "
        f"{MOST_TRIALS:,} trials, as ours, which keeps its defaults too and begins no configuration twice. Of Ray the "
        "scheduler and the random search are called directly, without its cluster.",
        "",
    ]


def _margin_table(table: Table, results: dict[str, list[Found]]) -> list[str]:
    """Until the margin, in whole trainings and in steps."""
    oracle = table.oracle()
    trainings = {
        name: [one.images / oracle.images for one in found] for name, found in results.items() if name not in COUNTED
    }
    steps = {name: [one.steps for one in results[name]] for name in trainings}
    random = median(trainings[RANDOM])
    lines = [
        f"| {name} | {said(median(each))} | {said(max(each))} | {times(random, median(each))} | "
        f"{said(median(steps[name]), 0)} | {said(max(steps[name]), 0)} | {sum(map(math.isfinite, each))}/{len(each)} |"
        for name, each in trainings.items()
    ]
    limit = table.first_reaching(oracle.choice, oracle.accuracy[-1] - MARGIN, 0.0, 1.0)
    assert limit is not None
    mine = trainings[OURS]
    least = median(mine) <= min(map(median, trainings.values()))
    surest = max(mine) <= min(map(max, trainings.values())) and math.isfinite(max(mine))
    few = math.isfinite(median(mine)) and random / median(mine) >= FEWER_THAN_RANDOM
    return [
        "| until within the margin | whole trainings, median | worst | times less than random | steps, median | worst "
        "| found it |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *lines,
        f"| limit: the best configuration alone, known before | {limit:.2f} | | {times(random, limit)} | "
        f"{limit * oracle.steps:,.0f} | | |",
        "",
        f"Figures: ours needs the least in the median: {verdict(least)}; in the worst: "
        f"{verdict(surest)}; {FEWER_THAN_RANDOM:g} times less than random in the median: {verdict(few)}.",
    ]


def _counted_table(table: Table, results: dict[str, list[Found]]) -> list[str]:
    """What a search of a fixed number of trials costs, and how good its best is."""
    oracle, costs, bests = table.oracle(), {}, {}
    for name in COUNTED:
        costs[name] = [one.spent / oracle.images for one in results[name]]
        bests[name] = [one.best for one in results[name]]
    lines = [
        f"| {name} | {median(costs[name]):.2f} | {max(costs[name]):.2f} | {median(bests[name]):.4f} | "
        f"{min(bests[name]):.4f} |"
        for name in COUNTED
    ]
    mine, random = COUNTED
    cheap, good = max(costs[mine]) <= MOST_TRAININGS, median(bests[mine]) >= median(bests[random])
    return [
        f"| {TRIALS} trials | whole trainings, median | worst | best accuracy, median | worst |",
        "|---|---:|---:|---:|---:|",
        *lines,
        "",
        f"Figures: {TRIALS} trials cost at most {MOST_TRAININGS:g} whole trainings: {verdict(cheap)}; their best is no "
        f"worse than that of {TRIALS} whole trainings drawn at random, in the median: {verdict(good)}.",
    ]


def median(values: list[float]) -> float:
    return statistics.median_high(values)


def said(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "never"


def times(random: float, value: float) -> str:
    return f"{random / value:.1f}" if math.isfinite(value) else "-"


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()
