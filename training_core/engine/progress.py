"""Speeds, progress, and how often the ranks consult about what to do next."""

from __future__ import annotations

import time
from dataclasses import dataclass

from training_core.contract.reports import Progress
from training_core.engine.accounting import Accounting
from training_core.engine.training import Training

CONSULT_SECONDS = 0.4
LONG_EPOCH_CHECKPOINT_SECONDS = 180.0
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Wishes:
    stop: bool
    save: bool
    account: bool = False


class Pace:
    """Speeds, and how often the ranks consult: rank 0 looks at the stop file and the clock, the others follow it."""

    def __init__(self, training: Training, accounting: Accounting) -> None:
        self._training, self._accounting = training, accounting
        self._told: tuple[int, float] | None = None
        self._last_speed = 0.0
        self._start_step = training.state.step
        self._started = self._saved_at = self._told_at = time.perf_counter()
        self._measured = (training.state.step, 0.0)
        self._next_consultation = training.state.step + 1
        self.first_step = training.state.step + 1
        self.save_now = False

    def _busy_seconds(self) -> float:
        return self._training.clock.steps_seconds()

    def images_per_second(self) -> float:
        """Since the last call, without evaluations and checkpoints."""
        step, busy = self._training.state.step, self._busy_seconds()
        before_step, before_busy = self._measured
        self._measured = (step, busy)
        return round((step - before_step) * self._training.plan.batch_size / max(busy - before_busy, 1e-9), 2)

    def images_per_second_overall(self) -> float:
        """Of the whole training, also of earlier attempts."""
        return self._training.state.images_seen / max(self._training.steps_seconds, 1e-9)

    def consult(self) -> Wishes:
        """What to do at this step boundary. Between consultations only what all ranks know by themselves."""
        state, plan = self._training.state, self._training.plan
        save, self.save_now = self.save_now, False
        if plan.checkpoint_every_steps is not None:
            save = save or state.step % plan.checkpoint_every_steps == 0
        if state.step < self._next_consultation:
            return Wishes(stop=False, save=save)
        now = time.perf_counter()
        due = plan.checkpoint_every_steps is None and now - self._saved_at > LONG_EPOCH_CHECKPOINT_SECONDS
        seconds_per_step = (now - self._started) / (state.step - self._start_step)
        steps = min(500, max(1, int(CONSULT_SECONDS / seconds_per_step)))
        wishes = [self._training.run_dir.stop_requested(), due, self._accounting.is_due]
        self._training.meter.lap("loop")
        steps, *agreed = self._training.ranks.from_first([steps, *map(int, wishes)])
        stop, due, account = map(bool, agreed)
        self._training.meter.agreed()
        self._next_consultation = state.step + steps
        self._accounting.tracer.look()
        return Wishes(stop=stop, save=save or due, account=account)

    def saved(self) -> None:
        self._saved_at = time.perf_counter()

    def tell_progress(self, images_per_second: float) -> None:
        """Now and then, and at the last step."""
        self._last_speed = images_per_second
        now = time.perf_counter()
        if now - self._told_at < PROGRESS_SECONDS and self._training.state.step < self._training.last_step:
            return
        self._told_at = now
        self._tell()

    def tell_last_step(self) -> None:
        """However the training ends here, its progress is that of its last step; nothing where that is known."""
        if self._training.state.step > 0 and self._told != (self._training.state.step, self._training.fraction):
            self._tell()

    def _tell(self) -> None:
        state, fraction = self._training.state, self._training.fraction
        self._told = (state.step, fraction)
        seconds_per_step = (time.perf_counter() - self._started) / max(1, state.step - self._start_step)
        left = 0 if fraction == 1.0 else self._training.last_step - state.step
        self._training.reports.say(
            Progress(
                step=state.step,
                epoch=round(self._training.epoch, 6),
                fraction=fraction,
                images_per_second=self._last_speed,
                eta_seconds=round(seconds_per_step * left, 2),
            )
        )
