"""A trial of a population goes on from the checkpoint of a better one, with parameters of its own.

Population Based Training (Jaderberg et al. 2017): weights, their average, optimizer state and place in the training are
taken over; learning rate, weight decay and so on are those of the trial's own spec.
"""

from __future__ import annotations

from dataclasses import replace

from training_core.algorithm.optim import make_optimizer
from training_core.checkpoints.checkpoint import Content, optimizer_state
from training_core.data.meta import Meta
from training_core.failure import Failed
from training_core.networks.learner import Materials
from training_core.plan import Plan
from training_core.spec import JobSpec
from training_core.state import TrainState
from training_core.stepping.slow_half import follow_state
from training_core.training import Training
from training_core.wire import Reason


def of_donor(materials: Materials, content: Content) -> Materials:
    """The same, with the spec that the checkpoint was trained by."""
    spec = JobSpec.model_validate(content.spec)
    return replace(materials, run=materials.run.model_copy(update={"spec": spec}))


def check_alike(path: str, content: Content, plan: Plan, meta: Meta) -> None:
    """Raises `Failed(checkpoint_invalid)` for a checkpoint of another network or of other data."""
    for what, there, here in (
        ("network", content.about.get("model"), plan.model),
        ("classes", content.about.get("classes"), meta.classes),
        ("version of the data", content.about.get("dataset_version"), meta.dataset_version),
    ):
        if there != here:
            raise Failed(
                Reason.CHECKPOINT_INVALID,
                f"{path} cannot be taken over: its {what} is {there} there and {here} here",
                "take over a checkpoint of the same search",
            )


def adopt(training: Training, content: Content, donor: Plan) -> None:
    """Go on from `content`, which was trained by the plan `donor`; the network has its weights already.

    The best so far, early stopping and the schedule begin anew, and so do the checkpoints that this trial keeps: those
    of the other one are not ours to delete.
    """
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    theirs = [names[id(one)] for group in make_optimizer(training.model, donor).param_groups for one in group["params"]]
    ours = [names[id(one)] for group in training.optimizer.param_groups for one in group["params"]]
    state = optimizer_state(training.optimizer, content, [ours.index(name) for name in theirs])
    own_groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": own_groups})
    if content.scaler:
        training.scaler.load_state_dict(content.scaler)
    before = content.state
    training.state = TrainState(
        step=before.step,
        images_seen=before.images_seen,
        elapsed_seconds=before.elapsed_seconds,
        micro_batch_size=before.micro_batch_size,
        out_of_memory_step=before.out_of_memory_step,
        precision=before.precision,
        skipped_steps=before.skipped_steps,
    )
    training.seconds_before = before.elapsed_seconds
    follow_state(training)
