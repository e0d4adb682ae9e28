"""What a compute plan will take: formulas over what was measured or published."""

from __future__ import annotations

import math

from training_core.contract.compute_plan import ComputePlan, Prediction
from training_core.planner.case import Case
from training_core.planner.plan import Plan

# Of a step without its optimizer: two of three operations are the backward pass's, and DDP sends while they go on.
BACKWARD, OVERLAP = 2 / 3, 0.7
# One more forward pass (Chen et al. 2016), and what is left of the kept activations where blocks are recomputed.
RECOMPUTING, KEPT_WHEN_RECOMPUTING = 4 / 3, 0.25
TEACHING = 4 / 3  # a teacher's forward pass, as long as ours
# Of fp32's activations, those that autocast keeps in half precision.
HALF_ACTIVATIONS = 0.6
# FSDP gathers weights twice and scatters gradients: half as much again as the all-reduce of DDP (Zhao et al. 2023).
FSDP_BYTES = 1.5
# Of a step, for each doubling of the ranks: 8 A100 train at 6.72 times the speed of one (NVIDIA DeepLearningExamples).
DOUBLING = 0.06
COMPRESSED = {"none": 1.0, "fp16": 0.5, "bf16": 0.5, "powersgd": 0.1}
# The process with torch, and on a GPU its context, libraries and their workspaces.
CPU_BASE_BYTES, GPU_BASE_BYTES = 400 << 20, 1200 << 20
# The largest layer's kernels beside what is kept, and what the allocator cannot use.
WORKSPACE = 1.15
# CPU seconds in which the data path makes one image, by its pixels: raw ones in memory, and JPEG of more than that.
SMALL_PIXELS, RAW_PIXEL_SECONDS, JPEG_PIXEL_SECONDS = 96 * 96, 1.5e-9, 1.7e-8
LOADER_SHARE = 0.4  # of the cores beside a GPU (SPDL's rule)
START_SECONDS, EVALUATION_SHARE = 2.0, 0.1
# A frozen trunk passes each image once, forward alone, and its head is one small layer.
HEAD_STEP_SECONDS, TRUNK_BATCH = 1e-3, 64


def predict(case: Case, compute: ComputePlan) -> Prediction:
    """Of one step, and of the whole training with its evaluations; see `Prediction` for what the fields mean."""
    plan, host = case.plan, case.host
    pieces = compute.accumulation_steps(plan.batch_size)
    images = compute.share(plan.batch_size) / pieces
    together = case.together_seconds(compute, images)  # measured, and what is exposed of the communication is within
    piece = rank_seconds(case, compute, images) if together is None else together * more_work(case, compute)
    exposed = exposed_seconds(case, compute, piece, pieces)
    computing = pieces * piece + (exposed if together is None else 0.0)
    data = data_seconds(case, compute)
    step = max(computing, data) if host.device == "cuda" else computing + data
    epochs = compute.epochs or plan.epochs
    seconds = training_seconds(case, compute, step, epochs)
    held = host.devices if case.fixed_ranks is None else case.fixed_ranks
    return Prediction(
        step_seconds=step,
        compute_seconds=computing,
        data_seconds=data,
        communication_seconds=exposed,
        images_per_second=plan.batch_size / step,
        memory_bytes=memory_bytes(case, compute, math.ceil(compute.share(plan.batch_size) / pieces)),
        memory_limit_bytes=host.limit_bytes,
        hours=seconds / 3600,
        device_hours=seconds / 3600 * held,
        basis=case.basis,
    )


def rank_seconds(case: Case, compute: ComputePlan, images: float) -> float:
    """Forward, backward and optimizer of one rank on `images`, alone."""
    if case.plan.trainable == "head":
        return HEAD_STEP_SECONDS
    seconds = case.seconds(compute.precision, compute.memory_format, compute.threads, images)
    return seconds * more_work(case, compute) * (1 + DOUBLING * math.log2(compute.ranks))


def more_work(case: Case, compute: ComputePlan) -> float:
    """Times the step that was measured or published."""
    factor = 1.0
    if case.plan.distillation is not None:
        factor *= TEACHING
    if compute.activation_checkpointing:
        factor *= RECOMPUTING
    if compute.compile and case.table is not None and case.table.compile_gain is not None:
        factor *= case.table.compile_gain
    return factor


