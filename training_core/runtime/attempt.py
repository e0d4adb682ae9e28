"""One rank's attempt: put everything together, train, and leave exactly one outcome."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from training_core.checkpoints import checkpoint, manager, resume
from training_core.checkpoints.disk_forecast import check_room, checkpoint_bytes
from training_core.contract.errors import Failed, Reason
from training_core.contract.outcome import Outcome, outcome_of
from training_core.contract.redaction import print_error
from training_core.contract.reporter import Reports
from training_core.contract.reports import Started
from training_core.contract.run_dir import EventsFile, Prepared, RunDir, RunSpec
from training_core.data.meta import Meta
from training_core.distributed.agreement import Agreement
from training_core.distributed.gradient_sync import distribute
from training_core.distributed.ranks import Ranks, is_lost_peer, is_silent_peer, join, leave, use_threads
from training_core.efficiency.clock import PhaseClock
from training_core.engine import pbt_exploit
from training_core.engine.accounting import Accounting, seconds_before
from training_core.engine.distillation import read_teacher
from training_core.engine.loop import Ending, fit
from training_core.engine.micro_batches import piece_size
from training_core.engine.objective import Objective
from training_core.engine.precision import make_scaler
from training_core.engine.precision_fallback import follow_state, watch
from training_core.engine.training import Training
from training_core.optimisation.averaging import Ema
from training_core.optimisation.layers import has_batch_norm
from training_core.optimisation.optimizers import make_optimizer
from training_core.planner.plan import Plan, choose_plan
from training_core.planner.recipe import DataFacts
from training_core.preflight import augmentation_check, rate_test
from training_core.preflight.label_check import check_labels
from training_core.runtime.exports import export_models
from training_core.runtime.hosts import agree
from training_core.storage.store import Store, open_store
from training_core.tasks.image_classification.learner import (
    Materials,
    build_network,
    gather,
    make_learner,
    weights_model,
)
from training_core.vision.data_loaders import Statistics
from training_core.vision.dataset_view import Chosen
from training_core.vision.resize import DESCRIPTION

FEW_IMAGES_FOR_BATCH_NORM = 8
# What the outcome says of each.
ENDINGS: dict[Ending, tuple[str, Reason | None]] = {
    "completed": ("completed", None),
    "early_stopped": ("completed", Reason.EARLY_STOPPED),
    "rung_reached": ("completed", Reason.RUNG_REACHED),
    "stopped": ("stopped", None),
}


class Attempt:
    """`run` does all of it; the fields say how far it came, for an outcome that is true."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir, self._prepared = run_dir, run_dir.read_prepared()
        self._clock = PhaseClock(**seconds_before(run_dir, self._prepared))
        self._phase = "preparing"
        self._rank: int | None = None
        self._speaks = True
        self._training: Training | None = None

    def run(self) -> int:
        """The exit code: 0 completed or stopped, 1 failed."""
        try:
            ending = self._train()
        except Exception as error:  # noqa: BLE001  whatever it is, the run says how it ended
            return self._end(error)
        finally:
            leave()
        if self._speaks:
            result, reason = ENDINGS[ending]
            self._run_dir.write_outcome(Outcome(result=result, reason=reason, phase="running", step=self._step))
        return 0

    @property
    def _step(self) -> int:
        return self._training.state.step if self._training else 0

    def _end(self, error: Exception) -> int:
        if is_silent_peer(error):
            error = Failed(Reason.STALLED, f"rank {self._rank} has waited for another rank that does not go on")
        elif is_lost_peer(error):
            # The rank that is gone knows the cause, or whoever started us will say how it died.
            print(f"rank {self._rank} lost another rank", file=sys.stderr)  # noqa: T201  the log is for this
            return 1
        print_error(error)
        outcome = outcome_of(error, phase=self._phase, step=self._step, rank=self._rank)
        self._run_dir.write_outcome(outcome)
        return 0 if outcome.result == "stopped" else 1

    def _train(self) -> Ending:
        run = self._run_dir.read_spec()
        with self._clock.phase("startup"):
            ranks = join(run.device, run.share)
            self._rank = ranks.rank if ranks.world_size > 1 else None
            self._speaks = ranks.first_of_host
            agree(self._run_dir, run, self._prepared, ranks)
            use_threads(self._run_dir.read_plan().threads or run.threads, ranks.world_size)
        events = EventsFile(self._run_dir.events) if ranks.first else None
        reports = Reports(events)
        try:
            with self._clock.phase("startup"):
                self._training = assemble(self._run_dir, run, self._prepared, ranks, reports=reports, clock=self._clock)
            self._phase = "running"
            with Accounting(self._training) as accounting:
                ending = fit(self._training, accounting)
                if ending in {"completed", "early_stopped"}:
                    with self._clock.phase("finish"):
                        check_labels(self._training)
                        export_models(self._training)
            return ending
        finally:
            if self._training is not None:
                self._training.feed.close()
                self._training.checkpoints.end()
            if events is not None:
                events.close()


