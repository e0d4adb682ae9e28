"""The end of an attempt at a rung of a search: how good the trial is there, on part of the validation images."""

from __future__ import annotations

from training_core.contract.reports import RungReached
from training_core.data.sampler import first_of_order
from training_core.engine.evaluation import validate
from training_core.engine.training import Training

LEAST_IMAGES = 512
ALL_FROM = 0.25


def come_to_rung(training: Training) -> None:
    """Report the trial's value at its rung, once its checkpoint is safe. Nothing of the training changes by it.

    The images are the first of one random order by the seed of the split, so that trials are compared on the same.
    """
    run, state = training.materials.run, training.state
    assert run.until is not None  # noqa: S101  else there is no rung to come to
    rows = training.materials.data.splits["validation"]
    trained = run.until * training.plan.epochs * training.feed.images("train")
    count = images_at(run.until, trained, len(rows))
    judged_here = state.step > 0 and state.step % training.plan.steps_per_epoch == 0
    if count == len(rows) and judged_here:
        values = state.latest_metrics
    else:
        values = validate(training, first_of_order(rows, count, run.spec.dataset.split.seed))
    training.settle()
    training.reports.say(
        RungReached(
            rung=run.rung or 0,
            fraction=run.until,
            step=state.step,
            epoch=round(training.epoch, 6),
            images=count,
            values=values,
        )
    )
    training.reports.sync()


def images_at(fraction: float, trained: float, validation: int) -> int:
    """How many of the `validation` images are judged where `trained` images have been trained on.

    About a quarter as many: a judged image costs a third of a trained one, so that judging adds a tenth to the training
    since the rung before. In powers of two and no more than that, so that trials of somewhat different lengths are
    judged on the same; but at least 512, and all from a quarter of the training on.
    """
    if fraction >= ALL_FROM:
        return validation
    count = LEAST_IMAGES
    while 8 * count <= trained:
        count *= 2
    return min(count, validation)
