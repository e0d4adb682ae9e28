"""The efficiency account of an attempt, kept while it trains."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import TracebackType

import torch

from training_core.contract.reports import Claimed, Efficiency, decode
from training_core.contract.run_dir import Prepared, RunDir, complete_lines
from training_core.efficiency.alerts import Alerts
from training_core.efficiency.clock import STEPS, PhaseClock
from training_core.efficiency.energy import EnergyMeter, Gpus, Rapl
from training_core.efficiency.host import Host, peak_memory_bytes
from training_core.efficiency.meter import Meter
from training_core.efficiency.model import Account
from training_core.efficiency.ranks import Stragglers, gather
from training_core.efficiency.stall import StallWatch
from training_core.efficiency.verdict import judge
from training_core.engine.account_numbers import Seen, numbers_of, step_shares
from training_core.engine.profiler import Tracer
from training_core.engine.synthetic_bound import HeldBack
from training_core.engine.training import Training
from training_core.vision.prefetch import Batch, Loader

FIRST_REPORT_SECONDS, REPORT_SECONDS = 2.0, 10.0
# Gauges are points of curves: few of them, and fewer as the run gets longer.
GAUGES_SHARE_OF_RUN = 0.01
LAPS_TO_TIME = 200
WORK = ("data_wait", "transfer", "compute", "optimizer")


def seconds_before(run_dir: RunDir, prepared: Prepared) -> dict[str, float]:
    """What an attempt took before its ranks came up: `prepare`, and `waiting` for devices and for processes."""
    seconds = {"prepare": prepared.seconds}
    first = next(complete_lines(run_dir.events, 0), None)
    claimed = decode(first[0]) if first is not None else None
    if isinstance(claimed, Claimed):
        seconds["waiting"] = max(0.0, time.time() - claimed.at - prepared.seconds)
    return seconds


class Accounting:
    """Watches the steps of one rank; rank 0 reports. Around the loop and what follows: the end is the last report."""

    def __init__(self, training: Training) -> None:
        self._training, self._clock = training, training.clock
        self._host = Host()
        self._began = self._host.cpu()
        self.seen = Seen(first_step=training.state.step, cores=max(1, len(self._host.cores)))
        cuda = training.ranks.device.type == "cuda"
        self._gpus = Gpus(_local_ranks()) if training.ranks.first and cuda else None
        self._energy = EnergyMeter(self._gpus, Rapl()) if training.ranks.first else None
        self._stragglers, self._gathered = Stragglers(), dict.fromkeys(WORK, 0.0)
        self._gathered_step = training.state.step
        self._watch = StallWatch()
        self._last_step: tuple[float, int] | None = None
        self._started = self._gauged_at = time.perf_counter()
        self._due_at = self._started + FIRST_REPORT_SECONDS
        self.seconds_of_a_step = len(STEPS) * _seconds_of_a_lap(training.ranks.device)
        every = training.plan.log_every
        self.alerts = Alerts(training.reports, training.plan.total_steps // every, training.state.step // every)
        self.tracer = Tracer(training)

    def batches(self) -> Iterator[Batch]:
        """Those of the training, from its step on."""
        batches = self._training.feed.training(self._training.state.step)
        if isinstance(batches, Loader):
            self.seen.loader, self.seen.threads_at_start = batches, batches.crew.threads
        self.seen.held_back = HeldBack(self._training, batches, self.pause)
        return iter(self.seen.held_back)

    def step_done(self) -> None:
        """After each step: the longest one, and whether the training stands still."""
        now, interruptions = self._clock.mark, self._clock.interruptions
        seen = self.seen
        if self._last_step is not None and interruptions == self._last_step[1]:
            seconds = now - self._last_step[0]
            seen.longest_step_seconds = max(seen.longest_step_seconds, seconds)
            if seconds > self._watch.patience:
                self._stood_still(seconds)
        self._last_step = (now, interruptions)
        if self._watch.is_due(now):
            self._watch.wind(self._mean_step())
        seen.metering_seconds += self.seconds_of_a_step
        if self.tracer.is_complete:
            self._finish_trace()

    def _finish_trace(self) -> None:
        self.pause()
        with self._clock.phase("other"):
            self.tracer.finish()

    def judged(self) -> None:
        """After each evaluation."""
        state, images = self._training.state, self._training.feed.images("validation")
        self.seen.evaluated_images += images // self._training.ranks.world_size
        self.seen.evaluate_seconds = self._clock.seconds["evaluate"]
        if (loss := state.latest_metrics.get("validation/loss")) is not None:
            self.alerts.validation_loss(state.step, loss)

    def _mean_step(self) -> float:
        return self._clock.steps_seconds() / max(1, self._training.state.step - self.seen.first_step)

    def _stood_still(self, seconds: float) -> None:
        self.seen.stalled_seconds += seconds
        self.alerts.stalled(self._training.state.step, seconds, self._mean_step())

    def pause(self) -> None:
        """What comes now is no step: an evaluation, a checkpoint, a trace, batches that are fetched and held back."""
        self._watch.pause()

    @property
    def is_due(self) -> bool:
        """Rank 0 decides when all tell each other how they are."""
        return time.perf_counter() >= self._due_at

    def exchange(self) -> None:
        """All ranks at the same step: who is slow, what they use. Rank 0 reports the account so far."""
        begun = time.perf_counter()
        self._due_at = begun + REPORT_SECONDS
        self._gather()
        if self._training.ranks.first:
            self._tell(final=False)
            self._gauge()
        self.seen.metering_seconds += time.perf_counter() - begun

    def _gather(self) -> None:
        """Each rank's work since the last time, its CPU seconds since the first step, and its memory."""
        device = self._training.ranks.device
        seconds = step_shares(self._clock.seconds, self._training.meter.device_seconds)
        new = {name: seconds[name] - self._gathered[name] for name in WORK}
        steps = self._training.state.step - self._gathered_step
        self._gathered, self._gathered_step = seconds, self._training.state.step
        self.seen.cpu = self._host.cpu().since(self._began)
        peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory_bytes()
        mine = [sum(new.values()), new["data_wait"], self.seen.cpu.used, float(peak)]
        work, data, used, memory = zip(*gather(self._training.ranks, mine), strict=True)
        if steps > 0:
            self._stragglers.add(steps, list(work), list(data))
        self.seen.ranks = self._stragglers.times()
        self.seen.used, self.seen.peak_bytes = sum(used[: _local_ranks()]), int(max(memory))

    def _tell(self, *, final: bool) -> None:
        if self._energy is not None:
            self.seen.energy = self._energy.read()
        if self._gpus is not None:
            self._gpus.sample()
            self.seen.gpu, self.seen.gpu_missing_because = self._gpus.seen(), self._gpus.missing_because
        elif self._training.ranks.device.type == "cpu":
            self.seen.gpu_missing_because = "this training runs on a CPU"
        numbers = numbers_of(self._training, self.seen)
        account = Account(**numbers.model_dump(), verdict=judge(numbers))
        self.alerts.account(account)
        self._training.reports.say(Efficiency(step=account.step, final=final, account=account.model_dump(mode="json")))

    def _gauge(self) -> None:
        now = time.perf_counter()
        if now - self._gauged_at < max(REPORT_SECONDS, GAUGES_SHARE_OF_RUN * (now - self._started)):
            return
        self._gauged_at = now
        values = self._host.gauges() | (self._gpus.sample() if self._gpus is not None else {})
        self._training.reports.metric(self._training.state.step, self._training.epoch, values)

    def steps_end(self) -> None:
        """All ranks, after the last step."""
        self._finish_trace()
        self._gather()

    def __enter__(self) -> Accounting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The account as it is in the end, also of a run that failed."""
        self.pause()
        if self._training.ranks.first:
            self._tell(final=True)


def _local_ranks() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _seconds_of_a_lap(device: torch.device) -> float:
    """Measured, on a meter that nobody reads."""
    meter = Meter(PhaseClock(), device, 1)
    started = time.perf_counter()
    for _ in range(LAPS_TO_TIME):
        meter.lap("compute")
    return (time.perf_counter() - started) / LAPS_TO_TIME
