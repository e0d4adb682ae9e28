"""Hyperband as Optuna has it (`HyperbandPruner`), asked through a study in memory that is built from the view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import optuna
from optuna.pruners._successive_halving import _completed_rung_key
from optuna.trial import TrialState, create_trial

from api.search.rungs import Ladder, Standing, geometric, named, next_stop
from api.search.view import Promote, Prune, StudyView, TrialView
from training_core.contract.spec import Search

WHOLE = 125  # first rungs in a whole training: four brackets by the default factor


class Hyperband:
    """Optuna deals each trial a bracket by its number; in bracket b nothing is decided before rung b."""

    def __init__(self, search: Search) -> None:
        first = search.pruner.first_rung
        self.factor = search.pruner.reduction_factor
        self.whole = WHOLE if first == "auto" else max(1, int(1 / first))
        self.rungs = geometric(1 / self.whole, self.factor)
        self.name = f"search {search.seed}"

    def ladder(self, view: StudyView) -> Ladder:  # noqa: ARG002 - it is the same whoever asks
        return self.rungs

    def moves(self, view: StudyView) -> Sequence[Promote | Prune]:
        """One for each trial that waits, those nearest to their end first."""
        waiting = sorted((one for one in view.trials if one.waits), key=lambda one: (-(one.rung or 0), one.number))
        if not waiting:
            return []
        asked = _Asked(self, view)
        moves = [self._decide(asked, view, one) for one in waiting]
        return sorted(moves, key=lambda move: isinstance(move, Prune))

    def _decide(self, asked: _Asked, view: StudyView, trial: TrialView) -> Promote | Prune:
        rung, bracket = trial.rung or 0, asked.brackets[trial.number]
        mates = [one for one in view.trials if asked.brackets[one.number] == bracket]
        at = Standing.at(replace(view, trials=mates), rung)
        void = {move.trial: move for move in at.without_value(self.rungs)}
        if trial.number in void:
            return void[trial.number]
        of = f"in bracket {bracket} of {asked.count}"
        if asked.prunes(trial):
            return Prune(trial.number, f"{at.place(trial, self.rungs)} {of}; the best in {self.factor} go on")
        why = f"{at.place(trial, self.rungs)} {of}; it goes on"
        if rung < bracket:
            why = f"{named(rung, self.rungs)}: nothing is decided here {of}"
        return Promote(trial.number, *next_stop(self.rungs, trial), why)


class _Asked:
    """Optuna's pruner before a study that has come as far as the view: what it noted then is derived again."""

    def __init__(self, rules: Hyperband, view: StudyView) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study in memory is no news
        self.pruner = optuna.pruners.HyperbandPruner(1, rules.whole, rules.factor)
        self.study = optuna.create_study(study_name=rules.name, direction="maximize", pruner=self.pruner)
        self.pruner._try_initialization(self.study)
        self.count = len(self.pruner._pruners)
        self.places = {one.number: place for place, one in enumerate(view.trials)}
        self.brackets = {one.number: self._add(view, one, rules.factor) for one in view.trials}

    def _add(self, view: StudyView, trial: TrialView, factor: int) -> int:
        """The bracket of the trial."""
        scores = {rung: view.score(values) for rung, values in trial.at_rungs.items()}
        frozen = create_trial(
            state=TrialState.RUNNING, intermediate_values={factor**rung: score for rung, score in scores.items()}
        )
        frozen.number = self.places[trial.number]
        bracket = self.pruner._get_bracket_id(self.study, frozen)
        decided = {rung: score for rung, score in scores.items() if rung >= bracket and not _undecided(trial, rung)}
        frozen.system_attrs = {_completed_rung_key(rung - bracket): score for rung, score in decided.items()}
        self.study.add_trial(frozen)
        return bracket

    def prunes(self, trial: TrialView) -> bool:
        frozen = self.study.get_trials(deepcopy=False)[self.places[trial.number]]
        return self.pruner.prune(self.study, frozen)


def _undecided(trial: TrialView, rung: int) -> bool:
    return trial.waits and trial.rung == rung
