"""Whether an exported model still is the model: compared with what it was made from, on real images. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason
from training_core.export.onnx_model import Session
from training_core.export.pictures import Images, Pictures

Logits = NDArray[np.float32]
Compute = Callable[[Images], Logits]

TOGETHER = 64
SECONDS = 20.0
# Of the largest logit: other orders of summation differ by about 1e-6, another model by far more.
LARGEST_DIFFERENCE = 1e-3
# A loss of accuracy by int8 that its user should hear of.
NOTABLE_LOSS = 0.02
TIMED_RUNS = 20


def compare(ours: Compute, theirs: Compute, pictures: Pictures) -> dict[str, Any]:
    """Logits of both on the images there are, for at most `SECONDS`; raises `Failed(unsupported)` where they differ."""
    expected, given = _both(ours, theirs, pictures.judged)
    difference = float(np.abs(expected - given).max())
    if not difference <= LARGEST_DIFFERENCE * max(1.0, float(np.abs(expected).max())):
        raise Failed(
            Reason.UNSUPPORTED, f"the exported graph computes something else: logits differ by up to {difference:g}"
        )
    check: dict[str, Any] = {
        "images": len(given),
        "real_images": pictures.real,
        "largest_difference": difference,
        "equal_top1": float((expected.argmax(1) == given.argmax(1)).mean()),
    }
    return check | _accuracies(pictures, accuracy=given)


def judge(before: Session, after: Session, pictures: Pictures) -> dict[str, Any]:
    """How often each of the two is right, and how often they agree, on the same images."""
    full, small = _both(before.run, after.run, pictures.judged)
    check: dict[str, Any] = {"images": len(full), "equal_top1": float((full.argmax(1) == small.argmax(1)).mean())}
    return check | _accuracies(pictures, accuracy_before=full, accuracy_after=small)


def loss_of(check: dict[str, Any]) -> str | None:
    """In words, where `check` shows a notable loss of accuracy."""
    lost = check.get("accuracy_before", 0.0) - check.get("accuracy_after", 0.0)
    if lost <= NOTABLE_LOSS:
        return None
    return (
        f"int8 is right on {check['accuracy_after']:.1%} of {check['images']} validation images, "
        f"the model itself on {check['accuracy_before']:.1%}"
    )


def milliseconds(session: Session, image: Images) -> float:
    """Of one image on one thread: the median of 20."""
    seconds = []
    for _ in range(TIMED_RUNS + 1):  # the first one warms up
        began = time.perf_counter()
        session.run(image)
        seconds.append(time.perf_counter() - began)
    return round(1000 * float(np.median(seconds[1:])), 4)


def _both(one: Compute, other: Compute, images: Images) -> tuple[Logits, Logits]:
    began, pairs = time.monotonic(), []
    for some in _pieces(images):
        pairs.append((one(some), other(some)))
        if time.monotonic() - began > SECONDS:
            break
    return np.concatenate([first for first, _ in pairs]), np.concatenate([second for _, second in pairs])


def _accuracies(pictures: Pictures, **logits: Logits) -> dict[str, float]:
    """Of each, by the name given; none where nobody knows the labels."""
    if pictures.labels is None:
        return {}
    return {name: float((values.argmax(1) == pictures.labels[: len(values)]).mean()) for name, values in logits.items()}


def _pieces(images: Images) -> Iterator[Images]:
    return (images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER))
