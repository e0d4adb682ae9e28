"""A search played through without a service: trials reach rungs, fail, get lost, and report late, in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from api.book.status import Status
from api.search.ladder import strategy_of
from api.search.view import Adopt, Promote, Prune, StudyView, TrialView
from training_core.contract.errors import Reason
from training_core.contract.spec import Search

METRIC = "validation/accuracy"
SPACE = {
    "training.optimizer.learning_rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "training.optimizer.weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
    "training.epochs": {"type": "int", "low": 1, "high": 9},
    "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
}


def make_search(**given: object) -> Search:
    return Search.model_validate({"space": SPACE, **given})


def make_trial(number: int, *, rung: int | None, score: dict[int, float], **given: object) -> TrialView:
    """One that waits at `rung`, unless something else is said."""
    known: dict[str, object] = {
        "status": Status.PAUSED, "reason": Reason.RUNG_REACHED, "parameters": {}, "checkpoint": f"{number}"
    }  # fmt: skip
    at_rungs = {at: {METRIC: value} for at, value in score.items()}
    return TrialView(number=number, rung=rung, at_rungs=at_rungs, **{**known, **given})  # type: ignore[arg-type]


@dataclass
class Chances:
    """That an attempt ends so, instead of where it goes."""

    fail: float = 0.0
    lose: float = 0.0
    late: float = 0.0  # it reports, and is lost before its end is booked
    void: float = 0.0  # it reports no value
    stop_early: float = 0.0


@dataclass
class Played:
    """`passes` are all views that moves were asked for, with the answer; `spent` is in whole trainings.

    `absent` trials have no point in the space.
    """

    search: Search
    seed: int
    workers: int = 2
    chances: Chances = field(default_factory=Chances)
    trials: list[TrialView] = field(default_factory=list)
    passes: list[tuple[StudyView, Sequence[Promote | Adopt | Prune]]] = field(default_factory=list)
    spent: float = 0.0
    absent: int = 0

    def __post_init__(self) -> None:
        self.dice = Random(self.seed)
        self.strategy = strategy_of(self.search)
        self.quality = Random(self.seed + 1)

    @property
    def view(self) -> StudyView:
        return StudyView(self.search, tuple(self.trials), absent=self.absent)

    def play(self) -> Played:
        """Until nothing is open and nothing is to come. Raises AssertionError when it comes to a stand."""
        while True:
            moved = self._decide()
            busy = [one for one in self.trials if one.busy]
            if busy:
                self._come(self.dice.choice(busy[: self.workers]))
            elif not moved:
                break
        assert self.view.to_come == 0
        assert not any(one.open for one in self.trials), "trials wait, and nothing is done with them"
        return self

    def _decide(self) -> bool:
        view = self.view
        moves = self.strategy.moves(view)
        self.passes.append((view, moves))
        room = self.workers + self.dice.randint(0, 2) - sum(one.busy for one in self.trials)
        for move in moves:
            if isinstance(move, Prune):
                self._set(move.trial, status=Status.PRUNED, reason=Reason.PRUNED)
            elif room > 0:
                room -= 1
                self._go_on(move)
        while room > 0 and self.view.to_come > 0:
            room -= 1
            self._start()
        return view.trials != tuple(self.trials)

    def _go_on(self, move: Promote | Adopt) -> None:
        common = {"status": Status.QUEUED, "reason": Reason.PROMOTED, "rung": move.rung, "until": move.until}
        if isinstance(move, Promote):
            self._set(move.trial, **common)
        else:
            source = self.trials[move.source]
            self._set(
                move.trial, parameters=move.parameters, checkpoint=source.checkpoint, reached=source.reached, **common
            )

    def _start(self) -> None:
        ladder = self.strategy.ladder(self.view)
        rung, until = (0, ladder[0]) if len(ladder) > 1 else (None, None)
        parameters = {
            "training.optimizer.learning_rate": 10 ** self.dice.uniform(-4, 0), "training.epochs": 5,
            "training.optimizer.weight_decay": self.dice.uniform(0, 0.1), "training.optimizer.name": "sgd",
        }  # fmt: skip
        self.trials.append(
            TrialView(len(self.trials), Status.QUEUED, Reason.SUBMITTED, parameters, rung=rung, until=until)
        )

    def _come(self, trial: TrialView) -> None:
        chance, goal = self.dice.random, trial.until or 1.0
        ladder = self.strategy.ladder(self.view)
        if chance() < self.chances.lose:
            self._set(trial.number, status=Status.QUEUED, reason=Reason.WORKER_LOST)
            return
        self.spent += max(0.0, goal - trial.reached) if trial.rung not in trial.at_rungs else 0.0
        if chance() < self.chances.fail:
            self._set(trial.number, status=Status.FAILED, reason=Reason.NAN_LOSS)
        elif trial.rung is None or chance() < self.chances.stop_early:
            values = {METRIC: self._score(trial, len(ladder) - 1)}
            self._set(trial.number, status=Status.SUCCEEDED, reason=Reason.COMPLETED, values=values, reached=1.0)
        else:
            self._report(trial, trial.rung, goal)

    def _report(self, trial: TrialView, rung: int, goal: float) -> None:
        void = rung not in trial.at_rungs and self.dice.random() < self.chances.void
        values = {} if void else {METRIC: self._score(trial, rung)}
        late = self.dice.random() < self.chances.late
        status, reason = (Status.QUEUED, Reason.WORKER_LOST) if late else (Status.PAUSED, Reason.RUNG_REACHED)
        at_rungs = {**trial.at_rungs, rung: trial.at_rungs.get(rung, values)}
        self._set(
            trial.number, status=status, reason=reason, at_rungs=at_rungs, reached=goal, checkpoint=f"{trial.number}"
        )

    def _score(self, trial: TrialView, rung: int) -> float:
        """Rises along the ladder to what the trial is worth, with less and less noise; few values, so that some tie."""
        worth = Random(f"{self.seed} {trial.number}").random()
        noise = Random(f"{self.seed} {trial.number} {rung}").gauss(0, 0.3 / (rung + 1))
        return round(worth * (1 - math.exp(-(rung + 1))) + noise, 2)

    def _set(self, number: int, **changes: object) -> None:
        self.trials[number] = replace(self.trials[number], **changes)  # type: ignore[arg-type]


def check_moves(played: Played) -> None:
    """What holds for every strategy: each move is for a trial that waits, one each, and the same when asked again."""
    ladder = played.strategy.ladder(played.view)
    for view, moves in played.passes:
        waiting = {one.number: one for one in view.trials if one.waits}
        assert len({move.trial for move in moves}) == len(moves)
        assert {move.trial for move in moves} <= set(waiting)
        for move in moves:
            assert move.why
            if not isinstance(move, Prune):
                _check_goal(move, waiting[move.trial], ladder)
    for view, moves in played.passes[:: max(1, len(played.passes) // 10)]:
        assert list(strategy_of(played.search).moves(view)) == list(moves)


def _check_goal(move: Promote | Adopt, trial: TrialView, ladder: Sequence[float]) -> None:
    assert (move.rung is None) == (move.until is None)
    if move.rung is not None:
        assert move.until == ladder[move.rung]
        assert move.rung > (trial.rung or 0)
        assert move.until > trial.reached
    if isinstance(move, Promote):
        values = trial.at_rungs.get(-1 if trial.rung is None else trial.rung, {})
        assert math.isfinite(values.get(METRIC, math.nan)), "a trial without a value goes on"