def exposed_seconds(case: Case, compute: ComputePlan, piece: float, pieces: int) -> float:
    """Of communication, what the backward pass of the last piece does not hide (Li et al. 2020, section 3.2)."""
    if compute.ranks == 1:
        return 0.0
    compressed = int(case.work.gradient_bytes * COMPRESSED[compute.gradient_compression])
    sent = case.all_reduce_seconds(compute.ranks, compressed)
    if compute.strategy == "fsdp":
        return max(0.0, FSDP_BYTES * sent * pieces - OVERLAP * piece * pieces)
    return max(0.0, sent - OVERLAP * BACKWARD * piece)


def data_seconds(case: Case, compute: ComputePlan) -> float:
    """In which all loader threads together make the images of one batch; on a CPU, all cores beside the training."""
    if case.plan.trainable == "head":
        return 0.0
    return case.plan.batch_size * image_seconds(case) / loading_cores(case, compute)


def loading_cores(case: Case, compute: ComputePlan) -> float:
    if case.host.device == "cpu":
        return case.host.cores
    most = max(1, int(case.host.cores * LOADER_SHARE / compute.ranks))
    return compute.ranks * (compute.loader_threads or most)


def image_seconds(case: Case) -> float:
    """CPU seconds for one image."""
    if case.table is not None and case.table.image_seconds is not None:
        return case.table.image_seconds
    pixels = case.plan.image_size**2
    return pixels * (RAW_PIXEL_SECONDS if pixels <= SMALL_PIXELS else JPEG_PIXEL_SECONDS)


def training_seconds(case: Case, compute: ComputePlan, step_seconds: float, epochs: int) -> float:
    """Steps, start, and evaluations of a tenth of the images after each epoch: forward alone, a third of a step."""
    return START_SECONDS + trunk_seconds(case, compute) + epochs * epoch_seconds(case.plan, step_seconds)


def trunk_seconds(case: Case, compute: ComputePlan) -> float:
    """In which all ranks together make the features that a head is trained on."""
    if case.plan.trainable != "head":
        return 0.0
    images = case.plan.steps_per_epoch * case.plan.batch_size * (1 + EVALUATION_SHARE)
    batch = case.seconds("fp32", "channels_last", compute.threads, TRUNK_BATCH) / 3
    made = image_seconds(case) / loading_cores(case, compute)
    return images * (batch / TRUNK_BATCH / compute.ranks + made)


def epoch_seconds(plan: Plan, step_seconds: float) -> float:
    return plan.steps_per_epoch * step_seconds * (1 + EVALUATION_SHARE / 3)


def memory_bytes(case: Case, compute: ComputePlan, images: int) -> int:
    """Of one device at its highest, with `images` in a piece; on a CPU, of all ranks of the host together."""
    base, per_image = memory_line(case, compute)
    ranks = compute.ranks if case.host.device == "cpu" else 1
    return int(ranks * (base + per_image * images))


def memory_line(case: Case, compute: ComputePlan) -> tuple[float, float]:
    """Bytes without any image, and for each: measured where it was, else counted."""
    work = case.work
    sharded = compute.ranks if compute.strategy == "fsdp" else 1
    kept = KEPT_WHEN_RECOMPUTING if compute.activation_checkpointing else 1.0
    measured = (
        next((one for one in case.table.memory if one.precision == compute.precision), None) if case.table else None
    )
    if measured is not None:
        base = measured.base_bytes + work.copies_bytes - work.state_bytes * (1 - 1 / sharded)
        return base, measured.bytes_per_image * kept
    half = compute.precision != "fp32"
    process = CPU_BASE_BYTES if case.host.device == "cpu" else GPU_BASE_BYTES
    state = state_bytes(case, compute)
    return process + state, WORKSPACE * (work.kept_bytes * kept * (HALF_ACTIVATIONS if half else 1) + work.input_bytes)


def state_bytes(case: Case, compute: ComputePlan) -> float:
    """On one device: weights, gradients, optimizer, and the copies that autocast keeps of weights."""
    half = 2 * case.work.parameters if compute.precision != "fp32" else 0
    sharded = compute.ranks if compute.strategy == "fsdp" else 1
    return case.work.state_bytes / sharded + case.work.copies_bytes + half
