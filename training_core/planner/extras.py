"""What is decided once the ranks are: gradient compression, synchronised batch norm, loader threads, compile."""

from __future__ import annotations

import math

from training_core.planner.draft import AS_REQUESTED, Draft, said
from training_core.planner.predict import image_seconds, loading_cores, predict, training_seconds
from training_core.planner.split import FEW_FOR_BATCH_NORM

MUCH_COMMUNICATION = 0.1
SPARE = 1.3  # loader threads beyond what the step needs
COMPILE_PAYS, LONG_RUN_SECONDS = 3.0, 600.0


def choose_extras(draft: Draft) -> Draft:
    return _compile(_loader_threads(_batch_norm(_compression(draft))))


def _compression(draft: Draft) -> Draft:
    wanted, key = draft.wanted.gradient_compression, "gradient_compression"
    if wanted != "auto":
        return draft.pick(key, wanted, AS_REQUESTED)
    if draft.compute.ranks == 1 or draft.compute.strategy != "ddp":
        return draft.pick(key, "none", "no gradients are averaged between ranks")
    if draft.case.together_seconds(draft.compute, draft.compute.share(draft.case.plan.batch_size)) is not None:
        return draft.pick(key, "none", "the step was measured with whole gradients")
    before = predict(draft.case, draft.compute)
    exposed = before.communication_seconds / before.step_seconds
    if exposed <= MUCH_COMMUNICATION:
        return draft.pick(key, "none", f"{exposed:.0%} of a step is exposed communication")
    half = (
        "bf16"
        if draft.case.host.device == "cpu" or (draft.case.host.compute_capability or (0, 0)) >= (8, 0)
        else "fp16"
    )
    after = predict(draft.case, draft.trying(gradient_compression=half))
    words = f"{exposed:.0%} of a step would be exposed communication, {said(after.communication_seconds)} are left"
    chosen = draft.pick(key, half, words)
    left = after.communication_seconds / after.step_seconds
    if left > MUCH_COMMUNICATION:
        message = f"{left:.0%} of a step is still exposed communication"
        return chosen.warn(
            "communication", f"{message}; compute.gradient_compression: powersgd sends less, and loses more"
        )
    return chosen


def _batch_norm(draft: Draft) -> Draft:
    case, compute, key = draft.case, draft.compute, "sync_batch_norm"
    piece = min(compute.share(case.plan.batch_size), compute.micro_batch_size or case.plan.batch_size)
    few = case.work.batch_norm and piece < FEW_FOR_BATCH_NORM and case.plan.trainable == "all"
    warned = f"batch norm sees {piece} images at a time, and {FEW_FOR_BATCH_NORM} are few"
    if draft.wanted.sync_batch_norm != "auto":
        chosen = draft.pick(key, draft.wanted.sync_batch_norm, AS_REQUESTED)
        return chosen.warn("small_batch", warned) if few and not draft.wanted.sync_batch_norm else chosen
    if not few or compute.ranks == 1:
        reason = (
            f"batch norm sees {piece} images of a rank" if case.work.batch_norm else "no batch norm in this network"
        )
        chosen = draft.pick(key, False, reason)
        return chosen.warn("small_batch", f"{warned}; raise training.batch_size") if few else chosen
    if case.host.device == "cpu":
        return draft.pick(key, False, "torch has it for GPUs alone").warn("small_batch", warned)
    return draft.pick(
        key, True, f"{piece} images of a rank are few for batch norm: {piece * compute.ranks} of all ranks"
    )


def _loader_threads(draft: Draft) -> Draft:
    case, key = draft.case, "loader_threads"
    if draft.wanted.loader_threads != "auto":
        return draft.pick(key, draft.wanted.loader_threads, AS_REQUESTED)
    if case.host.device == "cpu":
        return draft.pick(key, 1, "each thread takes a core from the training; more start while batches are late")
    prediction = predict(case, draft.compute)
    images = case.plan.batch_size / prediction.compute_seconds / draft.compute.ranks
    most = int(loading_cores(case, draft.trying(loader_threads=0)) / draft.compute.ranks)
    threads = max(1, min(most, math.ceil(SPARE * images * image_seconds(case))))
    words = f"{images:,.0f} images a second of a rank, {said(image_seconds(case))} of a core for each"
    return draft.pick(key, threads, f"{words}, {most} at most")


def _compile(draft: Draft) -> Draft:
    """Only where it was measured, and saves three times what it costs in a run of more than ten minutes."""
    case, table, key = draft.case, draft.case.table, "compile"
    if draft.wanted.compile != "auto":
        return draft.pick(key, draft.wanted.compile, AS_REQUESTED)
    if table is None or table.compile_gain is None:
        return draft.pick(key, False, "nobody has measured that it pays here")
    epochs = draft.compute.epochs or case.plan.epochs
    plain, compiled = (
        training_seconds(case, draft.compute, draft.step_seconds(compile=one), epochs) for one in (False, True)
    )
    saved = plain - compiled
    pays = saved > COMPILE_PAYS * table.compile_seconds and plain > LONG_RUN_SECONDS
    return draft.pick(key, pays, f"saves {said(max(saved, 0))} and costs {said(table.compile_seconds)}")
