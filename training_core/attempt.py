"""One rank's attempt: put everything together, train, and leave exactly one outcome."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from training_core import checkpoint, keeping
from training_core.clock import PhaseClock
from training_core.data.load import Arrays, Normalise
from training_core.data.prepare import Meta, prepare, read_meta
from training_core.data.sample import split_indices
from training_core.distributed import Ranks, is_lost_peer, join, leave, use_threads
from training_core.events import DataReady, Started
from training_core.failure import outcome_of
from training_core.loop import Training, fit
from training_core.models import has_batch_norm
from training_core.optim import make_optimizer
from training_core.plan import DataFacts, Plan, choose_plan
from training_core.precision import choose_precision, make_scaler
from training_core.reports import Reports
from training_core.rundir import EventsFile, Outcome, RunDir, RunSpec
from training_core.store import open_store
from training_core.tasks import image_classification as task

FEW_IMAGES_FOR_BATCH_NORM = 8


class Attempt:
    """`run` does all of it; the fields say how far it came, for an outcome that is true."""

    def __init__(self, run_dir: RunDir, prepared: Path | None = None, prepare_seconds: float = 0.0) -> None:
        self._run_dir, self._prepared = run_dir, prepared
        self._clock = PhaseClock(started_before_seconds=prepare_seconds)
        self._clock.seconds["prepare"] = prepare_seconds
        self._phase = "preparing"
        self._rank: int | None = None
        self._training: Training | None = None

    def run(self) -> int:
        """The exit code: 0 completed or stopped, 1 failed."""
        try:
            result = self._train()
        except Exception as error:  # noqa: BLE001  whatever it is, the run says how it ended
            return self._end(error)
        finally:
            leave()
        if self._rank in {None, 0}:
            self._run_dir.write_outcome(Outcome(result=result, phase="running", step=self._step))
        return 0

    @property
    def _step(self) -> int:
        return self._training.state.step if self._training else 0

    def _end(self, error: Exception) -> int:
        if is_lost_peer(error):
            # The rank that is gone knows the cause, or whoever started us will say how it died.
            print(f"rank {self._rank} lost another rank", file=sys.stderr)  # noqa: T201  the log is for this
            return 1
        traceback.print_exception(error)
        outcome = outcome_of(error, phase=self._phase, step=self._step, rank=self._rank)
        self._run_dir.write_outcome(outcome)
        return 0 if outcome.result == "stopped" else 1

    def _train(self) -> str:
        run = self._run_dir.read_spec()
        with self._clock.phase("startup"):
            ranks = join(run.device)
            use_threads(run.threads, ranks.world_size)
        self._rank = ranks.rank if ranks.world_size > 1 else None
        with self._clock.phase("prepare"):
            folder, ready = self._prepare(run)
        events = EventsFile(self._run_dir.events) if ranks.first else None
        reports = Reports(events)
        try:
            if ready is not None:
                reports.say(ready)
            with self._clock.phase("startup"):
                self._training = assemble(self._run_dir, run, folder, ranks, reports=reports, clock=self._clock)
            self._phase = "running"
            return fit(self._training)
        finally:
            if events is not None:
                events.close()

    def _prepare(self, run: RunSpec) -> tuple[Path, DataReady | None]:
        if self._prepared is not None:
            return self._prepared, None
        return prepare(run, self._run_dir.stop_requested)


def assemble(
    run_dir: RunDir, run: RunSpec, folder: Path, ranks: Ranks, *, reports: Reports, clock: PhaseClock
) -> Training:
    """Plan, model, optimizer and state, fresh or from a checkpoint, and the reports that come before the first step."""
    meta, splits, arrays = read_meta(folder), split_indices(folder, run.spec), Arrays(folder)
    precision, reason = choose_precision(run.spec.compute.precision, ranks.device)
    facts = DataFacts(len(splits["train"]), len(meta.classes), meta.channels, meta.image_size, meta.image_size_reason)
    plan = choose_plan(
        run.spec, facts, device=run.device, world_size=ranks.world_size, precision=precision, precision_reason=reason
    )
    reports.say(plan.report())
    mean, deviation = arrays.channel_statistics(splits["train"])
    model = task.build(plan).to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    store = open_store(run)
    about = _about(plan, meta, mean, deviation)
    training = Training(
        run_dir=run_dir,
        plan=plan,
        rule=run.spec.training.early_stopping,
        ranks=ranks,
        arrays=arrays,
        splits=splits,
        normalise=Normalise(mean, deviation, ranks.device),
        model=model,
        parallel=model,
        optimizer=make_optimizer(model, plan),
        scaler=make_scaler(plan.precision, ranks.device),
        checkpoints=keeping.Checkpoints(store, run, reports, about),
        reports=reports,
        clock=clock,
    )
    path = ranks.text_from_first(keeping.choose(store, run, reports) if ranks.first else "")
    content = restore(training, checkpoint.read(store, path, run)) if path else None
    reports.say(Started(resumed_from_step=training.state.step, checkpoint=path or None))
    if content is not None:
        reports.repeat(content.history)
        training.best_weights = keeping.best_weights(store, run, content)
        if training.state.best_checkpoint and training.best_weights is None:
            reports.alert("checkpoint_damaged", f"the best model {training.state.best_checkpoint} is gone")
    _warn(training)
    training.parallel = ranks.wrap(model)
    model.train()
    return training


def restore(training: Training, content: checkpoint.Content) -> checkpoint.Content:
    """Continue exactly where `content` was written."""
    training.model.load_state_dict(content.model)
    checkpoint.restore_optimizer(training.optimizer, content.optimizer, content.groups)
    training.scaler.load_state_dict(content.scaler)
    training.state = content.state
    return content


def _about(plan: Plan, meta: Meta, mean: list[float], deviation: list[float]) -> dict[str, Any]:
    """What someone needs to use the model, and to understand where it comes from."""
    return {
        "task": "image-classification",
        "model": plan.model,
        "classes": meta.classes,
        "preprocessing": {
            "image_size": plan.image_size,
            "channels": plan.channels,
            "resize": "cover the square, bilinear with antialiasing, cut at the centre",
            "mean": mean,
            "standard_deviation": deviation,
            "scale": "pixel values 0-255",
        },
        "dataset_version": meta.dataset_version,
        "world_size": plan.world_size,
        "torch": torch.__version__,
        "written_at": time.time(),
    }


def _warn(training: Training) -> None:
    images = training.plan.batch_size // training.ranks.world_size
    if has_batch_norm(training.model) and images < FEW_IMAGES_FOR_BATCH_NORM:
        training.reports.alert(
            "small_batch",
            f"{images} images a device are few for the batch norm of {training.plan.model}",
            images_per_device=images,
        )
