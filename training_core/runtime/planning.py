"""The compute plan of an attempt, made before any rank starts, by the process that will start them."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ValidationError

from training_core.checkpoints.manifest import Damaged, read_manifest
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.reports import Probed
from training_core.contract.run_dir import EventsFile, Prepared, RunDir, RunSpec, write_atomically
from training_core.data.meta import read_meta
from training_core.engine import oom_history
from training_core.planner.case import Case
from training_core.planner.choose import choose_compute
from training_core.planner.draft import said
from training_core.planner.facts import HostFacts
from training_core.planner.host import look_at_host
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.predict import START_SECONDS, epoch_seconds, predict
from training_core.planner.recipe import DataFacts, model_to_fetch
from training_core.planner.table import ProbeTable, key_of
from training_core.processes.forked_call import Say, lines_from_child
from training_core.storage.store import open_store
from training_core.tasks.image_classification.origin import is_uri, model_of

PROBE_FOLDER = "probes"
STORE_SECONDS = 60.0
# What a run may spend on being measured first; a shorter one begins at once.
PROBE_SHARE, MOST_PROBE_SECONDS, SHORT_RUN_SECONDS = 0.02, 20.0, 60.0


class Earlier(BaseModel):
    """What the store knows: the network of the weights that the spec names, and how a resumed training was computed."""

    model: str | None = None
    compute: ComputePlan | None = None
    step: int = 0


def plan_compute(run_dir: RunDir, *, fixed_ranks: int | None = None) -> ComputePlan:
    """Decide, and write `plan.json`. `fixed_ranks` have been started already and read it.

    A resumed training on like devices is computed as before, so that it is the same to the bit; on others it is planned
    anew, for the same epochs. Raises what `choose_plan` and `choose_compute` raise.
    """
    run = run_dir.read_spec()
    earlier, host = ask_store(run), look_at_host(run)
    facts = data_facts(run_dir.read_prepared())
    plan = choose_plan(run.spec, facts, device=run.device, weights_model=earlier.model)
    if earlier.compute is not None and earlier.compute.epochs is not None:
        plan = plan.in_epochs(earlier.compute.epochs)
    compute = _again(earlier.compute, host, fixed_ranks)
    if compute is None:
        table = _table(run_dir, run, plan, host, fixed_ranks)
        compute = choose_compute(run.spec.compute, plan, host, table, fixed_ranks=fixed_ranks)
        case = Case(run.spec.compute, plan, host, table, fixed_ranks)
        compute = with_headroom(case, compute, oom_history.known(run.cache_dir, key_of(plan, host), compute.precision))
        compute = compute.model_copy(update={"host": host_identity(host)})
        if earlier.compute is not None:
            compute = compute.model_copy(update={"epochs": earlier.compute.epochs})
    compute = in_time(compute, run, plan, step=earlier.step)
    run_dir.write_plan(compute)
    return compute


def data_facts(prepared: Prepared) -> DataFacts:
    """Of the prepared data and the selection made of it."""
    meta = read_meta(prepared.folder)
    images = json.loads(prepared.selection.with_suffix(".json").read_bytes())["images"]
    return DataFacts(images["train"], len(meta.classes), meta.channels, meta.image_size, meta.image_size_reason)


def ask_store(run: RunSpec) -> Earlier:
    """In a child: a filesystem object must not live in a process that forks."""
    weights = run.spec.model.weights
    known = Earlier(model=model_to_fetch(run.spec, run.device) if run.spec.model.pretrained else None)
    if run.resume_from is None and (weights is None or is_uri(weights)):
        return known

    def ask(say: Say) -> None:
        say(_asked(run, known).model_dump_json())

    answers = lines_from_child(ask, STORE_SECONDS)
    return Earlier.model_validate_json(answers[0]) if answers else _asked(run, known)


def _asked(run: RunSpec, known: Earlier) -> Earlier:
    path = run.resume_from or run.references.get(run.spec.model.weights or "")
    if path is None:
        return known  # the attempt says so
    try:
        manifest = read_manifest(open_store(run), path.strip("/"))
    except (FileNotFoundError, Damaged):
        return known  # the attempt says so, and looks for another checkpoint
    model = model_of(manifest.about) if run.spec.model.weights is not None else known.model
    if run.resume_from is None:
        return Earlier(model=model)
    try:
        compute = ComputePlan.model_validate(manifest.about.get("compute"))
    except ValidationError:
        compute = None  # of an earlier version
    return Earlier(model=model, compute=compute, step=manifest.step)


def with_headroom(case: Case, compute: ComputePlan, most: int | None) -> ComputePlan:
    """In pieces of no more than `most` images, where a training of this kind ran out of memory with more."""
    share = compute.share(case.plan.batch_size)
    if most is None or case.wanted.micro_batch_size != "auto" or min(share, compute.micro_batch_size or share) <= most:
        return compute
    reasons = {**compute.reasons, "compute.micro_batch_size": f"more than {most} images ran out of memory here before"}
    smaller = compute.model_copy(update={"micro_batch_size": most, "reasons": reasons})
    return smaller.model_copy(update={"prediction": predict(case, smaller)})


def _again(before: ComputePlan | None, host: HostFacts, fixed_ranks: int | None) -> ComputePlan | None:
    if before is None or before.host != host_identity(host) or fixed_ranks not in {None, before.ranks}:
        return None
    return before


def host_identity(host: HostFacts) -> str:
    """What must be the same for a resume that is the same to the bit: kind and number of devices, cores, and torch."""
    name = host.device_name or "unnamed"
    return f"{host.devices} {host.device} {name}, {host.cores} cores, torch {torch_version()}"


@cache
def torch_version() -> str:
    return metadata.version("torch")


def _table(run_dir: RunDir, run: RunSpec, plan: Plan, host: HostFacts, fixed_ranks: int | None) -> ProbeTable | None:
    """What was measured for such plans on such hosts before, and now what is missing, where the run is worth it."""
    path = run.cache_dir / PROBE_FOLDER / f"{key_of(plan, host)}.json"
    table = read_table(path)
    expected = choose_compute(run.spec.compute, plan, host, table, fixed_ranks=fixed_ranks).prediction
    # Of a trial that ends at a rung, only the part up to there is certain to come.
    seconds = expected.hours * 3600 * (run.until or 1.0) if expected is not None else 0.0
    if seconds < SHORT_RUN_SECONDS:
        return table
    from training_core.preflight.probing.probes import probed  # noqa: PLC0415  torch, which the ranks need, and a short run not yet

    case = Case(run.spec.compute, plan, host, table, fixed_ranks)
    found = probed(case, run_dir.read_prepared(), min(MOST_PROBE_SECONDS, PROBE_SHARE * seconds))
    if found is None:
        return table
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, found.model_dump_json(indent=1).encode())
    with EventsFile(run_dir.events) as events:
        events.append(Probed(key=found.key, table=found.model_dump(mode="json")))
    return found


def read_table(path: Path) -> ProbeTable | None:
    """None where there is none, or one that is broken or that another torch made: it will be made anew."""
    try:
        table = ProbeTable.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return table if table.torch == torch_version() else None


def in_time(compute: ComputePlan, run: RunSpec, plan: Plan, *, step: int) -> ComputePlan:
    """Fewer epochs where they are ours to choose and the time is too short for all, or a warning where they are not.

    A training that has begun keeps its epochs: another schedule would be another training. So do trials that end at a
    rung, which is the same fraction of all of them.
    """
    prediction, limit = compute.prediction, run.train_seconds
    if prediction is None or limit is None:
        return compute
    an_epoch = epoch_seconds(plan, prediction.step_seconds)
    left = ((run.until or 1.0) * plan.total_steps - step) / plan.steps_per_epoch
    needed = prediction.hours * 3600 * left / plan.epochs
    if needed <= limit:
        return compute
    fitting = math.floor((limit - START_SECONDS) / an_epoch)
    if run.spec.training.epochs != "auto" or step or fitting < 1 or run.until is not None:
        words = (
            f"{left:.3g} epochs take about {said(needed)}, and {said(limit)} are left; lower training.epochs, or raise"
        )
        warning = f"schedule_longer_than_budget: {words} compute.max_hours or the budget"
        return compute.model_copy(update={"warnings": [*compute.warnings, warning]})
    reason = f"{plan.epochs} would take about {said(needed)}, and {said(limit)} are there"
    hours = (START_SECONDS + fitting * an_epoch) / 3600
    times = {"hours": hours, "device_hours": prediction.device_hours * hours / prediction.hours}
    changes = {"epochs": fitting, "prediction": prediction.model_copy(update=times)}
    return compute.model_copy(update={**changes, "reasons": {**compute.reasons, "training.epochs": reason}})
