"""Samplers, pruners and populations that cannot do what a search asks of them."""

from __future__ import annotations

from collections.abc import Iterator

from training_core.contract.spec import CategoricalParameter, Search
from training_core.contract.spec.space_values import Fault

# A member of a population goes on from another one's weights and optimizer, in the middle of the same batches.
FIXED_IN_POPULATION = (
    "model", "dataset", "compute", "training.epochs", "training.batch_size", "training.image_size", "training.resizing",
    "training.optimizer.name", "training.optimizer.learning_rate_test", "training.ema_decay", "training.sampling",
    "training.distillation", "training.early_stopping", "training.seed",
)  # fmt: skip


def strategy_faults(search: Search) -> Iterator[Fault]:
    yield from _sampler_faults(search)
    yield from _pruner_faults(search)
    if search.population is not None:
        yield from _population_faults(search)


def _sampler_faults(search: Search) -> Iterator[Fault]:
    place = ("search", "sampler")
    conditional = [path for path, parameter in search.space.items() if parameter.when]
    choices = [path for path, parameter in search.space.items() if isinstance(parameter, CategoricalParameter)]
    if search.sampler == "cma_es" and len(search.objectives) > 1:
        yield Fault(place, "cma_es knows one objective; nsga2 and tpe know several")
    elif search.sampler == "cma_es" and choices:
        yield Fault(place, f"cma_es knows numbers alone, and {choices[0]} is categorical; tpe knows both")
    elif search.sampler in ("cma_es", "nsga2") and conditional:
        yield Fault(place, f"{search.sampler} knows no conditions, and {conditional[0]} has one; tpe knows them")


def _pruner_faults(search: Search) -> Iterator[Fault]:
    """Trials are judged at a rung by one metric, which must be measured there: on the validation images."""
    place, pruner = ("search", "pruner"), search.pruner.name
    if pruner in ("auto", "none") and search.population is None:
        return
    what, where = (
        (f"The pruner {pruner}", place) if search.population is None else ("A population", ("search", "population"))
    )
    if len(search.objectives) > 1:
        yield Fault(where, f"{what} compares trials by one objective, and there are {len(search.objectives)}")
    elif not search.objectives[0].metric.startswith("validation/"):
        metric = search.objectives[0].metric
        yield Fault(where, f"{what} compares trials in the middle, where {metric} is not measured; validation/… is")
    if search.population is not None and pruner not in ("auto", "none"):
        yield Fault(place, "A population replaces trials instead of pruning them; leave the pruner out")


def _population_faults(search: Search) -> Iterator[Fault]:
    for path in search.space:
        fixed = next((one for one in FIXED_IN_POPULATION if path == one or path.startswith(f"{one}.")), None)
        if fixed is not None:
            message = f"{fixed} stays as it is while a training goes on, and members of a population go on from another"
            yield Fault(("search", "space", path), message)
    if search.finish == "retrain":
        message = "A member of a population has no parameters to train again with: they changed on the way"
        yield Fault(("search", "finish"), message)
