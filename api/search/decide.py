"""What a search does next, from nothing but a view of it: the same view and seed give the same moves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from api.book.status import Status
from api.search.ladder import strategy_of
from api.search.rungs import absent_trials
from api.search.sampler import Asking
from api.search.space import counted_points, key
from api.search.view import Adopt, End, Move, Promote, Prune, Start, StudyView, TrialView
from training_core.contract.errors import Reason

FAILED_ALIKE = 5  # the first trials; when all of them fail for one reason, so will the others
OF_THE_DATA = {
    Reason.DATASET_UNREACHABLE, Reason.DATASET_FORBIDDEN, Reason.DATASET_EMPTY, Reason.DATASET_INVALID,
    Reason.CREDENTIALS_UNKNOWN, Reason.IMAGE_CORRUPT,
}  # fmt: skip
SEED = "training.seed"


def decide(view: StudyView, room: int) -> list[Move]:
    """What becomes of the trials that wait, those that start, at most `room` together, and whether it is over.

    Those that go on come before new ones.
    """
    wanted = view.search.trials
    if (hopeless := _failing_alike(view)) is not None:
        return [hopeless]
    view = bounded(view)
    decided = _decide(view, room)
    if decided.used_up:
        view = replace(view, closed=True)
        decided = _decide(view, room)
    moves: list[Move] = [*decided.pruned, *decided.going_on, *decided.starts]
    pruned = {move.trial for move in decided.pruned}
    if decided.going_on or decided.starts or any(one.open and one.number not in pruned for one in view.trials):
        return moves
    if view.to_come:
        return moves  # there is no room at present
    return [*moves, _last(view, wanted)]


def bounded(view: StudyView) -> StudyView:
    """With no more trials than a space that can be counted has points, so that its rungs are those of so many.

    What the others would have cost is for those that are there.
    """
    points = counted_points(view.search)
    if points is None:
        return view
    known = {key(view.search.space, one.parameters) for one in (*view.earlier, *view.trials)}
    most = min(view.search.trials, len(view.trials) + len(points.keys() - known))
    absent = absent_trials(most, view.search.trials, view.search.pruner.reduction_factor)
    return replace(view, search=view.search.model_copy(update={"trials": most}), absent=absent)


@dataclass(frozen=True)
class _Decided:
    """`used_up`: a trial should have started, and the space has no point left for it."""

    pruned: Sequence[Prune]
    going_on: Sequence[Promote | Adopt]
    starts: Sequence[Start]
    used_up: bool


def _decide(view: StudyView, room: int) -> _Decided:
    strategy = strategy_of(view.search)
    moves = strategy.moves(view)
    going_on = [move for move in moves if not isinstance(move, Prune)][: max(0, room)]
    wanted = min(room - len(going_on), view.to_come)
    starts = _starts(view, wanted, strategy.ladder(view)) if wanted > 0 else []
    pruned = [move for move in moves if isinstance(move, Prune)]
    return _Decided(pruned, going_on, starts, used_up=wanted > 0 and not starts)


def _starts(view: StudyView, wanted: int, ladder: Sequence[float]) -> list[Start]:
    asking = Asking(view)
    rung, until = (0, ladder[0]) if len(ladder) > 1 else (None, None)
    asked = [asking.next() for _ in range(wanted)]
    return [replace(start, rung=rung, until=until) for start in asked if start is not None]


def _last(view: StudyView, wanted: int) -> Start | End:
    """The best parameters once more, where that is asked for, and then the end."""
    best = view.best()
    furthest = leader(view)
    if best is None and view.search.finish == "none" and furthest is not None:
        message = f"The search is over: trial {furthest.number} came furthest, and is the best there"
        return End(Reason.COMPLETED, message)
    if best is None:
        return _nothing_found(view)
    if view.search.finish == "retrain" and not any(one.origin == "retrain" for one in view.trials):
        return _again(view, best)
    count = len(view.trials)
    few = " (the space has no more points)" if count < wanted and view.search.population is None else ""
    return End(Reason.COMPLETED, f"The search is over: trial {best.number} is the best of {count}{few}")


def _again(view: StudyView, best: TrialView) -> Start:
    """The best trial's parameters with another seed: how good they are, not how lucky it was."""
    seed = best.parameters.get(SEED, view.spec.training.seed if view.spec is not None else 0)
    parameters = {**best.parameters, SEED: int(seed or 0) + 1}
    return Start(dict(sorted(parameters.items())), "retrain", None, None)


def _nothing_found(view: StudyView) -> End:
    if not view.trials:
        return End(Reason.COMPLETED, "Every point of the space is known from the searches that this one starts from")
    failed = sum(one.status == Status.FAILED for one in view.trials)
    if failed == len(view.trials):
        return End(Reason.ALL_TRIALS_FAILED, f"All {failed} trials failed")
    return End(Reason.ALL_TRIALS_FAILED, f"None of {len(view.trials)} trials came to its end with a value")


def _failing_alike(view: StudyView) -> End | None:
    """While nothing has any value, a few trials that fail for one and the same reason speak for all.

    Of the data, which is the same for all, the first one speaks.
    """
    if any(one.values is not None or one.at_rungs for one in view.trials):
        return None
    first = view.trials[:FAILED_ALIKE]
    if first and first[0].status == Status.FAILED and first[0].reason in OF_THE_DATA:
        return End(Reason.ALL_TRIALS_FAILED, "The data is the same for all trials, and the first one failed over it")
    if len(first) < max(1, min(FAILED_ALIKE, len(view.trials) + view.to_come)):
        return None
    reasons = Counter(one.reason for one in first if one.status == Status.FAILED)
    if len(reasons) != 1 or sum(reasons.values()) < len(first):
        return None
    return End(Reason.ALL_TRIALS_FAILED, f"The first {len(first)} trials all failed")


def leader(view: StudyView) -> TrialView | None:
    """The best that came to its end; before one has, the best of those that have come furthest."""
    best = view.best()
    if best is not None:
        return best
    reached = [(max(one.at_rungs), one) for one in view.trials if one.at_rungs]
    ranked = [(rung, score, one) for rung, one in reached if not math.isnan(score := view.score(one.at_rungs[rung]))]
    return max(ranked, key=lambda found: found[:2])[2] if ranked else None
