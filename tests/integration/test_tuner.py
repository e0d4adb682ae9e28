"""The tuner against real PostgreSQL: searches that go on, whatever dies or doubles on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event

from api.book.models import RungValue, Trial
from api.control.tuner import Tuner
from api.profiles import Profiles
from api.settings import Settings
from tests.integration.conftest import Control
from tests.integration.search_book import RATE
from tests.integration.tuning import METRIC, SPACE, Study
from tests.waiting import eventually

Begin = Callable[..., Study]


@pytest.fixture
def begin(client: httpx2.Client, control: Control, settings: Settings) -> Begin:
    def study(spec: dict[str, Any] | None = None, **search: Any) -> Study:
        return Study(client, control, settings, search, **(spec or {}))

    return study


def test_a_search_goes_from_submit_to_its_best(begin: Begin) -> None:
    study = begin(trials=10, seed=1)
    study.tune()
    assert [(one.number, one.status, one.origin) for one in study.trials()] == [(0, "queued", "random")]
    study.tune()
    assert len(study.trials()) == 1  # alone, until the data is ready
    study.come(study.open()[0])
    study.tune()
    assert len([one for one in study.trials() if one.status == "queued"]) > 1
    job = study.play()
    trials = study.trials()
    assert (job.status, job.reason, len(trials), len(set(study.points()))) == ("succeeded", "completed", 10, 10)
    assert {one.status for one in trials} == {"succeeded", "pruned"}
    assert all(one.why for one in trials)
    best = max((one for one in trials if one.values), key=lambda one: (one.values or {})[METRIC])
    told = job.study or {}
    assert told["best"]["trial"] == best.number
    assert told["best"]["parameters"] == best.parameters
    assert told["best"]["values"] == best.values
    assert told["best"]["checkpoint"].startswith(f"jobs/{study.id}/trial-{best.number}/")
    assert (told["trials"], sum(told["counts"].values()), told["parallel"], told["share"]) == (10, 10, 4, 1.0)
    assert told["ladder"][-1] == 1.0
    assert job.result == best.result
    assert f"trial {best.number} is the best of 10" in study.client.get(f"/v1/jobs/{study.id}/events").text


def test_the_same_seed_gives_the_same_trials(begin: Begin) -> None:
    studies = [begin(trials=6, seed=5), begin(trials=6, seed=5), begin(trials=6, seed=6)]
    for study in studies:
        study.turn()
        study.tune()
    assert studies[0].points() == studies[1].points()
    assert len(studies[0].points()) > 3
    assert studies[0].points()[0] != studies[2].points()[0]


def test_a_look_at_all_searches_passes_over_those_in_which_nothing_happened(begin: Begin) -> None:
    study = begin(trials=6)
    statements: list[str] = []
    engine = study.control.sessions.kw["bind"]
    event.listen(engine, "before_cursor_execute", lambda _c, _u, statement, *_: statements.append(statement))

    def looked() -> bool:
        statements.clear()
        study.tuner.tune_all()
        return any("FOR UPDATE" in statement for statement in statements)

    assert [looked(), looked()] == [True, False]
    assert len(study.trials()) == 1
    study.control.heartbeat(worker="host-b", slots=2)  # no bell tells of it
    assert [looked(), looked()] == [True, False]
    study.come(study.open()[0])
    study.control.heartbeat(worker="host-b", slots=2)  # or a slow machine takes it for lost
    assert [looked(), looked()] == [True, False]
    assert (study.job().study or {})["parallel"] == 6


class Killed(BaseException):
    """As a process ends: nothing catches it."""


@contextmanager
def killed_at(engine: Engine, write: int) -> Iterator[list[str]]:
    """Ends whatever runs before its write number `write`, or before its commit; yields the writes that there were."""
    writes: list[str] = []

    def count(_c: Any, _u: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("INSERT", "UPDATE", "SELECT pg_notify")):
            writes.append(statement)
            if len(writes) == write:
                raise Killed

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield writes
    finally:
        event.remove(engine, "before_cursor_execute", count)


def test_control_that_dies_at_any_write_leaves_a_search_that_goes_on_the_same(begin: Begin) -> None:
    """Every pass is killed at each of its writes in turn before it comes through."""
    undisturbed, study = begin(trials=4, seed=9, pruner="halving"), begin(trials=4, seed=9, pruner="halving")
    undisturbed.play()
    engine = study.control.sessions.kw["bind"]
    deaths = 0
    while study.job().finished_at is None:
        before = [(one.number, one.status, one.rung) for one in study.trials()]
        for write in range(1, 200):
            with killed_at(engine, write) as writes:
                try:
                    study.tune()
                    break
                except Killed:
                    deaths += 1
            assert len(writes) == write
            assert [(one.number, one.status, one.rung) for one in study.trials()] == before
        for attempt in study.open():
            study.come(attempt)
    assert deaths > 30
    assert study.points() == undisturbed.points()
    assert [one.status for one in study.trials()] == [one.status for one in undisturbed.trials()]
    assert (study.job().study or {})["best"]["trial"] == (undisturbed.job().study or {})["best"]["trial"]


def test_two_leaders_for_a_moment_never_book_a_trial_twice(begin: Begin, settings: Settings) -> None:
    alone, study = begin(trials=5, seed=2), begin(trials=5, seed=2)
    alone.play()
    tuners = [study.tuner, Tuner(study.control.sessions, Profiles.load(settings.profiles_file), settings)]
    with ThreadPoolExecutor(2) as pool:
        while study.job().finished_at is None:
            together = threading.Barrier(2)

            def tune(tuner: Tuner, together: threading.Barrier = together) -> None:
                together.wait()
                tuner.tune(study.id)

            for done in [pool.submit(tune, tuner) for tuner in tuners]:
                done.result()
            for attempt in study.open():
                study.come(attempt)
    assert study.points() == alone.points()
    assert len(study.control.attempts()) == len(
        {(one.job_id, one.trial, one.number) for one in study.control.attempts()}
    )
    assert study.job().status == "succeeded"


def test_a_population_adopts_checkpoints_and_parameters(begin: Begin) -> None:
    study = begin(space={RATE: SPACE[RATE]}, population={"size": 4, "generations": 3})
    assert study.play().status == "succeeded"
    assert [one.status for one in study.trials()] == ["succeeded"] * 4
    events = study.client.get(f"/v1/jobs/{study.id}/events?types=trial.promoted&limit=100").json()["data"]
    adopted = [one["data"] for one in events if one["data"].get("adopts")]
    assert adopted
    assert all(one["adopts"].startswith(f"jobs/{study.id}/trial-") and one["parameters"] for one in adopted)


@pytest.mark.parametrize("sampler", ["cma_es", "nsga2"])
def test_what_evolution_keeps_in_mind_survives_in_the_book(begin: Begin, sampler: str) -> None:
    study = begin(trials=9, sampler=sampler, pruner="none")
    assert study.play().status == "succeeded"
    assert len(set(study.points())) == 9
    noted = [name for one in study.trials() for name in one.sampler or {}]
    assert any(name.endswith(":generation") for name in noted)


def test_without_a_worker_one_trial_waits(begin: Begin) -> None:
    study = begin(trials=6)
    study.control.heartbeat(slots=4, draining=True)
    study.tune()
    study.tune()
    assert [one.status for one in study.trials()] == ["queued"]
    assert ((study.job().study or {})["parallel"], study.job().status) == (1, "queued")


def test_the_loop_hears_the_bell_and_ends_when_it_shall(begin: Begin) -> None:
    study = begin(trials=3, pruner="none")
    stop = threading.Event()
    thread = threading.Thread(target=study.tuner, args=(stop,))
    thread.start()
    try:
        eventually(lambda: len(study.trials()) == 1)
        study.come(study.open()[0])
        eventually(lambda: len(study.trials()) == 3)
        while study.job().finished_at is None:
            for attempt in study.open():
                study.come(attempt)
    finally:
        stop.set()
        thread.join()
    assert study.job().status == "succeeded"


@pytest.mark.parametrize(("count", "limit"), [(100, 0.05), pytest.param(1000, 0.3, marks=pytest.mark.long)])
def test_a_pass_over_many_trials_is_short(begin: Begin, count: int, limit: float) -> None:
    """In CPU seconds of this process, for a pass that asks the sampler for a trial; the best of three."""
    smoothing = {"type": "float", "low": 0, "high": 0.2}
    study = begin(trials=2000, space={**SPACE, "training.label_smoothing": smoothing})
    study.tune()
    study.come(study.open()[0])
    fill(study, count)
    seconds = []
    for _ in range(3):
        for attempt in study.open()[:1]:
            study.come(attempt)
        started = len(study.trials())
        before = time.process_time()
        study.tune()
        seconds.append(time.process_time() - before)
        assert len(study.trials()) > started
    assert min(seconds) < limit, seconds


def fill(study: Study, count: int) -> None:
    """Trials that ended at the first rung, every fourth of them at their end."""
    rows, rungs = [], []
    for number in range(1, count + 1):
        done = number % 4 == 0
        parameters = {
            RATE: 10 ** (-4 * number / (count + 1)),
            "training.batch_size": 32,
            "training.label_smoothing": 0.1,
        }
        rows.append(
            Trial(
                job_id=study.id, number=number, status="succeeded" if done else "pruned", attempt=1, origin="random",
                reason="completed" if done else "pruned", parameters=parameters, reached=1.0 if done else 0.01,
                values={METRIC: number / count} if done else None, finished_at=study.job().created_at,
            )
        )  # fmt: skip
        rungs.append(
            RungValue(
                job_id=study.id, trial=number, rung=0, attempt=1, fraction=0.01, step=1, images=512,
                values={METRIC: number / count},
            )
        )  # fmt: skip
    with study.control.sessions.begin() as session:
        session.add_all(rows)
        session.flush()
        session.add_all(rungs)
