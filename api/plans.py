"""The plan of a job that has not been booked: what `auto` will be, how long it will take, and what it will cost.

The same code decides when the job starts; here it knows the data from the book and the devices from heartbeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import schemas, search_plans, waiting
from api.book import costs, lanes, slots
from api.book.costs import HOUR_SECONDS, money
from api.book.models import Probe, Worker
from api.book.slots import Room
from api.dataset_facts import Hints, KnownData, known_data, weights_model
from api.errors import unsupported
from api.profiles import Profile, Profiles
from api.search_plans import Known
from training_core.contract.compute_plan import Prediction
from training_core.contract.errors import Failed
from training_core.contract.spec import JobSpec
from training_core.planner.choose import choose_compute
from training_core.planner.facts import HostFacts
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.table import ProbeTable, key_of

JsonObject = dict[str, Any]

# A prediction from probes on the device is within a fifth; one from published figures may be off by a factor of two.
SPREAD = {"probes": (0.8, 1.25), "published": (0.5, 2.0), "none": (0.5, 2.0)}
# A heartbeat does not tell these two; whichever was measured on such a host is meant.
NUMA_NODES, LINKS = (1, 2, 4, 8), ("none", "shared_memory", "pcie", "nvlink", "network")


@dataclass(frozen=True)
class Place:
    """Where a job would go now; without a `room` no online worker offers the profile."""

    profile: Profile | None
    room: Room | None


@dataclass(frozen=True)
class Made:
    """`plan` is None while the data or the kind of device is unknown."""

    plan: Plan | None
    missing: list[schemas.Missing]

    @property
    def prediction(self) -> Prediction | None:
        return self.plan.compute.prediction if self.plan is not None else None


def plan_of(session: Session, project_id: str, spec: JobSpec, hints: Hints, profiles: Profiles) -> schemas.PlanAnswer:
    """What is known of the job's future; of a search, one whole training by the job's own values, and then all of it.

    Raises a 422 problem for a spec that its training would refuse.
    """
    rooms = slots.rooms(session)
    online = [room for room in rooms if room.worker.status == "online"]
    place = _likely_place(profiles.choose(spec.compute.profile, [room.worker for room in online]), online)
    data = known_data(session, project_id, spec, hints)
    network = weights_model(session, project_id, spec)
    made = _make(session, spec, data, place, network)
    profile, room = place.profile, place.room
    known = _known(made.prediction, profile, online)
    return schemas.PlanAnswer(
        plan=_as_in_a_job(made.plan, decided=room is not None) if made.plan is not None else None,
        data_from=data.source,
        profile=profile.name if profile is not None else None,
        device=profile.device if profile is not None else None,
        device_name=room.worker.device_name if room is not None else None,
        hours=_hours(made.prediction),
        cost=_cost(made.prediction, profile),
        search=search_plans.plan_of(session, project_id, spec, known) if spec.search is not None else None,
        queue=_queue(session, project_id, spec, profiles, rooms),
        missing=[*data.missing, *_missing_network(spec, network), *_missing_host(spec, place), *made.missing],
        warnings=[
            *_plan_warnings(spec, made.plan),
            *(_limit_warnings(spec, made.prediction, profile) if spec.search is None else ()),
            *(search_plans.limit_warnings(spec, known) if spec.search is not None else ()),
        ],
    )


def _queue(
    session: Session, project_id: str, spec: JobSpec, profiles: Profiles, rooms: Sequence[Room]
) -> schemas.Queue:
    """Behind those of the project that wait for the same, were it booked now."""
    lane = lanes.lane_of_new(project_id, spec)
    found = waiting.likely(spec.compute.profile, profiles, rooms)
    position = lanes.place_in(session, lane, spec.priority)
    return schemas.Queue(position=position, code=found.code, reason=found.message, looked_at=None)


def _known(prediction: Prediction | None, profile: Profile | None, online: list[Room]) -> Known:
    workers = [room.worker for room in online if room.lends]
    return Known(prediction, profile, workers, SPREAD[prediction.basis if prediction is not None else "none"])


def _likely_place(profile: Profile | None, online: list[Room]) -> Place:
    """Where the dispatcher would put it."""
    serving = [room for room in online if profile is not None and profile.serves(room.worker)]
    return Place(profile, max(serving, key=lambda room: room.unclaimed, default=None))


def _missing_network(spec: JobSpec, network: str | None) -> Iterator[schemas.Missing]:
    if spec.model.weights is not None and network is None and spec.model.name == "auto":
        message = "The network in model.weights is not known here, so that another may be planned than is trained"
        yield schemas.Missing(name="model", assumed=None, message=message, hint="Name it in model.name")


def _missing_host(spec: JobSpec, place: Place) -> Iterator[schemas.Missing]:
    if place.room is None:
        name = place.profile.name if place.profile is not None else spec.compute.profile
        message = f"No online worker offers profile {name}, so that nothing is known of its device"
        hint = "GET /v1/profiles says what is available; start a worker"
        yield schemas.Missing(name="worker", assumed=None, message=message, hint=hint)


def _make(session: Session, spec: JobSpec, data: KnownData, place: Place, network: str | None) -> Made:
    """The algorithm, and where there is a host its compute too; `network` is that of the weights to start from."""
    if place.profile is None or data.facts is None:
        return Made(None, [])
    try:
        plan = choose_plan(spec, data.facts, device=place.profile.device, weights_model=network)
        if place.room is None:
            return Made(plan, [])
        worker = place.room.worker
        host, table = _measured(session, plan, _host(worker, place.profile))
        plan = plan.on(choose_compute(spec.compute, plan, host, table))
    except Failed as problem:
        raise unsupported(problem) from None
    return Made(plan, [_no_probes(worker)] if table is None else [])


def _host(worker: Worker, profile: Profile) -> HostFacts:
    """Cores are those of the job: its slots' share of the host's."""
    cores = max(1, worker.cores // max(1, worker.slots)) * profile.devices
    return HostFacts(
        device=profile.device,
        devices=profile.devices,
        cores=min(worker.cores, cores),
        memory_bytes=worker.memory_bytes,
        cpu_features=worker.cpu_features,
        device_name=worker.device_name,
        device_memory_bytes=worker.device_memory_bytes,
    )


def _measured(session: Session, plan: Plan, host: HostFacts) -> tuple[HostFacts, ProbeTable | None]:
    """The host as some job measured it, with the table of that measurement; without one, what the heartbeat says."""
    variants = [
        host.model_copy(update={"numa_nodes": nodes, "link": link}) for nodes, link in product(NUMA_NODES, LINKS)
    ]
    by_key = {key_of(plan, variant): variant for variant in variants}
    query = select(Probe).where(Probe.key.in_(by_key)).order_by(Probe.updated_at.desc())
    for row in session.scalars(query):
        try:
            return by_key[row.key], ProbeTable.model_validate(row.table)
        except ValidationError:
            continue  # a newer worker's table has fields that this process does not know
    return host, None


def _no_probes(worker: Worker) -> schemas.Missing:
    message = f"This training was never measured on {worker.device_name}; the prediction rests on published figures"
    hint = "The first such job measures it in seconds; after that this answer is exact to about a fifth"
    return schemas.Missing(name="probes", assumed=None, message=message, hint=hint)


def _as_in_a_job(plan: Plan, *, decided: bool) -> JsonObject:
    """As `plan` of a job; without a host nothing about compute is decided yet."""
    facts: JsonObject = plan.report().model_dump(mode="json", exclude={"kind", "seq", "at"})
    if not decided:
        decisions = facts["resolved"].items()
        facts["resolved"] = {name: value for name, value in decisions if not name.startswith("compute.")}
        facts["compute"] = {}
    return facts


def _hours(prediction: Prediction | None) -> schemas.HoursRange | None:
    if prediction is None:
        return None
    low, high = SPREAD[prediction.basis]
    return schemas.HoursRange(low=prediction.hours * low, high=prediction.hours * high)


def _cost(prediction: Prediction | None, profile: Profile | None) -> schemas.CostRange | None:
    if prediction is None or profile is None or not profile.price_per_hour:
        return None
    low, high = (
        costs.price(prediction.hours * HOUR_SECONDS, profile.price_per_hour) * Decimal(str(factor))
        for factor in SPREAD[prediction.basis]
    )
    return schemas.CostRange(low=money(low) or "", high=money(high) or "", currency=profile.currency)


def _plan_warnings(spec: JobSpec, plan: Plan | None) -> Iterator[str]:
    """What only the resolved plan shows."""
    if plan is None:
        return
    yield from plan.compute.warnings
    stopping = spec.training.early_stopping
    patience = stopping.patience if stopping is not None else "auto"
    if patience != "auto" and spec.training.epochs == "auto" and patience >= plan.epochs:
        yield f"training.early_stopping never acts: its patience is not below the {plan.epochs} epochs of the plan"


def _limit_warnings(spec: JobSpec, prediction: Prediction | None, profile: Profile | None) -> Iterator[str]:
    """For each limit that the predicted training does not keep."""
    if prediction is None or profile is None:
        return
    spoken = f"the training is predicted to take {prediction.hours:.3g} h"
    ends = "it ends there with a checkpoint, as a failed job"
    if prediction.hours > spec.compute.max_hours:
        yield f"compute.max_hours is {spec.compute.max_hours:g}, and {spoken}: {ends}"
    most = spec.budget.max_device_hours
    if most is not None and prediction.device_hours > most:
        yield f"budget.max_device_hours is {most:g}, and {spoken} on {profile.devices} devices: {ends}"
    price = costs.price(prediction.hours * HOUR_SECONDS, profile.price_per_hour)
    if spec.budget.max_cost is not None and price > spec.budget.max_cost:
        priced = f"{spoken}, for {money(price)} {profile.currency}"
        yield f"budget.max_cost is {spec.budget.max_cost:f}, and {priced}: {ends}"