def assemble(
    run_dir: RunDir, run: RunSpec, prepared: Prepared, ranks: Ranks, *, reports: Reports, clock: PhaseClock
) -> Training:
    """Plan, model, optimizer and state, fresh or from a checkpoint, and the reports that come before the first step."""
    store, data = open_store(run), Chosen(prepared)
    path, content = resume.choose(store, run, reports) if ranks.first else ("", None)
    path = ranks.text_from_first(path)
    if path and content is None:
        content = resume.read_chosen(store, path, run)
    materials = gather(run, data, content, run_dir.stop_requested)
    plan = rate_test.decide(make_plan(run_dir, materials, content), materials, run_dir, ranks, reports)
    plan = augmentation_check.decide(plan, materials, run_dir, ranks, reports)
    if content is not None and content.adopted:
        pbt_exploit.check_alike(path, content, plan, data.meta)
    network = build_network(materials, plan, ranks.device, content)
    reports.say(plan.report())
    learner = make_learner(network, materials, plan, ranks)
    exchange = distribute(learner.trained, plan.compute, ranks)
    about = _about(plan, data.meta, materials.statistics)
    training = Training(
        run_dir=run_dir,
        plan=plan,
        ranks=ranks,
        materials=materials,
        feed=learner.feed,
        normalise=learner.normalise,
        network=network,
        model=learner.trained,
        parallel=learner.trained,
        objective=Objective(plan, read_teacher(run, plan, data.meta.classes, materials.statistics, ranks.device)),
        optimizer=make_optimizer(learner.trained, plan),
        scaler=make_scaler(plan.precision, ranks.device),
        checkpoints=manager.Checkpoints(
            store,
            run,
            reports,
            about,
            device=ranks.device,
            keep_last=plan.keep_last_checkpoints,
            agreement=Agreement(ranks.rank, ranks.world_size if plan.compute.strategy == "fsdp" else 1),
        ),
        reports=reports,
        clock=clock,
    )
    if content is not None:
        go_on(training, content)
    training.exchange, training.parallel = exchange, exchange.parallel
    training.stopwatch = watch(training)
    if ranks.first:
        training.checkpoints.begin(training.state)
        _check_room(training, store)
    reports.say(Started(resumed_from_step=training.state.step, checkpoint=path or None))
    if content is not None and not content.adopted:
        remember(training, store, content)
    _warn(training)
    average(training, content)
    training.model.train()
    return training


def make_plan(run_dir: RunDir, materials: Materials, content: checkpoint.Content | None) -> Plan:
    """The same plan again after a resume, when the weights that it began with may be gone."""
    run, meta, origin = materials.run, materials.data.meta, materials.origin
    images = len(materials.data.splits["train"])
    facts = DataFacts(images, len(meta.classes), meta.channels, meta.image_size, meta.image_size_reason)
    plan = choose_plan(run.spec, facts, device=run.device, weights_model=weights_model(run, origin, content))
    return plan.on(run_dir.read_plan())


def go_on(training: Training, content: checkpoint.Content) -> None:
    """From where `content` was written, exactly, or with parameters of our own; the network has its weights already."""
    if content.adopted:
        donor = make_plan(training.run_dir, pbt_exploit.of_donor(training.materials, content), content)
        pbt_exploit.adopt(training, content, donor)
    else:
        restore(training, content)


def remember(training: Training, store: Store, content: checkpoint.Content) -> None:
    """Tell the curves so far once more, and find the best model so far."""
    reports, run = training.reports, training.materials.run
    reports.repeat(content.history)
    training.best_weights = resume.best_weights(store, run, content)
    if training.state.best_checkpoint and training.best_weights is None:
        reports.alert("checkpoint_damaged", f"the best model {training.state.best_checkpoint} is gone")


def restore(training: Training, content: checkpoint.Content) -> None:
    """Continue exactly where `content` was written; the network has its weights already."""
    checkpoint.restore_optimizer(training.optimizer, content)
    training.scaler.load_state_dict(content.scaler)
    training.state = content.state
    training.seconds_before = content.state.elapsed_seconds
    follow_state(training)


def average(training: Training, content: checkpoint.Content | None) -> None:
    """Begin to average the weights where the plan says so, or go on with the average of a checkpoint."""
    if training.plan.ema_decay is None:
        return
    training.ema = Ema(training.network, training.plan.ema_decay)
    if content is not None:
        training.ema.load(content.model, updates=training.state.step)


def _about(plan: Plan, meta: Meta, statistics: Statistics) -> dict[str, Any]:
    """What someone needs to use the model, and to understand where it comes from."""
    return {
        "task": "image-classification",
        "model": plan.model,
        "classes": meta.classes,
        "preprocessing": {
            "image_size": plan.image_size,
            "channels": plan.channels,
            "resize": DESCRIPTION,
            "mean": statistics.mean,
            "standard_deviation": statistics.deviation,
            "scale": "pixel values 0-255",
        },
        "dataset_version": meta.dataset_version,
        "compute": plan.compute.model_dump(mode="json"),
        "world_size": plan.world_size,
        "torch": torch.__version__,
        "written_at": time.time(),
    }


def _warn(training: Training) -> None:
    """What the plan warns of, but for the small batch, which this rank knows better."""
    for warning in training.plan.compute.warnings:
        code, _, words = warning.partition(": ")
        if code != "small_batch":
            training.reports.alert(code, words)
    images, together = piece_size(training), training.plan.compute.sync_batch_norm
    if together and training.ranks.device.type == "cpu":
        training.reports.alert("no_sync_batch_norm", "batch norm over all ranks exists for GPUs alone")
    if has_batch_norm(training.model) and not together and images < FEW_IMAGES_FOR_BATCH_NORM:
        training.reports.alert(
            "small_batch",
            f"{images} images a device are few for the batch norm of {training.plan.model}",
            images_per_device=images,
        )


def _check_room(training: Training, store: Store) -> None:
    plan = training.plan
    one = checkpoint_bytes(training.judged_weights(), training.optimizer, averaged=plan.ema_decay is not None)
    there = len(training.state.kept)
    keep_last, run_dir, reports = plan.keep_last_checkpoints, training.run_dir, training.reports
    check_room(one, keep_last=keep_last, there=there, store=store, run_dir=run_dir, reports=reports)
