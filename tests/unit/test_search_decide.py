"""The moves of a whole search, played through without a book: what starts, what goes on, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from api.book.models import Worker
from api.book.status import Status
from api.profiles import BUILT_IN
from api.search.concurrency import Placing, place
from api.search.decide import decide, leader
from api.search.space import key
from api.search.view import Adopt, End, Move, Promote, Prune, Start, StudyView, TrialView
from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec, Search

METRIC = "validation/accuracy"
RATE, BATCH = "training.optimizer.learning_rate", "training.batch_size"
SPACE: dict[str, Any] = {
    RATE: {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    BATCH: {"type": "int", "low": 32, "high": 96, "step": 32},
}
SMALL = {BATCH: SPACE[BATCH], "training.optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]}}

Outcome = Callable[[TrialView], float | Reason]


def spec_of(space: dict[str, Any] = SPACE, compute: dict[str, Any] | None = None, **search: Any) -> JobSpec:
    document = {
        "task": "image-classification", "dataset": {"uri": "file:///d/"}, "search": {"space": space, **search},
        "compute": compute or {},
    }  # fmt: skip
    return JobSpec.model_validate(document)


def good(trial: TrialView) -> float:
    """Better with the length of the training, best at a rate of 0.01."""
    rate = float(trial.parameters.get(RATE) or 0.01)
    return 0.9 - abs(math.log10(rate) + 2) / 10 - 0.1 * (1 - (trial.until or 1.0))


@dataclass
class Game:
    """Each turn decides, carries out, and brings the oldest busy trial to where it goes."""

    spec: JobSpec
    outcome: Outcome = good
    room: int = 2
    earlier: tuple[TrialView, ...] = ()
    trials: list[TrialView] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)

    @property
    def search(self) -> Search:
        assert self.spec.search is not None
        return self.spec.search

    @property
    def view(self) -> StudyView:
        return StudyView(self.search, tuple(self.trials), self.earlier, spec=self.spec)

    def play(self, turns: int = 2000) -> End:
        for _ in range(turns):
            made = decide(self.view, self.room - sum(one.busy for one in self.trials))
            assert made == decide(self.view, self.room - sum(one.busy for one in self.trials))
            self.moves += made
            for move in made:
                if isinstance(move, End):
                    return move
                self.carry_out(move)
            busy = [one for one in self.trials if one.busy]
            assert len(busy) <= self.room
            assert busy, "the search stands still"
            self.come(busy[0])
        raise AssertionError("the search does not end")

    def carry_out(self, move: Start | Promote | Adopt | Prune) -> None:
        if isinstance(move, Start):
            new = TrialView(
                len(self.trials), Status.QUEUED, Reason.SUBMITTED, move.parameters, move.origin, move.rung, move.until,
                sampler=move.sampler,
            )  # fmt: skip
            self.trials.append(new)
        elif isinstance(move, Prune):
            self.set(move.trial, status=Status.PRUNED, reason=Reason.PRUNED)
        else:
            more: Mapping[str, Any] = {"parameters": move.parameters} if isinstance(move, Adopt) else {}
            self.set(move.trial, status=Status.QUEUED, reason=Reason.PROMOTED, rung=move.rung, until=move.until, **more)

    def come(self, trial: TrialView) -> None:
        result = self.outcome(trial)
        if isinstance(result, Reason):
            self.set(trial.number, status=Status.FAILED, reason=result)
        elif trial.rung is None:
            self.set(
                trial.number, status=Status.SUCCEEDED, reason=Reason.COMPLETED, values={METRIC: result}, reached=1.0
            )
        else:
            at_rungs = {**trial.at_rungs, trial.rung: {METRIC: result}}
            waits = {"status": Status.PAUSED, "reason": Reason.RUNG_REACHED, "checkpoint": f"c{trial.number}"}
            self.set(trial.number, **waits, at_rungs=at_rungs, reached=trial.until)

    def set(self, number: int, **changes: Any) -> None:
        self.trials[number] = replace(self.trials[number], **changes)


@pytest.mark.parametrize("pruner", ["auto", "none", "median", "hyperband"])
@pytest.mark.parametrize("room", [1, 4])
def test_a_search_ends_with_every_trial_ended_and_no_point_twice(pruner: str, room: int) -> None:
    game = Game(spec_of(trials=18, pruner=pruner), room=room)
    end = game.play()
    assert end.reason == Reason.COMPLETED
    assert len(game.trials) == 18
    assert len({key(game.search.space, one.parameters) for one in game.trials}) == 18
    assert not any(one.open for one in game.trials)
    best = game.view.best()
    assert best is not None
    assert f"trial {best.number} is the best of 18" in end.message


def test_a_population_starts_its_members_and_ends_them() -> None:
    game = Game(spec_of({RATE: SPACE[RATE]}, population={"size": 4, "generations": 5}, trials=100), room=4)
    assert game.play().reason == Reason.COMPLETED
    assert len(game.trials) == 4
    assert any(isinstance(move, Adopt) for move in game.moves)
    assert {one.status for one in game.trials} == {Status.SUCCEEDED}


@pytest.mark.parametrize("sampler", ["auto", "grid", "random"])
@pytest.mark.parametrize("pruner", ["auto", "none"])
def test_a_space_of_six_points_ends_after_six_of_fifty_trials(sampler: str, pruner: str) -> None:
    game = Game(spec_of(SMALL, trials=50, sampler=sampler, pruner=pruner))
    end = game.play()
    assert (end.reason, len(game.trials)) == (Reason.COMPLETED, 6)
    assert "the space has no more points" in end.message


def test_a_fixed_seed_starts_with_the_same_points_whatever_the_room() -> None:
    first = [Game(spec_of(trials=8, pruner="none", seed=3), room=room) for room in (1, 3, 8)]
    for game in first:
        game.play()
    points = [[one.parameters for one in game.trials] for game in first]
    assert points[0] == points[1] == points[2]


def test_trials_that_go_on_come_before_new_ones() -> None:
    game = Game(spec_of(trials=60), room=1)
    game.play()
    promoted = next(index for index, move in enumerate(game.moves) if isinstance(move, Promote))
    started_after = sum(isinstance(move, Start) for move in game.moves[promoted:])
    assert started_after > 40


def test_a_few_trials_that_fail_alike_speak_for_all() -> None:
    game = Game(spec_of(trials=50), outcome=lambda _: Reason.NAN_LOSS)
    end = game.play()
    assert (end.reason, len([one for one in game.trials if one.status == Status.FAILED])) == (
        Reason.ALL_TRIALS_FAILED, 5
    )  # fmt: skip
    few = Game(spec_of(trials=2), outcome=lambda _: Reason.NAN_LOSS)
    assert few.play().message == "The first 2 trials all failed"


def test_the_first_trial_that_fails_over_the_data_speaks_for_all() -> None:
    game = Game(spec_of(trials=50), outcome=lambda _: Reason.DATASET_FORBIDDEN, room=1)
    assert game.play().reason == Reason.ALL_TRIALS_FAILED
    assert len(game.trials) == 1
    later = Game(spec_of(trials=9), outcome=lambda one: Reason.DATASET_UNREACHABLE if one.number == 4 else good(one))
    assert later.play().reason == Reason.COMPLETED


def test_trials_that_fail_for_different_reasons_are_all_tried() -> None:
    reasons = [Reason.NAN_LOSS, Reason.OUT_OF_MEMORY]
    game = Game(spec_of(trials=9), outcome=lambda trial: reasons[trial.number % 2])
    end = game.play()
    assert (end.reason, end.message, len(game.trials)) == (Reason.ALL_TRIALS_FAILED, "All 9 trials failed", 9)


def test_one_good_trial_among_failed_ones_is_a_result() -> None:
    game = Game(spec_of(trials=12), outcome=lambda one: good(one) if one.number == 7 else Reason.OUT_OF_MEMORY)
    game.outcome = lambda one: good(one) if one.number in (2, 7) else Reason.OUT_OF_MEMORY
    assert game.play().reason == Reason.COMPLETED
    assert game.view.best() is not None


def test_values_that_are_no_numbers_end_in_a_failure() -> None:
    game = Game(spec_of(trials=6), outcome=lambda _: math.nan)
    end = game.play()
    assert end.reason == Reason.ALL_TRIALS_FAILED
    assert "None of 6 trials came to its end with a value" in end.message


def test_when_those_that_went_on_fail_the_next_best_is_trained_to_its_end() -> None:
    def falls_over(trial: TrialView) -> float | Reason:
        return Reason.PROCESS_DIED if trial.rung is None and trial.number % 3 else good(trial)

    game = Game(spec_of(trials=12), outcome=falls_over)
    assert game.play().reason == Reason.COMPLETED
    assert game.view.best() is not None


def test_the_best_is_trained_once_more_with_another_seed_where_that_is_asked_for() -> None:
    spec = spec_of(trials=6, finish="retrain")
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"seed": 41})})
    game = Game(spec)
    game.play()
    assert [one.origin for one in game.trials].count("retrain") == 1
    last = game.trials[-1]
    twins = [one for one in game.trials[:-1] if {**one.parameters, "training.seed": 42} == last.parameters]
    assert len(twins) == 1
    assert (last.origin, last.status, last.rung) == ("retrain", Status.SUCCEEDED, None)
    failing = Game(spec, outcome=lambda one: Reason.NAN_LOSS if one.origin == "retrain" else good(one))
    assert failing.play().reason == Reason.COMPLETED


def test_without_a_finish_the_best_stays_as_far_as_it_came() -> None:
    space = {**SPACE, "training.label_smoothing": {"type": "float", "low": 0.0, "high": 0.2}}
    game = Game(spec_of(space, trials=5, finish="none", pruner={"name": "halving", "reduction_factor": 8}))
    end = game.play()
    assert (end.reason, [one.values for one in game.trials]) == (Reason.COMPLETED, [None] * 5)
    found = leader(game.view)
    assert found is not None
    assert f"trial {found.number} came furthest" in end.message


def test_a_space_that_an_earlier_search_knows_wholly_trains_nothing() -> None:
    first = Game(spec_of(SMALL, trials=50, pruner="none"))
    first.play()
    known = tuple(replace(one, job_id="job_1") for one in first.trials)
    second = Game(spec_of(SMALL, trials=50), earlier=known)
    assert second.play().reason == Reason.COMPLETED
    assert second.trials == []


def test_the_furthest_leads_until_one_has_come_to_its_end() -> None:
    trials = [
        TrialView(0, Status.PAUSED, Reason.RUNG_REACHED, {}, rung=0, at_rungs={0: {METRIC: 0.9}}),
        TrialView(1, Status.PAUSED, Reason.RUNG_REACHED, {}, rung=1, at_rungs={0: {METRIC: 0.5}, 1: {METRIC: 0.6}}),
        TrialView(2, Status.PRUNED, Reason.PRUNED, {}, rung=1, at_rungs={0: {METRIC: 0.5}, 1: {METRIC: math.nan}}),
    ]
    search = spec_of().search
    assert search is not None
    found = leader(StudyView(search, trials))
    assert found is not None
    assert found.number == 1
    done = TrialView(3, Status.SUCCEEDED, Reason.COMPLETED, {}, values={METRIC: 0.4})
    found = leader(StudyView(search, [*trials, done]))
    assert found is not None
    assert found.number == 3
    assert leader(StudyView(search, [])) is None


def worker(device: str = "cpu", slots: int = 1, cores: int = 2, memory_gib: int = 24) -> Worker:
    return Worker(name="a", device=device, slots=slots, cores=cores, memory_bytes=memory_gib << 30)


@pytest.mark.parametrize(
    ("workers", "profile", "search", "compute", "placing"),
    [
        ([], "cpu", {}, {}, Placing(1, 1.0)),
        ([worker()], "cpu", {}, {}, Placing(2, 0.5, 2)),
        ([worker(cores=64)], "cpu", {}, {}, Placing(8, 1 / 8, 2)),
        ([worker(cores=64, memory_gib=3)], "cpu", {}, {}, Placing(3, 1 / 3, 2)),
        ([worker(cores=1)], "cpu", {}, {}, Placing(1, 1.0, 1)),
        ([worker(), worker(slots=2, cores=16)], "cpu", {}, {}, Placing(6, 0.5, 2)),
        ([worker()], "cpu", {"parallel": 4}, {}, Placing(4, 0.25, 2)),
        ([worker()], "cpu", {"parallel": 1}, {}, Placing(1, 1.0, 1)),
        ([worker(slots=4)], "cpu", {"parallel": 2}, {}, Placing(2, 1.0, 0)),
        ([worker()], "cpu", {"parallel": 64}, {}, Placing(20, 0.05, 2)),
        ([worker()], "cpu", {"parallel": 8}, {"share": 0.5}, Placing(2, 0.5, 2)),
        ([worker("cuda", slots=8)], "gpu", {}, {}, Placing(8, 1.0, 2)),
        ([worker("cuda", slots=8)], "gpu", {"parallel": 12}, {}, Placing(12, 0.5, 0)),
        ([worker("cuda", slots=8)], "gpu", {}, {"share": 0.2}, Placing(40, 0.2, 2)),
        ([worker("cuda", slots=8)], "gpu-4", {"parallel": 8}, {}, Placing(2, 1.0, 2)),
        ([worker()], "gpu", {}, {}, Placing(1, 1.0)),
    ],
)
def test_as_many_trials_go_together_as_fit(
    workers: list[Worker], profile: str, search: dict[str, Any], compute: dict[str, Any], placing: Placing
) -> None:
    offered = next(one for one in BUILT_IN if one.name == profile)
    assert place(spec_of(compute=compute, **search), offered, workers) == placing
