"""Whether the augmentation helps here: short trainings in pairs, with it and without, before the training proper.

Both of a pair start from the same weights and see the same images in the same order; their steps hold a whole learning
rate schedule. What was found is kept with the trial, so that a resumed training is the same training.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training_core.checkpoints.manifest import trial_folder
from training_core.contract.errors import StopRequested
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunDir
from training_core.distributed.ranks import Ranks
from training_core.planner.mixing import Mixing
from training_core.planner.plan import Plan
from training_core.preflight.short_run import Judged, shortened, train_and_judge
from training_core.storage.store import open_store
from training_core.tasks.image_classification.learner import Materials

FILE = "augmentation_check.json"
PAIRS = 3
MOST_STEPS, PLAN_FRACTION, LEAST_STEPS = 300, 0.1, 20
MOST_JUDGED_IMAGES = 5000
# Student's t for 95 % and PAIRS - 1 degrees of freedom from each side.
T_95 = 2.78
CANDIDATE_WITHOUT_ONE = "light"

Verdict = Literal["helps", "hurts", "undecided"]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Validation with the augmentation less without it; `noise` is half the 95 % interval around the value."""

    value: float
    noise: float

    @property
    def clear(self) -> bool:
        return abs(self.value) > self.noise


@dataclass(frozen=True)
class Found:
    """`preset` against none: the verdict with its evidence, after `steps` steps (`epochs` passes over the images)."""

    preset: str
    verdict: Verdict
    loss: Difference
    accuracy: Difference
    steps: int
    epochs: float


def decide(plan: Plan, materials: Materials, run_dir: RunDir, ranks: Ranks, reports: Reports) -> Plan:
    """The plan, with the better augmentation where the spec leaves it to us; what the spec pins stays.

    Rank 0 runs the check and reports it; the others wait for what it decides. Raises `StopRequested`.
    """
    wanted = materials.run.spec.training.augmentation
    if not wanted.check:
        return plan
    decides, preset = wanted.preset == "auto", plan.augmentation
    if ranks.first:
        found = _remembered(materials)
        if found is None:
            given, without = _sides(plan, decides=decides)
            found = _check(given, without, materials, run_dir, ranks)
        preset = _chosen(plan, found) if decides else plan.augmentation
        _report(found, preset, reports)
    preset = ranks.text_from_first(preset)
    if preset == plan.augmentation:
        return plan
    reasons = plan.reasons | {"training.augmentation.preset": f"the augmentation check chose {preset}"}
    return replace(plan, augmentation=preset, reasons=reasons)


def compare(preset: str, pairs: list[tuple[Judged, Judged]], *, steps: int, epochs: float) -> Found:
    """The verdict on `(with, without)` pairs, by the loss, unless the accuracy clearly says the opposite."""
    loss = _difference([(one.losses.numpy(), other.losses.numpy()) for one, other in pairs])
    accuracy = _difference([(one.correct.numpy(), other.correct.numpy()) for one, other in pairs])
    verdict: Verdict = "undecided"
    against = accuracy.clear and (accuracy.value > 0) == (loss.value > 0)
    if loss.clear and not against:
        verdict = "helps" if loss.value < 0 else "hurts"
    return Found(preset, verdict, loss, accuracy, steps, round(epochs, 2))


def _difference(pairs: list[tuple[Values, Values]]) -> Difference:
    """Welch's interval over the seeds, widened by the spread over the images: other validation images, other result."""
    given, without = (np.array([pair[side].mean() for pair in pairs]) for side in (0, 1))
    by_seed = (given.var(ddof=1) + without.var(ddof=1)) / len(pairs)
    by_image = np.mean([one - other for one, other in pairs], axis=0)
    spread = by_image.var(ddof=1) / len(by_image) if len(by_image) > 1 else math.inf
    value, noise = given.mean() - without.mean(), T_95 * math.sqrt(by_seed + spread)
    return Difference(float(value), float(noise))


def _sides(plan: Plan, *, decides: bool) -> tuple[Plan, Plan]:
    """With and without. Where the preset is ours to decide, MixUp and CutMix belong to both sides."""
    without = replace(plan, augmentation="none", mixing=plan.mixing if decides else Mixing())
    nothing = plan.augmentation == "none" and (decides or plan.mixing.mixup == plan.mixing.cutmix == 0)
    return replace(plan, augmentation=CANDIDATE_WITHOUT_ONE) if nothing else plan, without


def _check(given: Plan, without: Plan, materials: Materials, run_dir: RunDir, ranks: Ranks) -> Found:
    steps = min(MOST_STEPS, max(LEAST_STEPS, round(given.total_steps * PLAN_FRACTION)))
    data = materials.data
    every = data.splits["validation"]
    few = every[np.linspace(0, len(every) - 1, min(len(every), MOST_JUDGED_IMAGES)).astype(np.int64)]
    fewer = replace(materials, data=data.with_splits({**data.splits, "validation": few}))

    def tick() -> None:
        if run_dir.stop_requested():
            raise StopRequested

    def judge(plan: Plan, pair: int) -> Judged:
        short = shortened(plan, steps=steps)
        short = replace(short, seed=plan.seed + pair, mixing=replace(short.mixing, seed=plan.seed + pair))
        return train_and_judge(fewer, short, run_dir, ranks.device, tick)

    pairs = [(judge(given, pair), judge(without, pair)) for pair in range(PAIRS)]
    epochs = steps * given.batch_size / len(data.splits["train"])
    found = compare(given.augmentation, pairs, steps=steps, epochs=epochs)
    open_store(materials.run).write(_path(materials), json.dumps(asdict(found)).encode())
    return found


def _chosen(plan: Plan, found: Found) -> str:
    """Undecided leaves what data size and epochs speak for: a short training shows only part of the effect."""
    if found.verdict == "undecided":
        return plan.augmentation
    return found.preset if found.verdict == "helps" else "none"


def _report(found: Found, preset: str, reports: Reports) -> None:
    reports.alert(
        "augmentation_check",
        f"{found.preset} {found.verdict if found.verdict != 'undecided' else 'neither clearly helps nor hurts'}: "
        f"validation loss {found.loss.value:+.4f} (noise {found.loss.noise:.4f}), "
        f"accuracy {found.accuracy.value:+.4f} (noise {found.accuracy.noise:.4f}) "
        f"after {found.steps} steps, {PAIRS} pairs; the training uses {preset}",
        **asdict(found),
        used=preset,
    )


def _remembered(materials: Materials) -> Found | None:
    """What an earlier attempt of the trial found."""
    try:
        content = json.loads(open_store(materials.run).read(_path(materials)))
    except FileNotFoundError:
        return None
    return Found(**content | {"loss": Difference(**content["loss"]), "accuracy": Difference(**content["accuracy"])})


def _path(materials: Materials) -> str:
    return f"{trial_folder(materials.run)}/{FILE}"
