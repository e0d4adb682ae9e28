"""The table of recorded trainings, as contenders read it. Without torch."""

from __future__ import annotations

import gzip
import json
import math
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "trainings.json.gz"
TABLES = {"first": TABLE, "second": TABLE.with_name("second.json.gz"), "third": TABLE.with_name("third.json.gz")}
# Half-octaves from 1/256 on, and the eighths.
FRACTIONS = sorted({2 ** (-half / 2) for half in range(17)} | {eighth / 8 for eighth in range(1, 9)})
Choice = tuple[int, ...]
ACCURACY, LOSS = "validation/accuracy", "validation/loss"
# A rung is judged by about a quarter as many images as were trained on, no fewer than PART_IMAGES, and by all from
# WHOLE_FROM on (training_core.engine.rung_evaluation).
PART_IMAGES, WHOLE_FROM, TRAINED_FOR_ONE_JUDGED = 512, 0.25, 4
HOPELESS_LOSS = 100.0  # stands for one that was no number


@dataclass(frozen=True)
class Course:
    """One training.

    `choice` are indices into the grid. The lists go by `FRACTIONS` of its length: measured on all validation images,
    and on `PART_IMAGES` of them; a loss that was no number is None. `images` counts those trained on. `cpu_seconds` is
    all of it, evaluations too.
    """

    choice: Choice
    steps: int
    images: int
    accuracy: list[float]
    loss: list[float | None]
    part_accuracy: list[float]
    part_loss: list[float | None]
    cpu_seconds: float


class Table:
    """All trainings by choice; `grid` are the values by path, `validation_images` what `accuracy` was measured on."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.grid: dict[str, list[Any]] = content["grid"]
        self.about = {key: value for key, value in content.items() if key != "trainings"}
        self.validation_images: int = content["images"]["validation"]
        courses = [Course(**{**one, "choice": tuple(one["choice"])}) for one in content["trainings"]]
        self.courses = {course.choice: course for course in courses}

    @classmethod
    def read(cls, path: Path = TABLE) -> Table:
        return cls(json.loads(gzip.decompress(path.read_bytes())))

    def oracle(self) -> Course:
        """The training that ended best."""
        return max(self.courses.values(), key=lambda course: course.accuracy[-1])

    def at(self, choice: Choice, fraction: float) -> dict[str, float]:
        """Accuracy and loss on all validation images after `fraction` of the training."""
        course = self.courses[choice]
        return {ACCURACY: between(course.accuracy, fraction), LOSS: between(known(course.loss), fraction)}

    def at_rung(self, choice: Choice, fraction: float) -> dict[str, float]:
        """As a rung of the service sees it: on a part of the images."""
        course = self.courses[choice]
        seen = fraction * course.images / TRAINED_FOR_ONE_JUDGED
        if fraction >= WHOLE_FROM or seen > math.sqrt(PART_IMAGES * self.validation_images):
            return self.at(choice, fraction)
        return {ACCURACY: between(course.part_accuracy, fraction), LOSS: between(known(course.part_loss), fraction)}

    def first_reaching(self, choice: Choice, accuracy: float, first: float, last: float) -> float | None:
        """The recorded fraction in `(first, last]` at which it is this good for the first time."""
        points = zip(FRACTIONS, self.courses[choice].accuracy, strict=True)
        return next((at for at, value in points if first < at <= last + 1e-9 and value >= accuracy), None)


def known(losses: list[float | None]) -> list[float]:
    return [HOPELESS_LOSS if loss is None else loss for loss in losses]


def between(values: list[float], fraction: float) -> float:
    """Linear in the logarithm of the fraction; below the first recorded one its value."""
    place = bisect_left(FRACTIONS, fraction - 1e-9)
    if place == 0:
        return values[0]
    before, after = FRACTIONS[place - 1], FRACTIONS[place]
    share = math.log(fraction / before) / math.log(after / before)
    return values[place - 1] + min(1.0, share) * (values[place] - values[place - 1])
