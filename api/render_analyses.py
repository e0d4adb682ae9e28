"""What all trials of a search say together, as the answers of the API."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api import schemas
from api.book.models import Job
from api.search import columns, history, pareto
from api.search import importance as importances
from api.search.columns import AtRungs, Columns
from api.search.history import Spent
from api.search.importance import Importance
from training_core.contract.spec import AnyParameter, CategoricalParameter, Objective, Scalar, Search
from training_core.contract.spec.search import Direction

NO_RUNGS = AtRungs([], [], [])


def _direction(objective: Objective) -> Direction:
    return "maximize" if objective.maximize else "minimize"


def importance(session: Session, row: Job, search: Search) -> schemas.ImportanceAnswer:
    """Nothing is pruned by several objectives, so that rungs say something of one alone."""
    trials, rungs = columns.columns_of(session, row.id, search), NO_RUNGS
    if len(search.objectives) == 1:
        rungs = columns.at_highest_rungs(session, row.id, search.objectives[0].metric)
    points = importances.points_of(search, trials)
    found = [importances.importance(search, one, trials, rungs, points) for one in search.objectives]
    tables = [_table(objective, one) for objective, one in zip(search.objectives, found, strict=True)]
    return schemas.ImportanceAnswer(job_id=row.id, data=tables)


def _table(objective: Objective, found: Importance) -> schemas.ImportanceTable:
    return schemas.ImportanceTable(
        metric=objective.metric,
        direction=_direction(objective),
        trials=found.trials,
        finished=found.finished,
        parameters=[
            schemas.ParameterImportance(parameter=name, importance=value) for name, value in found.parameters.items()
        ],
        reason=found.reason,
    )


def pareto_front(session: Session, row: Job, search: Search) -> schemas.ParetoAnswer:
    trials = columns.columns_of(session, row.id, search, finished_only=True)
    losses = list(zip(*(_losses(one, trials) for one in search.objectives), strict=True))
    front = pareto.front(losses)
    return schemas.ParetoAnswer(
        job_id=row.id,
        objectives=[schemas.ObjectiveAnswer(metric=one.metric, direction=_direction(one)) for one in search.objectives],
        trials=len(losses),
        data=[_point(trials, place) for place in front],
    )


def _losses(objective: Objective, trials: Columns) -> list[float]:
    sign = -1.0 if objective.maximize else 1.0
    return [sign * value for value in trials.values[objective.metric] if value is not None]


def _point(trials: Columns, place: int) -> schemas.ParetoPoint:
    return schemas.ParetoPoint(
        trial=trials.numbers[place],
        values={metric: column[place] for metric, column in trials.values.items()},
        parameters={name: column[place] for name, column in trials.parameters.items()},
    )


def parallel_coordinates(session: Session, row: Job, search: Search) -> schemas.ParallelCoordinatesAnswer:
    trials = columns.columns_of(session, row.id, search)
    return schemas.ParallelCoordinatesAnswer(
        job_id=row.id,
        trials=trials.numbers,
        statuses=trials.statuses,
        reached=trials.reached,
        parameters=[_dimension(name, search.space[name], values) for name, values in trials.parameters.items()],
        objectives=[
            schemas.ValueColumn(metric=by.metric, direction=_direction(by), values=trials.values[by.metric])
            for by in search.objectives
        ],
    )


def _dimension(name: str, parameter: AnyParameter, values: Sequence[Scalar]) -> schemas.Dimension:
    if isinstance(parameter, CategoricalParameter):
        return schemas.Dimension(name=name, type=parameter.type, choices=parameter.choices, values=values)
    return schemas.Dimension(
        name=name, type=parameter.type, low=parameter.low, high=parameter.high, log=parameter.log, values=values
    )


def best_over_time(session: Session, row: Job, search: Search) -> schemas.HistoryAnswer:
    trials = columns.columns_of(session, row.id, search, finished_only=True)
    spent = Spent.over(columns.spendings(session, row.id))
    return schemas.HistoryAnswer(job_id=row.id, data=[_history(one, trials, spent) for one in search.objectives])


def _history(objective: Objective, trials: Columns, spent: Spent) -> schemas.ObjectiveHistory:
    metric, maximize = objective.metric, objective.maximize
    known = [
        (number, ended or 0.0, value)
        for number, ended, value in zip(trials.numbers, trials.ended, trials.values[metric], strict=True)
        if value is not None
    ]
    by_end, values = sorted(known, key=lambda one: one[1]), [value for _, _, value in known]
    return schemas.ObjectiveHistory(
        metric=metric,
        direction=_direction(objective),
        by_number=schemas.ByNumber(
            trials=[number for number, _, _ in known],
            values=values,
            best=history.best_so_far(values, maximize=maximize),
        ),
        by_device_seconds=schemas.ByDeviceSeconds(
            device_seconds=[round(spent.at(ended), 3) for _, ended, _ in by_end],
            trials=[number for number, _, _ in by_end],
            best=history.best_so_far((value for _, _, value in by_end), maximize=maximize),
        ),
    )
