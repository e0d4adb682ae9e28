"""One optimizer step of one process: pieces, clipping, loss scaling, and half precision that is slow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.stepping import batch_of, make_training, one_step
from training_core.contract.compute_plan import ComputePlan, Prediction
from training_core.contract.errors import Failed, is_out_of_memory
from training_core.contract.reports import AlertRaised
from training_core.distributed.blocks import blocks, save_activations_at_blocks
from training_core.engine import oom_history
from training_core.engine.micro_batches import cut, number_of_pieces, piece_size, smaller
from training_core.engine.precision import MEASURED_STEPS, UNMEASURED_STEPS
from training_core.engine.precision_fallback import watch
from training_core.engine.step import seed, train_step
from training_core.planner.combinations import check_combination
from training_core.vision.augment.mix import Mixed
from training_core.vision.networks import make_model

PREDICTION: dict[str, Any] = {
    "step_seconds": 1.0, "compute_seconds": 1.0, "data_seconds": 0.0, "images_per_second": 1.0, "memory_bytes": 1,
    "memory_limit_bytes": 1, "hours": 1.0, "device_hours": 1.0, "basis": "probes",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses(folder: Path, steps: int = 4, **changes: Any) -> list[float]:
    training = make_training(folder, **changes)
    return [one_step(training) for _ in range(steps)]


@pytest.mark.parametrize("size", [1, 5, 8])
def test_pieces_add_up_to_the_batch(tmp_path: Path, size: int) -> None:
    mixed = {"augmentation": {"preset": "none", "mixup": 0.4}}
    whole = losses(tmp_path, **mixed)
    assert losses(tmp_path, compute={"micro_batch_size": size}, **mixed) == pytest.approx(whole, rel=1e-5)


def test_the_last_image_stands_in_where_a_rank_has_fewer_images_than_pieces() -> None:
    mixed = Mixed(torch.arange(2.0)[:, None], torch.arange(2), torch.arange(2), 0.5)
    parts = [(piece.labels.tolist(), weight) for piece, weight in cut(mixed, 3)]
    assert sorted(parts, key=lambda part: part[1], reverse=True)[:2] == [([0], 1.0), ([1], 1.0)]
    assert sum(weight for _, weight in parts) == 2


def test_the_last_two_stand_in_where_a_batch_norm_needs_two() -> None:
    """A rank with three images beside one with four, which takes two pieces."""
    mixed = Mixed(torch.arange(3.0)[:, None], torch.arange(3))
    parts = [(piece.labels.tolist(), weight) for piece, weight in cut(mixed, 2, least=2)]
    assert parts == [([0, 1, 2], 1.0), ([1, 2], 0.0)]


def test_a_batch_norm_is_never_given_one_image_alone(tmp_path: Path) -> None:
    network = make_model("resnet18", channels=1, classes=3)
    training = make_training(tmp_path, network=network, compute={"micro_batch_size": 1}, batch_size=5, image_size=32)
    assert (piece_size(training), number_of_pieces(training)) == (1, 2)
    assert one_step(training) > 0


def test_sizes_go_down_in_multiples_of_eight_and_then_one_by_one() -> None:
    sizes: list[int | None] = [100]
    while sizes[-1] is not None:
        sizes.append(smaller(sizes[-1], 1, again=False))
    assert sizes == [100, 80, 64, 48, 32, 24, 16, 8, 4, 2, 1, None]
    assert smaller(100, 1, again=True) == 48
    assert smaller(3, 2, again=False) == 2
    assert smaller(2, 2, again=False) is None


def test_clipping_bounds_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    for compute in ({}, {"micro_batch_size": 3}, {"precision": "fp16"}):
        training = make_training(tmp_path, gradient_clipping=1e-3, compute=compute)
        one_step(training)
        gradients = [parameter.grad for parameter in training.model.parameters() if parameter.grad is not None]
        assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-2)
        assert training.gradient_norm is not None
        assert 0.01 < float(training.gradient_norm) < 100, "it was measured before the scale was taken out"


def test_a_step_that_overflows_is_left_out_and_counts_in_the_schedule(tmp_path: Path) -> None:
    training = make_training(tmp_path, compute={"precision": "fp16"}, gradient_clipping=1.0)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    one_step(training)
    assert (training.state.step, training.state.skipped_steps) == (1, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.network.state_dict().items())
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    one_step(training)
    assert (training.state.step, training.state.skipped_steps) == (2, 1)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in training.network.state_dict().items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_fp32(tmp_path: Path, precision: str) -> None:
    assert losses(tmp_path, compute={"precision": precision}) == pytest.approx(losses(tmp_path), rel=0.02)


def half(folder: Path, fp32_seconds: float, reason: str) -> Any:
    prediction = Prediction(**PREDICTION, fp32_seconds=fp32_seconds)
    reasons = {"compute.precision": reason}
    training = make_training(folder, compute={"precision": "bf16", "prediction": prediction, "reasons": reasons})
    training.stopwatch = watch(training)
    for _ in range(UNMEASURED_STEPS + MEASURED_STEPS):
        assert training.plan.precision == "bf16"
        one_step(training)
    return training


def test_slow_half_precision_is_left_once_with_an_alert(tmp_path: Path) -> None:
    training = half(tmp_path, fp32_seconds=1e-9, reason="probed")
    assert training.plan.precision == training.state.precision == "fp32"
    assert one_step(training) > 0
    [alert] = training.reports.told
    assert isinstance(alert, AlertRaised)
    assert (alert.alert, alert.data["precision"]) == ("slow_precision", "bf16")


@pytest.mark.parametrize(("fp32_seconds", "reason"), [(1e9, "probed"), (1e-9, "as requested")])
def test_half_precision_stays_where_it_is_fast_or_was_asked_for(
    tmp_path: Path, fp32_seconds: float, reason: str
) -> None:
    training = half(tmp_path, fp32_seconds, reason)
    assert training.plan.precision == "bf16"
    assert training.state.precision is None


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    training = make_training(tmp_path)
    training.network[6].register_forward_hook(lambda *_: torch.zeros(1) @ torch.zeros(2))
    with pytest.raises(RuntimeError, match="size"):
        one_step(training)
    words = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
    assert is_out_of_memory(RuntimeError(words))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_one_process_recovers_too_and_gives_up_at_last(tmp_path: Path) -> None:
    training = make_training(tmp_path, batch_size=32)
    sizes: list[int] = []

    def too_many(module: Any, given: Any, made: torch.Tensor) -> None:
        sizes.append(len(made))
        if len(made) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    training.network[3].register_forward_hook(too_many)
    limit = 10
    recovered = one_step(training)
    assert sizes == [32, 24, *[8] * 4] or max(sizes[2:]) <= limit
    assert recovered == pytest.approx(losses(tmp_path, steps=1, batch_size=32)[0], rel=1e-5)
    limit = 0
    with pytest.raises(Failed) as failed:
        one_step(training)
    assert (failed.value.reason, bool(failed.value.hint)) == ("out_of_memory", True)


def test_headroom_is_known_by_kind_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert oom_history.known(tmp_path, "kind", "fp32") is None
    oom_history.remember(tmp_path, "kind", "fp32", ran_out=64, micro_batch_size=48)
    assert oom_history.known(tmp_path, "kind", "fp32") == 48
    assert oom_history.known(tmp_path, "kind", "bf16") is None
    assert oom_history.known(tmp_path, "other", "fp32") is None
    monkeypatch.setattr(oom_history, "FORGET_AFTER_SECONDS", 0.0)
    assert oom_history.known(tmp_path, "kind", "fp32") is None


@pytest.mark.parametrize(
    ("compute", "optimizer", "fields"),
    [
        ({"strategy": "fsdp", "precision": "fp16"}, "adamw", ("compute.precision", "compute.strategy")),
        ({"strategy": "fsdp", "gradient_compression": "fp16"}, "adamw", ("compute.gradient_compression",)),
        ({"strategy": "fsdp"}, "muon", ("training.optimizer", "compute.strategy")),
        ({"gradient_compression": "powersgd", "precision": "fp16"}, "sgd", ("compute.gradient_compression",)),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    compute: dict[str, Any], optimizer: str, fields: tuple[str, ...]
) -> None:
    with pytest.raises(Failed) as failed:
        check_combination(ComputePlan(**compute), optimizer)
    assert failed.value.reason == "unsupported"
    assert all(field in failed.value.message for field in fields)
    assert "set " in (failed.value.hint or "")
    check_combination(ComputePlan(strategy="fsdp", precision="bf16"), "adamw")


def test_blocks_are_computed_twice_without_counting_twice() -> None:
    assert [len(blocks(make_model(name, channels=3, classes=2))) for name in ("resnet18", "small_cnn")] == [8, 0]
    images = torch.rand(4, 3, 32, 32)
    states = []
    for again in (False, True):
        torch.manual_seed(0)
        network = make_model("resnet18", channels=3, classes=2)
        if again:
            save_activations_at_blocks(network)
        network(images).sum().backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        states.append(network.state_dict() | {f"{name}.grad": one for name, one in gradients.items()})
    plain, checkpointed = states
    assert plain.keys() == checkpointed.keys()
    for name, tensor in plain.items():
        if "num_batches_tracked" not in name:
            assert torch.allclose(tensor, checkpointed[name], atol=1e-6), name


def test_a_seed_makes_the_numbers_that_torch_makes_of_it() -> None:
    for number in (0, 1, 2**63 - 1):
        torch.manual_seed(number)
        expected = torch.rand(3)
        seed(number, torch.device("cpu"))
        assert torch.equal(torch.rand(3), expected)


def calls_of(work: Callable[[], object]) -> int:
    """Functions called in Python, or from it."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_a_step_calls_little_beside_what_a_loop_written_by_hand_does(tmp_path: Path) -> None:
    training = make_training(tmp_path)
    batch, model, optimizer = batch_of(training, 0), training.model, training.optimizer

    def by_hand() -> None:
        images, labels = training.normalise(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def ours() -> None:
        train_step(training, batch)

    for _ in range(2):
        by_hand()
        ours()
    hand, mine = calls_of(by_hand), calls_of(ours)
    assert hand > 100
    assert mine - hand < 100
