"""A second inspection after the training: what short trainings that have not seen an image think of its label.

The folds' networks begin where the planned one began, never with what it learned. The result becomes a part of the data
report; nothing is removed, and the training that ended is not touched.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import StopRequested
from training_core.contract.redaction import print_error
from training_core.contract.reports import DataReported, Progress
from training_core.contract.spec import LabelCheck
from training_core.data.inspection.split import units_of
from training_core.engine.training import Training
from training_core.planner.mixing import Mixing
from training_core.planner.plan import Plan
from training_core.preflight.folds import assign_folds
from training_core.preflight.label_report import HARDEST, folder_of, write_label_check
from training_core.preflight.short_run import shortened, train_and_judge
from training_core.storage.store import open_store
from training_core.tasks.image_classification.learner import Materials, gather
from training_core.vision.inspection.report import DataReport

LEAST_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 400, 3, 30
SECONDS_BETWEEN_SIGNS = 30.0

Values = NDArray[np.float32]


def check_labels(training: Training) -> None:
    """Run the check where the spec asks for it. The training has its result already: failures are only reported."""
    materials = training.materials
    wanted = materials.run.spec.dataset.label_check
    if wanted is None or not training.ranks.first:
        return
    try:
        _check(training, materials, wanted)
    except StopRequested:
        training.reports.alert("label_check", "the label check was stopped before its end and has no result")
    except Exception as problem:  # noqa: BLE001  a model that is complete must not be lost to an inspection
        print_error(problem)
        training.reports.alert("label_check", f"the label check failed: {type(problem).__name__}: {problem}")
    training.reports.sync()


def _check(training: Training, materials: Materials, wanted: LabelCheck) -> None:
    data, run = materials.data, materials.run
    rows = np.sort(np.concatenate([data.splits["train"], data.splits["validation"]]))
    fold = assign_folds(data.labels[rows], units_of(data.items)[rows], wanted.folds, training.plan.seed)
    epochs = epochs_of(wanted, training.plan, len(rows))
    fresh = gather(run, data, None, materials.stop_requested) if materials.origin is None else materials
    signs = Signs(training, wanted.folds)
    with tempfile.TemporaryFile(dir=training.run_dir.path) as file:
        # A million images of a thousand classes are 4 GB: the kernel may write them out.
        probabilities: Values = np.memmap(file, np.float32, "w+", shape=(len(rows), len(data.meta.classes)))
        for number in range(wanted.folds):
            held = fold == number
            plan = fold_plan(training.plan, int((~held).sum()), epochs)
            signs.steps = plan.total_steps
            part = fresh.with_rows(rows[~held], rows[held])
            judged = train_and_judge(part, plan, training.run_dir, training.ranks.device, signs.tick)
            probabilities[held] = judged.probabilities.numpy()
        if not np.isfinite(probabilities).all():
            raise ValueError("the short trainings did not converge; lower training.optimizer.learning_rate")
        store = open_store(run)
        report = write_label_check(store, run, data, rows, probabilities, folds=wanted.folds, epochs=epochs)
    training.reports.say(reported(report, folder_of(run)))


def epochs_of(wanted: LabelCheck, plan: Plan, images: int) -> int:
    """Enough steps to learn the easy majority; fewer epochs than the training had, since noise is learned last.

    (Arpit et al. 2017, "A Closer Look at Memorization in Deep Networks".)
    """
    if isinstance(wanted.epochs, int):
        return wanted.epochs
    steps_per_epoch = max(1, images // plan.batch_size)
    enough = min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch)))
    return max(FEWEST_EPOCHS, min(enough, plan.epochs))


def fold_plan(plan: Plan, images: int, epochs: int) -> Plan:
    """Without augmentation that mixes labels, which would blur the confidence that is asked for."""
    batch = min(plan.batch_size, images)
    return replace(shortened(plan, steps=epochs * (images // batch), batch_size=batch), mixing=Mixing())


def reported(report: DataReport, path: str) -> DataReported:
    """The line about a report."""
    findings = report.findings
    return DataReported(
        dataset_version=report.dataset_version,
        path=path,
        images=report.images,
        findings={one.finding: one.count for one in findings if one.count and one.finding != HARDEST},
        removed={one.finding: one.removed for one in findings if one.removed},
    )


@dataclass
class Signs:
    """Signs of life between the steps: the training is complete, and the worker must see that something goes on."""

    training: Training
    folds: int
    steps: int = 0
    done: int = 0
    started: float = field(default_factory=time.perf_counter)
    told: float = field(default_factory=time.perf_counter)

    def tick(self) -> None:
        if self.training.run_dir.stop_requested():
            raise StopRequested
        self.done += 1
        now = time.perf_counter()
        if now - self.told < SECONDS_BETWEEN_SIGNS:
            return
        self.told = now
        left = max(0, self.folds * self.steps - self.done)
        state, plan = self.training.state, self.training.plan
        self.training.reports.say(
            Progress(
                step=state.step,
                epoch=round(self.training.epoch, 6),
                fraction=1.0,
                images_per_second=round(self.done * plan.batch_size / (now - self.started), 2),
                eta_seconds=round(left * (now - self.started) / self.done, 2),
            )
        )
