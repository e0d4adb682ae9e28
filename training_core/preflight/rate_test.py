"""The learning rate range test (Smith 2017, section 3.3): the loss while the rate rises from far too low to too high.

It runs before the training where no rate is known, on copies that are thrown away. What was found is kept with the
trial, so that a resumed training is the same training.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

from training_core.checkpoints.manifest import trial_folder
from training_core.contract.errors import StopRequested
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunDir
from training_core.distributed.ranks import Ranks
from training_core.engine.step import train_step
from training_core.planner.mixing import Mixing
from training_core.planner.plan import Plan
from training_core.planner.recipe import LEAST_RATE_TEST_STEPS, RATE_TEST_FRACTION
from training_core.preflight.short_run import short_training
from training_core.storage.store import open_store
from training_core.tasks.image_classification.learner import Materials

FILE = "learning_rate_test.json"
KEY = "training.optimizer.learning_rate"
MOST_STEPS = 100
# Around the rate that the recipe would take.
LOWEST, HIGHEST = 1e-3, 1e2
SMOOTHING, DIVERGED = 0.9, 4.0
BEGUN, LEAST_FALL = 0.1, 0.01


@dataclass(frozen=True)
class Found:
    """`rates` and the smoothed `losses` at them, up to where the loss diverged; `chosen` None where none helps."""

    chosen: float | None
    rates: list[float]
    losses: list[float]


def decide(plan: Plan, materials: Materials, run_dir: RunDir, ranks: Ranks, reports: Reports) -> Plan:
    """The plan, with the rate that the test found where the plan wants one.

    Rank 0 runs it and reports it; the others wait for what it decides. Raises `StopRequested`.
    """
    if not plan.learning_rate_test:
        return plan
    rate = plan.learning_rate
    if ranks.first:
        found = _remembered(materials) or _test(plan, materials, run_dir, ranks)
        rate = found.chosen or rate
        _report(found, plan, reports)
    rate = float(ranks.text_from_first(repr(rate)))
    if rate == plan.learning_rate:
        return plan
    reason = f"the range test found it, where the recipe begins with {plan.learning_rate:g}"
    return replace(plan, learning_rate=rate, reasons=plan.reasons | {KEY: reason})


def sweep_of(plan: Plan) -> Plan:
    """A plan whose rate rises exponentially over the recipe's, in less than 3 % of the steps where the test is ours."""
    steps = min(MOST_STEPS, max(LEAST_RATE_TEST_STEPS, int(plan.total_steps * RATE_TEST_FRACTION)))
    options = plan.schedule_options.model_copy(update={"final_fraction": LOWEST / HIGHEST})
    return replace(
        plan,
        epochs=1,
        steps_per_epoch=steps,
        warmup_steps=0,
        schedule="range_test",
        schedule_options=options,
        learning_rate=plan.learning_rate * HIGHEST,
        mixing=Mixing(),
        resizing=None,
    )


def _test(plan: Plan, materials: Materials, run_dir: RunDir, ranks: Ranks) -> Found:
    sweep = sweep_of(plan)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    with short_training(materials, sweep, run_dir, ranks.device) as training:
        batches = training.feed.training(0)
        for step in range(sweep.total_steps):
            if run_dir.stop_requested():
                raise StopRequested
            loss = float(train_step(training, next(batches)))
            training.state.step += 1
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smooth = mean / (1 - SMOOTHING ** (step + 1))
            if not math.isfinite(smooth) or smooth > DIVERGED * min([*losses, smooth]):
                break
            rates.append(training.optimizer.param_groups[0]["lr"])
            losses.append(smooth)
    found = Found(middle_of_fall(rates, losses), rates, losses)
    open_store(materials.run).write(_path(materials), json.dumps(asdict(found)).encode())
    return found


def middle_of_fall(rates: list[float], losses: list[float]) -> float | None:
    """The geometric mean of the rates where the loss has begun to fall and where it is lowest; None where it never is.

    It has begun with a tenth of the fall. On Fashion-MNIST this came within a factor of 3 of the best rate of short
    trainings with AdamW and SGD, sweeping in 40 steps as in 100, where the middle of the longest falling subsequence
    (fastai's `valley`) was 3 to 10 times too low: a flat start with noise is full of small falls.
    """
    if not losses:
        return None
    lowest = losses.index(min(losses))
    fall = losses[0] - losses[lowest]
    if fall < LEAST_FALL * abs(losses[0]):
        return None
    begun = next(number for number, loss in enumerate(losses) if losses[0] - loss >= BEGUN * fall)
    return math.sqrt(rates[begun] * rates[lowest])


def _report(found: Found, plan: Plan, reports: Reports) -> None:
    if found.chosen is None:
        words = f"no rate made the loss fall; the training begins with {plan.learning_rate:g}"
    else:
        words = f"{found.chosen:g}, in the middle of where the loss falls; {plan.learning_rate:g} without the test"
    reports.alert("learning_rate_test", f"range test of the learning rate: {words}", **asdict(found))


def _remembered(materials: Materials) -> Found | None:
    """What an earlier attempt of the trial found."""
    try:
        return Found(**json.loads(open_store(materials.run).read(_path(materials))))
    except FileNotFoundError:
        return None


def _path(materials: Materials) -> str:
    return f"{trial_folder(materials.run)}/{FILE}"
