"""How far a search is as a whole, and its best trial: what its job shows in place of those of one training."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api import schemas
from api.book.costs import Spent
from api.book.models import Checkpoint, Job
from api.book.status import TERMINAL, Status
from api.search import listing
from training_core.contract.spec import Search


def wanted(search: Search) -> int:
    """How many trials it is to have; a finite space may end it earlier."""
    return search.trials if search.population is None else search.population.size


def ended(row: Job) -> int:
    """How many of its trials are at their end, pruned and failed ones too."""
    counts: dict[str, int] = (row.study or {}).get("counts", {})
    return sum(count for status, count in counts.items() if status in TERMINAL)


def progress(row: Job, search: Search, so_far: Spent) -> schemas.Progress | None:
    """By trials; the time left is that of the trials so far for each one to come, side by side as now."""
    if row.study is None:
        return None
    over, done = row.status in TERMINAL, ended(row)
    trials = done if over else max(wanted(search), done)
    return schemas.Progress(
        fraction=1.0 if over and row.status == Status.SUCCEEDED else done / trials if trials else 0.0,
        eta_seconds=0.0 if over else _seconds_left(row, done, trials, so_far),
        trials_done=done,
        trials=trials,
    )


def _seconds_left(row: Job, done: int, trials: int, so_far: Spent) -> float | None:
    if not done:
        return None
    side_by_side = max(1, (row.study or {}).get("parallel") or 1)
    return round(so_far.seconds / done * (trials - done) / side_by_side, 3)


def best(session: Session, row: Job) -> schemas.Best | None:
    """The best trial so far, by its final values or those at a rung, as the tuner noted it; its checkpoint if kept."""
    noted = (row.study or {}).get("best")
    if noted is None:
        return None
    kept: Checkpoint | None = listing.belongings(session, row.id, [noted["trial"]]).checkpoints.get(noted["trial"])
    metrics = dict(noted["values"])
    return schemas.Best(
        trial=noted["trial"],
        value=metrics.get(_first_metric(row)),
        checkpoint=kept.id if kept is not None else None,
        step=kept.step if kept is not None else None,
        metrics=metrics,
    )


def _first_metric(row: Job) -> str:
    objective = row.spec["search"]["objective"]
    first: str = (objective[0] if isinstance(objective, list) else objective)["metric"]
    return first
