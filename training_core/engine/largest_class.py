"""Whether a model tells more than the name of the largest class, which needs no model. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALERT = "no_better_than_largest_class"


@dataclass(frozen=True)
class Compared:
    """On the validation images: `accuracy` of the model, `share` of their largest class, one standard error of it."""

    label: int
    images: int
    share: float
    accuracy: float

    @property
    def standard_error(self) -> float:
        """Of an accuracy of `share` over so many images, by the binomial distribution."""
        return math.sqrt(self.share * (1 - self.share) / self.images)

    @property
    def better(self) -> bool:
        """By more than a standard error, or in everything."""
        return self.accuracy > min(self.share + self.standard_error, 1 - 0.5 / self.images)

    def words(self, name: str) -> str:
        return (
            f"the model is right on {self.accuracy:.1%} of the {self.images:,} validation images, and whoever always "
            f"said {name!r} would be on {self.share:.1%}: it has learned nothing that shows here. See whether labels "
            "and images belong together (dataset.label_check), give more images or training.epochs, or start from "
            "trained weights (model.pretrained, model.weights)"
        )


def compare(labels: NDArray[np.int64], accuracy: float) -> Compared | None:
    """`labels` `(images,)` are those of the validation images; None where they are of one class or there are none."""
    counts = np.bincount(labels) if len(labels) else np.zeros(1, np.int64)
    largest = int(counts.argmax())
    if counts[largest] in {0, len(labels)}:
        return None
    return Compared(largest, len(labels), int(counts[largest]) / len(labels), accuracy)
