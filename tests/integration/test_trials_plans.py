"""Plans of searches: what all trials take beside one training, limits that break it, and what it could start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from api.book.database import Sessions
from tests.integration.conftest import SPEC, Control
from tests.integration.searches import ACCURACY, LOSS, RATE, SPACE, Book, submit

HINTS = "?train_images=50000&image_size=32&classes=10&channels=3"


def plan_of(client: httpx2.Client, search: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    whole = {**SPEC, **more, **({"search": {"space": SPACE, **search}} if search is not None else {})}
    answer = client.post(f"/v1/plans{HINTS}", json=whole)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_search_is_planned_as_one_training_and_what_all_trials_take(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    plain, plan = plan_of(client, None), plan_of(client, {"trials": 100, "parallel": 2})
    assert plain["search"] is None
    assert (plan["hours"], plan["plan"]["total_steps"]) == (plain["hours"], plain["plan"]["total_steps"])
    search = plan["search"]
    assert (search["trials"], search["parallel"], search["share"], search["ladder"][-1]) == (100, 2, 0.5, 1.0)
    assert 2 <= search["trainings"] <= 5
    for end in ("low", "high"):
        assert search["device_hours"][end] == pytest.approx(search["trainings"] * plan["hours"][end], rel=0.01)
        assert search["hours"][end] == pytest.approx(search["device_hours"][end])
    assert plan_of(client, {"trials": 100, "pruner": "none"})["search"]["trainings"] == 100
    population = {"population": {"size": 6}, "space": {RATE: SPACE[RATE]}}
    assert plan_of(client, population)["search"]["trainings"] == 6
    again = plan_of(client, {"trials": 10, "pruner": "none", "finish": "retrain"})
    assert again["search"]["trainings"] == 11
    for pruner in ("median", "hyperband"):
        assert 5 < plan_of(client, {"trials": 100, "pruner": pruner})["search"]["trainings"] < 100


def test_without_a_worker_or_data_the_cost_in_trainings_is_known_all_the_same(client: httpx2.Client) -> None:
    answer = client.post("/v1/jobs?validate_only=true", json={**SPEC, "search": {"space": SPACE, "trials": 64}})
    search = answer.json()["plan"]["search"]
    assert (search["hours"], search["cost"], search["warm_start"]) == (None, None, [])
    assert search["trainings"] > 1
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_budget_below_the_search_or_below_one_training_is_warned_of(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    one = plan_of(client, {"trials": 100})["plan"]["prediction"]["device_hours"]
    few = plan_of(client, {"trials": 100}, budget={"max_device_hours": one * 1.5})["warnings"]
    none = plan_of(client, {"trials": 100}, budget={"max_device_hours": one / 2})["warnings"]
    enough = plan_of(client, {"trials": 100}, budget={"max_device_hours": one * 20})["warnings"]
    short = plan_of(client, {"trials": 100, "max_hours": one / 2})["warnings"]
    assert [text.split(" ")[0] for text in (*few, *none, *short)] == ["budget.max_device_hours"] * 2 + [
        "search.max_hours"
    ]
    assert "fewer trials fit" in few[0]
    assert "not even one whole training" in none[0]
    assert enough == []
    trial = plan_of(client, {"trials": 100}, compute={"max_hours": one / 2})["warnings"]
    assert [text.split(" ")[0] for text in trial] == ["compute.max_hours"]


def test_earlier_searches_of_the_same_space_and_data_are_offered(
    client: httpx2.Client, sessions: Sessions, keys: Callable[[str], str]
) -> None:
    best = {"trial": 3, "values": {ACCURACY: 0.9}, "parameters": {}, "checkpoint": None}
    earlier = Book(sessions, submit(client))
    assert plan_of(client, {})["search"]["warm_start"] == []  # it has not begun
    earlier.note(trials=5, counts={"succeeded": 1, "pruned": 3, "running": 1}, best=best)
    other_space = {**SPACE, "training.batch_size": {"type": "int", "low": 16, "high": 64}}
    Book(sessions, submit(client, space=other_space)).note(counts={}, best=None)
    Book(sessions, submit(client, objective={"metric": LOSS})).note(counts={}, best=None)
    [offer] = plan_of(client, {})["search"]["warm_start"]
    assert offer == {"id": earlier.job_id, "name": None, "status": "running", "trials": 4, "best": best}
    assert plan_of(client, {"warm_start": [earlier.job_id]})["search"]["warm_start"] == []
    elsewhere = {"dataset": {**SPEC["dataset"], "split": {"seed": 1}}}
    assert plan_of(client, {}, **elsewhere)["search"]["warm_start"] == []
    stranger = {"Authorization": f"Bearer {keys('stranger')}"}
    answer = client.post(f"/v1/plans{HINTS}", json={**SPEC, "search": {"space": SPACE}}, headers=stranger)
    assert answer.json()["search"]["warm_start"] == []
