"""A short training beside the real one, of the same network, that reports nothing and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from training_core.checkpoints.manager import Checkpoints
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import RunDir
from training_core.distributed.ranks import Ranks
from training_core.efficiency.clock import PhaseClock
from training_core.engine.batch_statistics import take_anew
from training_core.engine.objective import Objective
from training_core.engine.precision import autocast, make_scaler
from training_core.engine.step import train_step
from training_core.engine.training import Training
from training_core.optimisation.optimizers import make_optimizer
from training_core.planner.plan import Plan
from training_core.storage.store import open_store
from training_core.tasks.image_classification.learner import Materials, build_network, make_learner


@dataclass(frozen=True)
class Judged:
    """On the validation images, in one order for all short trainings on the same rows.

    `labels` `(images,) int64` and `probabilities` `(images, classes) float32`.
    """

    labels: torch.Tensor
    probabilities: torch.Tensor

    @property
    def losses(self) -> torch.Tensor:
        """Cross entropy of each image, `(images,) float64`."""
        own = self.probabilities.gather(1, self.labels[:, None])[:, 0].double()
        return -own.clamp_min(torch.finfo(torch.float32).tiny).log()

    @property
    def correct(self) -> torch.Tensor:
        return (self.probabilities.argmax(dim=1) == self.labels).double()


def shortened(plan: Plan, *, steps: int, batch_size: int | None = None) -> Plan:
    """The plan with its whole schedule, warm-up and decay, in `steps` steps at the full image size."""
    warmup = round(plan.warmup_steps * steps / plan.total_steps)
    size = batch_size or plan.batch_size
    mixing = replace(plan.mixing, batch_size=size)
    return replace(
        plan, epochs=1, steps_per_epoch=steps, warmup_steps=warmup, batch_size=size, mixing=mixing, resizing=None
    )


@contextmanager
def short_training(materials: Materials, plan: Plan, run_dir: RunDir, device: torch.device) -> Iterator[Training]:
    """A training of the network of `materials` on this rank alone, before its first step."""
    ranks = Ranks(0, 1, device)
    network = build_network(materials, plan, device)
    learner = make_learner(network, materials, plan, ranks)
    reports = Reports(None)
    training = Training(
        run_dir=run_dir,
        plan=plan,
        ranks=ranks,
        materials=materials,
        feed=learner.feed,
        normalise=learner.normalise,
        network=network,
        model=learner.trained,
        parallel=learner.trained,
        objective=Objective(plan),
        optimizer=make_optimizer(learner.trained, plan),
        scaler=make_scaler(plan.precision, device),
        checkpoints=Checkpoints(open_store(materials.run), materials.run, reports, {}),
        reports=reports,
        clock=PhaseClock(),
    )
    try:
        training.model.train()
        yield training
    finally:
        training.feed.close()


def train_and_judge(
    materials: Materials, plan: Plan, run_dir: RunDir, device: torch.device, tick: Callable[[], None]
) -> Judged:
    """Train on the training rows of `materials` for the steps of the plan, then judge their validation rows.

    `tick` is called before every step and may raise to end it.
    """
    with short_training(materials, plan, run_dir, device) as training:
        batches = training.feed.training(0)
        while training.state.step < plan.total_steps:
            tick()
            train_step(training, next(batches))
            training.state.step += 1
        return judge(training)


def judge(training: Training) -> Judged:
    take_anew(training)
    labels, probabilities = [], []
    training.model.eval()
    with torch.no_grad():
        for batch in training.feed.evaluation("validation"):
            images, truth = training.normalise(batch)
            with autocast(training.plan.precision, training.ranks.device):
                logits = training.model(images)
            probabilities.append(logits.float().softmax(dim=1).cpu())
            labels.append(truth.cpu())
    return Judged(torch.cat(labels), torch.cat(probabilities))
