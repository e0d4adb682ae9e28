"""How good the model is: evaluations, the best weights so far, early stopping, and the last word."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import nn

from training_core.contract.reporter import all_finite
from training_core.contract.reports import EarlyStopped, Summary
from training_core.contract.spec import EarlyStopping, is_better
from training_core.data.sampler import Indices
from training_core.distributed.sharding import cut_like, is_sharded
from training_core.distributed.tensors import Tensors
from training_core.engine import batch_statistics, largest_class
from training_core.engine.largest_class import Compared, compare
from training_core.engine.precision import autocast
from training_core.engine.progress import Pace
from training_core.engine.training import Training
from training_core.optimisation.early_stopping import decide, reached
from training_core.tasks.image_classification import task


def evaluate(training: Training, split: str, some: Indices | None = None) -> dict[str, float]:
    """Metrics of the network as it is, over every image of a split, or `some` rows of it, the ranks sharing the work.

    Each image counts once.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=training.ranks.device)
    training.ranks.same_buffers(training.model)
    training.model.eval()
    with training.exchange.evaluating(), torch.no_grad():
        for batch in training.feed.evaluation(split, some):
            images, labels = training.normalise(batch)
            with autocast(training.plan.precision, training.ranks.device):
                logits = training.model(images)
            sums += task.evaluation_sums(logits, labels)
    training.model.train()
    return {f"{split}/{name}": value for name, value in task.metrics_of(training.ranks.sum(sums)).items()}


def validate(training: Training, some: Indices | None = None) -> dict[str, float]:
    """Metrics of the weights that are judged, over the validation images or `some` of their rows."""
    with training.clock.phase("evaluate"), training.ema.applied() if training.ema else nullcontext():
        batch_statistics.take_anew(training)
        return evaluate(training, "validation", some)


def judge(training: Training) -> None:
    """Evaluate on the validation images, keep the best weights, and apply the rule of early stopping."""
    state, rule = training.state, training.plan.early_stopping
    metrics = validate(training)
    training.reports.metric(state.step, training.epoch, metrics)
    if not all_finite(metrics):
        training.reports.alert("nan", f"the validation loss is no number at step {state.step}", step=state.step)
    state.latest_metrics, state.latest_step = metrics, state.step
    metric = (rule or EarlyStopping()).metric
    if is_better(metrics[metric], state.best, metric):
        state.best, state.best_step, state.best_metrics = metrics[metric], state.step, metrics
        weights = training.judged_weights()
        training.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
    go_on(training, metrics[metric])


def go_on(training: Training, value: float) -> None:
    """What an evaluation means for the schedule, and whether it is the last one."""
    state, plan = training.state, training.plan
    metric = (plan.early_stopping or EarlyStopping()).metric
    lowered = state.schedule.observe(value, metric, plan)
    match decide(state.early_stop, state.schedule, value, state.step, plan, lowered=lowered):
        case "stop":
            state.early_stopped = True
        case "cool_down":
            state.schedule.cool_down(state.step, plan)


def put(network: nn.Module, weights: Tensors) -> None:
    """Weights as they lie in the network, or whole as a checkpoint has them, into the network."""
    own = network.state_dict()
    cut = {name for name, tensor in weights.items() if is_sharded(own[name]) and not is_sharded(tensor)}
    network.load_state_dict({name: cut_like(one, own[name]) if name in cut else one for name, one in weights.items()})


def finish(training: Training, pace: Pace) -> None:
    """Put the result into the network, the best model or the last one, test it, once, and sum up."""
    state, rule, reports = training.state, training.plan.early_stopping, training.reports
    if training.stopped_early and rule is not None:
        best = state.best if state.best is not None else math.nan
        reports.say(
            EarlyStopped(
                step=state.step,
                epoch=round(training.epoch, 6),
                metric=rule.metric,
                best=best,
                best_step=state.best_step,
                patience=training.plan.patience,
                target=rule.target if reached(best, rule) else None,
            )
        )
    restore_best = (rule or EarlyStopping()).restore_best
    if not restore_best:
        put(training.network, training.judged_weights())
    elif training.best_weights is not None:
        put(training.network, training.best_weights)
    metrics = dict(state.best_metrics if restore_best else state.latest_metrics)
    compared = compare_with_largest_class(training, metrics.get("validation/accuracy", math.nan))
    if training.feed.images("test") > 0:
        with training.clock.phase("evaluate"):
            tested = evaluate(training, "test")
        reports.metric(state.step, training.epoch, tested)
        metrics |= tested
    reports.say(
        Summary(
            metrics=metrics,
            best_step=state.best_step,
            best_checkpoint=state.best_checkpoint,
            seconds=training.clock.account(),
            images_seen=state.images_seen,
            images_per_second=round(pace.images_per_second_overall(), 2),
            largest_class_share=compared.share if compared is not None else None,
            no_better_than_largest_class=compared is not None and not compared.better,
        )
    )
    reports.sync()


def compare_with_largest_class(training: Training, accuracy: float) -> Compared | None:
    """Of the result; an alert where it tells no more than the name of the class that is the largest in validation."""
    data = training.materials.data
    compared = compare(data.labels[data.splits["validation"]], accuracy)
    if compared is not None and not compared.better:
        name = data.meta.classes[compared.label]
        training.reports.alert(
            largest_class.ALERT,
            compared.words(name),
            accuracy=None if math.isnan(accuracy) else accuracy,
            largest_class=name,
            largest_class_share=compared.share,
            standard_error=compared.standard_error,
            images=compared.images,
        )
    return compared
