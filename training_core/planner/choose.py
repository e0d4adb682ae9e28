"""From facts and measurements to a `ComputePlan`."""

from __future__ import annotations

from training_core.contract.compute_plan import ComputePlan
from training_core.contract.spec.compute import Compute
from training_core.planner.case import Case
from training_core.planner.draft import Draft
from training_core.planner.extras import choose_extras
from training_core.planner.facts import HostFacts
from training_core.planner.numerics import choose_numerics
from training_core.planner.plan import Plan
from training_core.planner.predict import predict
from training_core.planner.split import choose_split
from training_core.planner.spread import choose_spread, rank_counts
from training_core.planner.table import ProbeTable


def choose_compute(
    wanted: Compute, plan: Plan, host: HostFacts, table: ProbeTable | None = None, *, fixed_ranks: int | None = None
) -> ComputePlan:
    """How to compute `plan` on `host`, with a reason for each choice and what it will take.

    `table` is what was measured, None for nothing. `fixed_ranks` is the number of ranks that somebody else has started
    already (torchrun). Raises `Failed(out_of_memory)` for a training that fits no device, and `Failed(unsupported)`.
    """
    case = Case(wanted, plan, host, table, fixed_ranks)
    first = Draft(case, ComputePlan(ranks=rank_counts(case)[0]))
    spread = choose_spread(choose_numerics(first))
    draft = choose_extras(choose_split(spread))
    prediction = predict(case, draft.compute).model_copy(update=_instead(draft, spread))
    probed = table.probe_seconds if table is not None else 0.0
    return draft.compute.model_copy(update={"prediction": prediction, "probe_seconds": probed})


def _instead(draft: Draft, spread: Draft) -> dict[str, float]:
    """What a step would take without a choice that only pays where it is faster: the training watches them."""
    seconds = {}
    if draft.compute.precision != "fp32":
        seconds["fp32_seconds"] = predict(draft.case, draft.trying(precision="fp32")).compute_seconds
    if draft.compute.ranks != spread.compute.ranks:
        seconds["one_process_seconds"] = predict(spread.case, spread.compute).compute_seconds
    return seconds
