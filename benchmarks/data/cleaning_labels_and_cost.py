"""What of inspection needs more than files and names: swapped labels beside cleanlab, and what inspection costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import chain
from statistics import median

import imagehash
import numpy as np
import simplejpeg
import torch
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.data.cleaning_tools import Table, their_measures
from benchmarks.data.corruptions import jpeg
from training_core.data.inspection.duplicates import group
from training_core.data.inspection.label_errors import label_errors
from training_core.vision.convert import Converter
from training_core.vision.inspection.measures import FIELDS, measure, measure_many
from training_core.vision.networks import small_cnn
from training_core.vision.packing import Packing

SWAPPED, FOLDS, EPOCHS = 0.05, 3, 5

Named = Sequence[tuple[str, Image.Image]]


def swapped_labels(table: Table, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    random = np.random.default_rng(0)
    swapped = random.choice(len(labels), int(SWAPPED * len(labels)), replace=False)
    given = labels.copy()
    given[swapped] = (given[swapped] + random.integers(1, 10, len(swapped))) % 10
    fold = random.permutation(len(labels)) % FOLDS
    probabilities = np.empty((len(labels), 10), np.float32)
    for number in range(FOLDS):
        held = fold == number
        probabilities[held] = predictions(images[~held], given[~held], images[held])
    data = f"Fashion-MNIST, {len(labels):,}"
    truth = set(swapped.tolist())
    table.add("label_errors", data, "ours", set(label_errors(given, probabilities).rows.tolist()), truth)
    theirs = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    table.add("label_errors", data, "cleanlab, same predictions", set(theirs.tolist()), truth)


def predictions(images: NDArray[np.uint8], labels: NDArray[np.int64], unseen: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities `(unseen, 10)` by the small network after a short training."""
    torch.manual_seed(0)
    model = small_cnn(1, 10)
    steps = EPOCHS * (len(images) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    x, y = (torch.from_numpy(images)[:, None].float() / 255 - 0.3) / 0.35, torch.from_numpy(labels)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - 63, 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        seen = (torch.from_numpy(unseen)[:, None].float() / 255 - 0.3) / 0.35
        return torch.cat([model(part).softmax(1) for part in seen.split(500)]).numpy()


def cost(images: Named) -> list[str]:
    """CPU microseconds an image on one thread, medians of five passes."""
    lines = [
        "| files | decode alone | whole pass | inspection | of the decode | of the pass |",
        "|---|---|---|---|---|---|",
    ]
    packing = Packing(image_size=224, image_size_reason="", channels=3, encoding="jpeg", expected_bytes=0)
    for quality in (90, 95, 98):
        files = [jpeg(image, quality) for _, image in images]
        # What inspection sees: shrunk to 1.15 of the training size of 224.
        packed = [np.asarray(image.resize((344, 258), Image.Resampling.BOX)) for _, image in images]
        pairs, numbered = list(zip(files, packed, strict=True)), list(enumerate(files))
        decode = microseconds(lambda files=files: [simplejpeg.decode_jpeg(file) for file in files], len(files))
        inspection = microseconds(lambda pairs=pairs: [measure(*pair) for pair in pairs], len(files))
        whole = microseconds(lambda numbered=numbered: Converter(packing).several(numbered), len(files))
        kind = f"500 x 375 JPEG, quality {quality}, {sum(map(len, files)) / len(files) / 1000:.0f} kB"
        share, of_whole = inspection / decode, inspection / whole
        lines.append(
            f"| {kind} | {decode:.0f} us | {whole:.0f} us | {inspection:.0f} us | {share:.1%} | {of_whole:.1%} |"
        )
    every = [image for _, image in images]
    peers = {
        "cleanvision's looks and hashes": lambda: [their_measures(image) for image in every],
        "imagehash phash, dhash and whash": lambda: [
            (imagehash.phash(image), imagehash.dhash(image), imagehash.whash(image)) for image in every
        ],
    }
    lines += ["", *(f"{name}: {microseconds(work, len(every)):,.0f} us an image." for name, work in peers.items())]
    return lines


def look_alikes(images: NDArray[np.uint8]) -> str:
    """How many near copies are seen in a crowd of images that are all alike."""
    start = time.process_time()
    parts = np.split(images[..., None], range(256, len(images), 256))
    rows = chain.from_iterable(measure_many([None] * len(part), list(part)) for part in parts)
    columns = {
        field.name: np.array(values, field.type.to_pandas_dtype())
        for field, values in zip(FIELDS, zip(*rows, strict=True), strict=True)
    }
    columns |= {name: np.full(len(images), 28, np.int32) for name in ("width", "height")}
    measured = time.process_time()
    near = group(columns).near
    groups, each = len(np.unique(near[near >= 0])), (measured - start) / len(images) * 1e6
    return (
        f"All {len(images):,} images of Fashion-MNIST: {int((near >= 0).sum())} in {groups} groups of near copies; "
        f"{each:.0f} us an image to measure, {time.process_time() - measured:.1f} s to group."
    )


def microseconds(work: Callable[[], object], count: int) -> float:
    work()
    taken = []
    for _ in range(5):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return median(taken) / count * 1e6
