"""Ours and the peers, each as sets of names or pairs of names; and the table that compares them with the truth."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from cleanvision import Imagelab
from cleanvision.issue_managers.duplicate_issue_manager import get_hash
from cleanvision.issue_managers.image_property import BlurrinessProperty, BrightnessProperty, EntropyProperty
from PIL import Image

from benchmarks.data.corruptions import Corpus
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.data.inspection.selection import Selection, inspect
from training_core.data.items import Items
from training_core.vision.prepare import prepare

Pairs = set[frozenset[str]]


class Table:
    """Rows of finding, data, tool, precision, recall, F1."""

    def __init__(self) -> None:
        self.lines = ["| finding | data | tool | found | precision | recall | F1 |", "|---|---|---|---|---|---|---|"]

    def add(self, finding: str, data: str, tool: str, found: set[Any], truth: set[Any]) -> None:
        right = len(found & truth)
        precision, recall = right / max(1, len(found)), right / max(1, len(truth))
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        said = f"{precision:.3f}" if found else "-"
        self.lines.append(f"| {finding} | {data} | {tool} | {len(found)} | {said} | {recall:.3f} | {f1:.3f} |")
        print(self.lines[-1], flush=True)


def ours(corpus: Corpus, **cleaning: Any) -> tuple[Items, Selection]:
    cache = corpus.folder.parent / f"{corpus.folder.name}-cache"
    policy = {"max_bad_fraction": 1.0, "leakage": "flag", "exact_duplicates": "flag", **cleaning}
    dataset = {"uri": f"file://{corpus.folder}", "cleaning": policy}
    run = RunSpec(
        spec=JobSpec.model_validate({"task": "image-classification", "dataset": dataset}),
        store=f"file://{cache}/store",
        cache_dir=cache / "prepared",
        data_roots=[corpus.folder.parent],
    )
    items = Items(prepare(run, lambda: False, lambda _: None).folder)
    return items, inspect(items, run.spec.dataset)


def names(items: Items, rows: Any) -> set[str]:
    return set(items.paths(rows))


def our_pairs(items: Items, column: str) -> Pairs:
    groups = items.column(column)
    members: dict[int, list[str]] = {}
    rows = np.flatnonzero(groups >= 0)
    for row, path in zip(rows, items.paths(rows), strict=True):
        members.setdefault(int(groups[row]), []).append(path)
    return {frozenset(pair) for group in members.values() for pair in combinations(group, 2)}


def cleanvision(corpus: Corpus, *issues: str) -> Imagelab:
    with redirect_stderr(io.StringIO()):  # its progress bars
        lab = Imagelab(data_path=str(corpus.folder), verbose=False)
        lab.find_issues({issue: {} for issue in issues}, n_jobs=1, verbose=False)
    return lab


def their_measures(image: Image.Image) -> list[Any]:
    """What cleanvision computes of each image."""
    looks = [BlurrinessProperty(), BrightnessProperty("dark"), EntropyProperty()]
    hashes = [{"hash_type": "md5"}, {"hash_type": "phash", "hash_size": 8}]
    return [*(one.calculate(image) for one in looks), *(get_hash(image, kind) for kind in hashes)]


def their_pairs(corpus: Corpus, lab: Imagelab, issue: str) -> Pairs:
    sets = lab.info[issue]["sets"]
    return {
        frozenset(str(Path(path).relative_to(corpus.folder)) for path in pair)
        for group in sets
        for pair in combinations(group, 2)
    }


def hash_pairs(
    paths: list[str], corpus: Corpus, kind: Callable[[Image.Image], Any], fixed: int
) -> tuple[int, Pairs, Pairs]:
    """The distance with the best F1, its pairs, and the pairs at a fixed distance."""
    hashes = np.stack([kind(Image.open(corpus.folder / path)).hash.reshape(-1) for path in paths])
    bits = np.packbits(hashes, axis=1).view(">u8").reshape(-1).astype(np.uint64)
    number = {path: at for at, path in enumerate(paths)}
    truth = np.zeros((len(paths), len(paths)), np.bool_)
    for pair in corpus.pairs:
        one, other = sorted(number[path] for path in pair)
        truth[one, other] = True
    above = np.triu(np.ones_like(truth), 1)
    distances = np.bitwise_count(bits[:, None] ^ bits[None])

    def score(limit: int) -> float:
        found = (distances <= limit) & above
        return 2 * int((found & truth).sum()) / max(1, int(found.sum() + truth.sum()))

    def pairs(limit: int) -> Pairs:
        chosen = np.argwhere((distances <= limit) & above).tolist()
        return {frozenset((paths[one], paths[other])) for one, other in chosen}

    best = max(range(25), key=score)
    return best, pairs(best), pairs(fixed)
