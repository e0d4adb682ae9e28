"""A batch norm needs more than one value: batches, ranks and pieces that leave it one are refused with the way out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.plans import make_plan
from training_core.contract.compute_plan import ComputePlan
from training_core.contract.errors import Failed
from training_core.contract.outcome import outcome_of
from training_core.contract.spec import JobSpec
from training_core.contract.spec.batch_norm import least_images
from training_core.contract.spec.compute import Compute
from training_core.contract.spec.conflicts import check_together
from training_core.planner.choose import choose_compute
from training_core.planner.facts import HostFacts
from training_core.planner.plan import choose_plan
from training_core.planner.recipe import DataFacts

GPUS = HostFacts(device="cuda", devices=4, cores=16, memory_bytes=1 << 36, device_memory_bytes=1 << 36, link="nvlink")


def spec_of(model: Any = "resnet18", **training: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file:///nowhere"},
            "model": {"name": model},
            "training": training,
        }
    )


@pytest.mark.parametrize(
    ("model", "side", "least"),
    [("resnet18", 32, 2), ("resnet18", 33, 1), ("small_resnet", 8, 2), ("small_resnet", 9, 1), ("small_cnn", 8, 1)],
)
def test_one_image_is_too_few_where_it_comes_to_one_value(model: str, side: int, least: int) -> None:
    assert least_images(model, "all", side) == least
    assert least_images(model, "head", side) == 1


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_what_the_spec_alone_tells_is_refused_with_its_field(model: str) -> None:
    with pytest.raises(Failed, match="a batch of 1 leaves the batch norms") as refused:
        check_together(spec_of(model, batch_size=1, image_size=32))
    assert refused.value.field == "training.batch_size"
    assert "raise training.batch_size to 2 or more" in (refused.value.hint or "")
    check_together(spec_of(model, batch_size=2, image_size=32))
    check_together(spec_of(model, batch_size=1, image_size=64))


def test_pictures_that_grow_begin_small() -> None:
    growing = {"start": 0.5, "until": 0.5}
    with pytest.raises(Failed, match="pictures of 32 px"):
        check_together(spec_of(batch_size=1, image_size=64, resizing=growing))


def test_what_only_the_data_tells_is_refused_by_the_plan() -> None:
    with pytest.raises(Failed, match="come to 1 x 1"):
        make_plan(model="small_resnet", image_size=8, batch_size=1)
    with pytest.raises(Failed, match="a batch of 1 leaves"):  # the one training image that there is
        choose_plan(spec_of("auto"), DataFacts(1, 2, 3, 8, "as stored"), device="cpu")


def test_so_is_a_batch_whose_ranks_get_one_image() -> None:
    plan = make_plan(model="resnet18", image_size=32, batch_size=3)
    with pytest.raises(Failed, match="a batch of 3, shared by 2 devices, leaves") as refused:
        plan.on(ComputePlan(strategy="ddp", ranks=2))
    assert "raise training.batch_size to 4 or more" in (refused.value.hint or "")
    assert plan.on(ComputePlan(strategy="ddp", ranks=2, sync_batch_norm=True)).world_size == 2
    assert make_plan(model="small_cnn", batch_size=2).on(ComputePlan(strategy="ddp", ranks=2)).world_size == 2


def test_the_planner_takes_fewer_devices_instead() -> None:
    plan = make_plan(model="resnet18", image_size=32, batch_size=4)
    assert choose_compute(Compute(sync_batch_norm=False), plan, GPUS).ranks <= 2


def test_pieces_of_one_image_are_taken_as_two_and_said_so() -> None:
    plan = make_plan(model="resnet18", image_size=32, batch_size=8)
    compute = choose_compute(Compute(strategy="single", micro_batch_size=1), plan, GPUS)
    assert (compute.micro_batch_size, plan.on(compute).report().resolved["compute.micro_batch_size"]) == (2, 2)
    assert "2 images at least" in compute.reasons["compute.micro_batch_size"]


def test_what_slips_through_is_told_in_words() -> None:
    problem = ValueError(
        "Expected more than 1 value per channel when training, got input size torch.Size([1, 8, 1, 1])"
    )
    outcome = outcome_of(problem, phase="running", step=0, rank=None)
    assert (outcome.reason, "ValueError" in (outcome.message or "")) == ("unsupported", False)
    assert "training.batch_size" in (outcome.hint or "")
