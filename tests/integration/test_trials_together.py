"""What all trials say together: importance, Pareto front, parallel coordinates, history, and the Optuna journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from api.book.database import Sessions
from tests.integration.searches import ACCURACY, LAYERS, LOSS, NETWORK, RATE, SPACE, START, Book, parameters, submit
from training_core.contract.errors import Reason

TWO = [{"metric": ACCURACY}, {"metric": LOSS}]


def ask(client: httpx2.Client, book: Book, name: str) -> Any:
    answer = client.get(f"/v1/jobs/{book.job_id}/trials/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_importance_ranks_pruned_trials_too_and_says_when_there_are_too_few(
    client: httpx2.Client, sessions: Sessions
) -> None:
    book = Book(sessions, submit(client, trials=60))
    [table] = ask(client, book, "importance")["data"]
    assert (table["trials"], table["parameters"]) == (0, [])
    assert "at least 20" in table["reason"]
    for number in range(40):  # the smaller the rate, the better; only the best come to their end
        rungs = {0: number / 100, **({1: number / 50} if number >= 20 else {})}
        if number >= 36:
            book.trial(number, values={ACCURACY: number / 40}, rungs=rungs)
        else:
            book.trial(number, Reason.PRUNED, rungs=rungs)
    book.trial(40, Reason.NAN_LOSS, error={"code": "nan_loss", "message": ""})
    [table] = ask(client, book, "importance")["data"]
    assert (table["metric"], table["direction"], table["reason"]) == (ACCURACY, "maximize", None)
    assert (table["trials"], table["finished"]) == (40, 4)
    found = {one["parameter"]: one["importance"] for one in table["parameters"]}
    assert sum(found.values()) == pytest.approx(1)
    assert list(found)[-1] == NETWORK
    assert found[RATE] > 5 * found[NETWORK]


def test_several_objectives_have_a_table_and_a_history_each_and_one_front(
    client: httpx2.Client, sessions: Sessions
) -> None:
    book = Book(sessions, submit(client, objective=TWO, pruner="none", trials=30))
    points = [(0.5, 0.5), (0.9, 0.9), (0.8, 0.2), (0.8, 0.3), (0.4, 0.1), (0.8, 0.2), (0.7, 0.2)]
    for number, (accuracy, loss) in enumerate(points):
        book.trial(number, values={ACCURACY: accuracy, LOSS: loss})
    book.trial(7, Reason.NAN_LOSS, error={"code": "nan_loss", "message": ""})
    front = ask(client, book, "pareto")
    assert front["trials"] == 7
    assert [one["metric"] for one in front["objectives"]] == [ACCURACY, LOSS]
    assert [one["trial"] for one in front["data"]] == [1, 2, 5, 4]
    assert front["data"][0]["parameters"] == parameters(1)
    accuracy, loss = ask(client, book, "history")["data"]
    assert accuracy["by_number"]["best"] == [0.5] + [0.9] * 6
    assert loss["by_number"] == {
        "trials": list(range(7)), "values": [loss for _, loss in points], "best": [0.5, 0.5, 0.2, 0.2, 0.1, 0.1, 0.1],
    }  # fmt: skip
    assert [len(one["parameters"]) for one in ask(client, book, "importance")["data"]] == [0, 0]


def test_the_front_of_one_objective_is_its_best_with_its_equals(client: httpx2.Client, sessions: Sessions) -> None:
    book = Book(sessions, submit(client))
    for number, value in enumerate([0.1, 0.7, 0.7, 0.3]):
        book.trial(number, values={ACCURACY: value})
    assert [one["trial"] for one in ask(client, book, "pareto")["data"]] == [1, 2]


def test_history_counts_the_device_time_of_pruned_trials_too(client: httpx2.Client, sessions: Sessions) -> None:
    book = Book(sessions, submit(client))
    for number, value in enumerate([0.2, None, 0.6, None, 0.4]):
        if value is None:
            book.trial(number, Reason.PRUNED, rungs={0: 0.1})
        else:
            book.trial(number, values={ACCURACY: value})
    [history] = ask(client, book, "history")["data"]
    assert history["by_device_seconds"] == {
        "device_seconds": [10.0, 30.0, 50.0], "trials": [0, 2, 4], "best": [0.2, 0.6, 0.6],
    }  # fmt: skip


def test_parallel_coordinates_are_columns_of_all_trials(client: httpx2.Client, sessions: Sessions) -> None:
    book = Book(sessions, submit(client))
    book.trial(0, values={ACCURACY: 0.5})
    book.trial(1, Reason.PRUNED, reached=0.1, parameters={RATE: 0.01})
    drawn = ask(client, book, "parallel_coordinates")
    assert (drawn["trials"], drawn["statuses"], drawn["reached"]) == ([0, 1], ["succeeded", "pruned"], [1.0, 0.1])
    axes = {one["name"]: one for one in drawn["parameters"]}
    assert set(axes) == set(SPACE)
    assert (axes[RATE]["low"], axes[RATE]["log"], axes[RATE]["values"]) == (1e-5, True, [0.1, 0.01])
    assert (axes[NETWORK]["choices"], axes[NETWORK]["values"]) == (["small_cnn", "small_resnet"], ["small_cnn", None])
    assert drawn["objectives"] == [{"metric": ACCURACY, "direction": "maximize", "values": [0.5, None]}]


@pytest.mark.parametrize("several", [False, True])
def test_optuna_reads_the_journal_and_finds_every_trial_as_it_is(
    client: httpx2.Client, sessions: Sessions, tmp_path: Path, several: bool
) -> None:
    objective = {"objective": TWO, "pruner": "none"} if several else {}
    book = Book(sessions, submit(client, **objective))
    values = {ACCURACY: 0.5, LOSS: 0.1} if several else {ACCURACY: 0.5}
    reasons = [
        Reason.COMPLETED, Reason.PRUNED, Reason.NAN_LOSS, Reason.SUBMITTED, Reason.CANCELLED_BY_CLIENT,
        Reason.RUNG_REACHED,
    ]  # fmt: skip
    for number, reason in enumerate(reasons):
        done = reason == Reason.COMPLETED
        book.trial(number, reason, values=values if done else None, rungs={0: 0.25, 1: 0.5}, why=f"why {number}")
    book.trial(6, Reason.PRUNED, rungs={0: "NaN"}, parameters={RATE: 0.01, LAYERS: 20})  # type: ignore[dict-item]
    answer = client.get(f"/v1/jobs/{book.job_id}/trials/journal")
    assert answer.headers["content-disposition"].endswith(f'"{book.job_id}.journal"')
    file = tmp_path / "search.journal"
    file.write_bytes(answer.content)
    study = optuna.load_study(study_name=book.job_id, storage=JournalStorage(JournalFileBackend(str(file))))
    assert [one.name.lower() for one in study.directions] == ["maximize", "minimize"][: 2 if several else 1]
    trials = study.get_trials()
    state = TrialState
    assert [one.state for one in trials] == [
        state.COMPLETE, state.PRUNED, state.FAIL, state.WAITING, state.FAIL, state.RUNNING, state.PRUNED,
    ]  # fmt: skip
    for number, trial in enumerate(trials[:6]):
        assert (trial.number, trial.params) == (number, parameters(number))
        assert trial.user_attrs["why"] == f"why {number}"
        assert trial.intermediate_values == {100: 0.25, 200: 0.5}
        assert trial.distributions == {
            RATE: FloatDistribution(1e-5, 0.1, log=True), LAYERS: IntDistribution(16, 256),
            NETWORK: CategoricalDistribution(["small_cnn", "small_resnet"]),
        }  # fmt: skip
    assert trials[0].values == list(values.values())
    assert trials[0].datetime_start == START.astimezone().replace(tzinfo=None)
    assert trials[0].duration is not None
    assert trials[0].duration.total_seconds() == 10
    assert trials[6].params == {RATE: 0.01, LAYERS: 20}
    assert trials[6].intermediate_values[100] != trials[6].intermediate_values[100]


def test_a_journal_longer_than_a_page_has_each_trial_once(
    client: httpx2.Client, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.search.journal.PAGE", 3)
    book = Book(sessions, submit(client))
    for number in range(6):
        book.trial(number, values={ACCURACY: 0.5})
    lines = client.get(f"/v1/jobs/{book.job_id}/trials/journal").text.splitlines()
    assert [line.count('"op_code":4') for line in lines] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
