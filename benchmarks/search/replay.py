"""Replays the service's own search over the table of recorded trainings.

    from benchmarks.search.courses import Table
    from benchmarks.search.replay import ours
    ours(Table.read(), seed=100)                                     # as the service decides
    ours(Table.read(), seed=100, pruner={"name": "halving", "reduction_factor": 3})
    ours(Table.read(), seed=100, strategy=MyStrategy())              # another ladder or other moves
    ours(Table.read(), seed=100, trials=100, to_the_end=True)        # what a search costs and finds in all

A whole search takes a few seconds. Seeds below 100 are those that `compete.py` shows: nothing is tuned on them.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from api.book.status import Status
from api.search import decide
from api.search.concurrency import AHEAD
from api.search.ladder import Strategy
from api.search.view import End, Move, Promote, Prune, Start, StudyView, TrialView
from benchmarks.search.courses import Table
from benchmarks.search.pool import WORKERS, Found, Work, choice_of, replay, space_of
from training_core.contract.errors import Reason
from training_core.contract.spec import Search


def ours(
    table: Table,
    seed: int,
    *,
    strategy: Strategy | None = None,
    workers: int = WORKERS,
    to_the_end: bool = False,
    **search: Any,
) -> Found:
    """The service's own decisions; `search` are fields of the spec, `trials` all of the grid unless given."""
    wanted = Search.model_validate({"space": space_of(table), "trials": len(table.courses), "seed": seed, **search})
    other = patch.object(decide, "strategy_of", lambda _: strategy) if strategy is not None else nullcontext()
    with other:
        return replay(table, Ours(table, wanted, workers), workers=workers, to_the_end=to_the_end)


class Ours:
    """`api.search.decide` over a book that is a list; as in the service some trials are decided ahead of free workers,
    and those that go on are carried out before new ones."""

    def __init__(self, table: Table, search: Search, workers: int) -> None:
        self._table, self._search, self._workers = table, search, workers
        self._trials: list[TrialView] = []
        self._going_on: list[Work] = []
        self._new: list[Work] = []
        self._ended = False

    def next(self) -> Work | None:
        while not self._ended and (moves := self._decide()):
            for move in moves:
                self._carry_out(move)
        queue = self._going_on or self._new
        return queue.pop(0) if queue else None

    def _decide(self) -> list[Move]:
        room = self._workers + AHEAD - sum(one.busy for one in self._trials)
        return decide.decide(StudyView(self._search, self._trials), room)

    def _carry_out(self, move: Move) -> None:
        match move:
            case Start(parameters, origin, rung, until, sampler):
                number = len(self._trials)
                trial = TrialView(number, Status.QUEUED, Reason.SUBMITTED, parameters, origin, sampler=sampler)
                self._trials.append(trial)
                self._begin(number, rung, until)
            case Promote(number, rung, until):
                self._begin(number, rung, until)
            case Prune(number):
                self._change(number, status=Status.PRUNED)
            case End():
                self._ended = True
            case _:
                raise ValueError(f"recorded trainings cannot replay {move}")

    def _begin(self, number: int, rung: int | None, until: float | None) -> None:
        trial = self._trials[number]
        self._change(number, status=Status.QUEUED, reason=Reason.PROMOTED, rung=rung, until=until)
        queue = self._going_on if trial.reached else self._new
        queue.append(Work(number, choice_of(self._table, trial.parameters), trial.reached, until or 1.0))

    def done(self, work: Work) -> None:
        trial = self._trials[work.trial]
        if trial.rung is None:
            values = self._table.at(work.choice, 1.0)
            self._change(work.trial, status=Status.SUCCEEDED, reason=Reason.COMPLETED, values=values, reached=1.0)
            return
        values = self._table.at_rung(work.choice, work.last)
        at_rungs = {**trial.at_rungs, trial.rung: values}
        waits = {"status": Status.PAUSED, "reason": Reason.RUNG_REACHED}
        self._change(work.trial, **waits, at_rungs=at_rungs, reached=work.last)

    def _change(self, number: int, **changes: Any) -> None:
        self._trials[number] = replace(self._trials[number], **changes)
