"""What a person should know while the job goes on, with the evidence and a way out."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean

from training_core.contract.reporter import Reports
from training_core.efficiency.model import Account

VERDICTS = ("data_bound", "communication_bound", "straggler")
LOOKS_TO_RAISE, LOOKS_TO_CLEAR = 2, 3
# The training loss, as a mean over some points of its curve.
SMOOTHED_POINTS = 10
DIVERGED_TIMES, DIVERGED_OF_FIRST, DIVERGED_POINTS = 2.0, 0.1, 10
VALIDATION_TIMES, VALIDATION_RISES = 2.0, 2
PLATEAU_SHARE, PLATEAU_POINTS, PLATEAU_PROGRESS, PLATEAU_BEFORE = 0.25, 40, 0.01, 0.8


class Latch:
    """True once, when a condition has held for some looks; again only after it was gone for some."""

    def __init__(self, raise_after: int = LOOKS_TO_RAISE, clear_after: int = LOOKS_TO_CLEAR) -> None:
        self._raise_after, self._clear_after = raise_after, clear_after
        self._run, self._raised = 0, False

    def look(self, holds: bool) -> bool:
        self._run = self._run + 1 if holds is not self._raised else 0
        if self._run < (self._clear_after if self._raised else self._raise_after):
            return False
        self._raised, self._run = holds, 0
        return holds


class Alerts:
    """`points` are those that the curve of the training loss will have, `done` those that it has from before."""

    def __init__(self, reports: Reports, points: int, done: int = 0) -> None:
        self._reports = reports
        self._verdicts = {kind: Latch() for kind in VERDICTS}
        self._diverged, self._overfitted = Latch(DIVERGED_POINTS), Latch(VALIDATION_RISES)
        self._plateau = Latch(1)
        self._recent: deque[float] = deque(maxlen=SMOOTHED_POINTS)
        self._window: deque[float] = deque(maxlen=max(PLATEAU_POINTS, int(points * PLATEAU_SHARE)))
        self._last_point_for_plateau = PLATEAU_BEFORE * points
        self._points = done
        self._first: float | None = None
        self._best = math.inf
        self._validation: list[float] = []
        self._longest_stall = 0.0

    def account(self, account: Account) -> None:
        """The verdict, where it is one of `VERDICTS` and stays so."""
        verdict = account.verdict
        for kind, latch in self._verdicts.items():
            if latch.look(verdict.kind == kind):
                words = "; ".join(verdict.evidence)
                taken = f" (taken: {verdict.taken})" if verdict.taken else ""
                self._reports.alert(
                    kind, f"{words}. {verdict.remedy}{taken}", step=account.step, lost_fraction=verdict.lost_fraction
                )

    def stalled(self, step: int, seconds: float, mean_seconds: float) -> None:
        """One step took very long and then came to its end; told again when another takes twice as long."""
        if seconds < 2 * self._longest_stall:
            return
        self._longest_stall = seconds
        self._reports.alert(
            "stalled",
            f"step {step} took {seconds:.1f} s where a mean one takes {mean_seconds:.3f} s: the stacks of that time "
            "are in the log; look at the storage of the dataset and at the slowest rank",
            step=step,
            seconds=round(seconds, 2),
        )

    def training_loss(self, step: int, loss: float) -> None:
        """A point of the curve. What is no number is somebody else's alert."""
        if not math.isfinite(loss):
            return
        self._points += 1
        self._recent.append(loss)
        self._window.append(loss)
        if len(self._recent) < SMOOTHED_POINTS:
            return
        mean = fmean(self._recent)
        self._first = mean if self._first is None else self._first
        self._best = min(self._best, mean)
        far = mean > DIVERGED_TIMES * self._best and mean - self._best > DIVERGED_OF_FIRST * self._first
        if self._diverged.look(far):
            self._reports.alert(
                "diverged",
                f"the training loss is {mean:.4g}, {mean / self._best:.1f} times its best ({self._best:.4g}), and has "
                "been for a while; lower training.optimizer.learning_rate, or set training.gradient_clipping",
                step=step,
                loss=mean,
                best=self._best,
            )
        self._look_for_plateau(step)

    def _look_for_plateau(self, step: int) -> None:
        """Not near the end of a schedule, where every loss is flat."""
        if len(self._window) < (self._window.maxlen or 0) or self._points > self._last_point_for_plateau:
            return
        half = len(self._window) // 2
        before, after = fmean(list(self._window)[:half]), fmean(list(self._window)[half:])
        progress = (before - after) / max(before, 1e-12)
        if self._plateau.look(abs(progress) < PLATEAU_PROGRESS and after > DIVERGED_OF_FIRST * (self._first or 0.0)):
            self._reports.alert(
                "plateau",
                f"the training loss went from {before:.4g} to {after:.4g} over the last {len(self._window)} points: "
                "raise training.optimizer.learning_rate, take a larger model, or stop here",
                step=step,
                loss=after,
                progress=progress,
            )

    def validation_loss(self, step: int, loss: float) -> None:
        """Of an evaluation: far above its best, and still rising."""
        if not math.isfinite(loss):
            return
        seen = self._validation
        best, last, first = (min(seen), seen[-1], seen[0]) if seen else (loss, loss, loss)
        seen.append(loss)
        far = loss > VALIDATION_TIMES * best and loss - best > DIVERGED_OF_FIRST * first
        if self._overfitted.look(far and loss > last):
            self._reports.alert(
                "diverged",
                f"the validation loss is {loss:.4g}, {loss / best:.1f} times its best ({best:.4g}), and rises: the "
                "model learns the training images by heart; stop early, or take a stronger "
                "training.augmentation.preset",
                step=step,
                loss=loss,
                best=best,
            )
