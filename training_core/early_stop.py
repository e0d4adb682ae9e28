"""Early stopping: no new best in the last `patience` evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from training_core.spec import EarlyStopping, is_better


@dataclass
class EarlyStop:
    """Counts the evaluations since the last new best; an evaluation that is NaN brings none.

    `best` and `best_step` belong to the rule (with its `min_delta`); the checkpoint that is kept as the best one
    follows every improvement, however small.
    """

    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0

    def observe(self, value: float, step: int, rule: EarlyStopping) -> bool:
        """Take one evaluation of `rule.metric`; True when training should stop now."""
        if is_better(value, self.best, rule.metric, rule.min_delta):
            self.best, self.best_step, self.evaluations_since_best = value, step, 0
        else:
            self.evaluations_since_best += 1
        return self.evaluations_since_best >= rule.patience
