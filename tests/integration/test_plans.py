"""`POST /v1/plans` and `validate_only`: what a job would do and cost, from what the book knows of data and hosts."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import httpx2
import pytest

from api.profiles import BUILT_IN, Profiles
from tests.integration.conftest import SPEC, Control
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.spec import JobSpec
from training_core.planner.facts import HostFacts
from training_core.planner.plan import choose_plan
from training_core.planner.recipe import DataFacts
from training_core.planner.table import ProbeTable, Timing, key_of

CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
READY = reports.DataReady(
    dataset_version="v1", classes=["cat", "dog"], images={"train": 9000, "validation": 1000}, prepared="made",
    seconds=1.5, channels=3, image_size=64,
)  # fmt: skip
FACTS = DataFacts(9000, 2, 3, 64, "as the images were prepared before")
HOST = HostFacts(device="cpu", devices=1, cores=2, memory_bytes=1 << 30, device_name="CPU", numa_nodes=1)


def plan_of(client: httpx2.Client, query: str = "", **more: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/plans{query}", json={**SPEC, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def names(plan: dict[str, Any]) -> list[str]:
    return [one["name"] for one in plan["missing"]]


def test_without_data_and_worker_the_answer_says_what_is_missing_and_the_way_out(client: httpx2.Client) -> None:
    plan = plan_of(client)
    assert (plan["plan"], plan["hours"], plan["cost"], names(plan)) == (None, None, None, ["train_images", "worker"])
    assert "dataset_checks" in plan["missing"][0]["hint"]
    assert plan["queue"]["reason"].startswith("No worker is online")


def test_hints_are_enough_for_a_plan_and_what_they_leave_out_is_assumed(
    client: httpx2.Client, control: Control
) -> None:
    control.heartbeat()
    plan = plan_of(client, "?train_images=50000&image_size=32")
    assert (plan["data_from"], plan["profile"], plan["device_name"]) == ("hints", "cpu", "CPU")
    assert names(plan) == ["classes", "channels", "probes"]
    assert [one["assumed"] for one in plan["missing"]] == [10, 3, None]
    made = plan["plan"]
    assert made["resolved"]["training.image_size"] == 32
    assert {"model.name", "training.epochs", "compute.strategy", "compute.precision"} <= set(made["reasons"])
    assert made["prediction"]["basis"] == "published"
    assert plan["hours"]["low"] < made["prediction"]["hours"] < plan["hours"]["high"]
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_dataset_check_of_the_same_data_is_all_that_a_plan_needs(client: httpx2.Client, control: Control) -> None:
    check = client.post("/v1/dataset_checks", json={"task": SPEC["task"], "dataset": SPEC["dataset"]}).json()
    control.heartbeat()
    control.dispatcher.dispatch()
    done = reports.Finished(reason=Reason.COMPLETED, phase="preparing")
    control.report(control.attempts()[-1], CLAIMED, READY, done)
    plan = plan_of(client)
    assert (plan["data_from"], names(plan)) == (check["id"], ["probes"])
    assert plan["plan"]["total_steps"] == choose_plan(JobSpec.model_validate(SPEC), FACTS, device="cpu").total_steps
    other = plan_of(client, dataset={**SPEC["dataset"], "split": {"seed": 1}})
    assert other["data_from"] is None
    hinted = plan_of(client, "?train_images=100")
    assert hinted["data_from"] == f"{check['id']} and hints"
    validated = client.post("/v1/jobs?validate_only=true", json=SPEC).json()
    assert validated["plan"] == plan


def test_a_measured_device_makes_the_prediction_exact(client: httpx2.Client, control: Control) -> None:
    job = client.post("/v1/jobs", json=SPEC).json()
    control.heartbeat()
    control.dispatcher.dispatch()
    attempt = control.attempts()[-1]
    own = choose_plan(JobSpec.model_validate(SPEC), FACTS, device="cpu")
    key = key_of(own, HOST.model_copy(update={"numa_nodes": 2}))
    timings = [Timing(precision="fp32", memory_format="channels_last", threads=2, batch=own.batch_size, seconds=0.5)]
    table = ProbeTable(key=key, device_name="CPU", timings=timings, image_seconds=1e-5)
    for _ in range(2):  # the same again is the newest again
        control.report(attempt, reports.Probed(key=key, table=table.model_dump(mode="json")))
    control.report(attempt, CLAIMED, READY)
    plan = plan_of(client)
    assert names(plan) == []
    assert plan["plan"]["prediction"]["basis"] == "probes"
    assert plan["plan"]["prediction"]["step_seconds"] == pytest.approx(0.5, rel=0.1)
    assert plan["queue"]["position"] == 1
    assert plan["data_from"] == job["id"]
    broken = reports.Probed(key=key, table={"from": "the future"})
    control.report(attempt, broken)
    assert names(plan_of(client)) == ["probes"]


def test_limits_that_the_prediction_breaks_are_warned_of(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    hints = "?train_images=1000000&image_size=224&classes=1000&channels=3"
    more = {"budget": {"max_device_hours": 0.01}, "compute": {"max_hours": 0.01}, "training": {"epochs": 90}}
    warnings = plan_of(client, hints, **more)["warnings"]
    fields = [text.split(" ")[0] for text in warnings]
    assert "compute.max_hours" in fields
    assert "budget.max_device_hours" in fields


def test_what_a_training_would_refuse_is_refused_now(client: httpx2.Client, control: Control) -> None:
    excluding = {"training": {"resizing": {}, "sampling": {"buckets": "shape"}}}
    for path in ("/v1/plans", "/v1/jobs", "/v1/jobs?validate_only=true"):
        answer = client.post(path, json={**SPEC, **excluding})
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported"), path
        assert "training.resizing" in answer.json()["detail"]
        misspelt = client.post(path, json={**SPEC, "training": {"epoch": 3}})
        assert misspelt.json()["errors"][0]["pointer"] == "/training/epoch"
    control.heartbeat()  # of 1 GiB
    huge = {"model": {"name": "resnet50"}, "training": {"image_size": 512}, "compute": {"micro_batch_size": 64}}
    answer = client.post("/v1/plans?train_images=5000", json={**SPEC, **huge})
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported")
    assert "MiB" in answer.json()["detail"]


def test_hints_that_make_no_sense_name_themselves(client: httpx2.Client) -> None:
    for query in ("train_images=0", "train_images=x", "classes=1", "image_size=4", "channels=9"):
        answer = client.post(f"/v1/plans?{query}", json=SPEC)
        assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, query.split("=")[0])


def test_a_plan_is_there_in_a_tenth_of_a_second(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    for path in ("/v1/plans?train_images=50000", "/v1/jobs?validate_only=true"):
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            assert client.post(path, json=SPEC).status_code == 200
            seconds.append(time.perf_counter() - began)
        assert min(seconds) < 0.1, seconds
        assert median(seconds) < 1.0


def test_the_answers_of_every_profile_are_whole(client: httpx2.Client, control: Control) -> None:
    control.heartbeat(slots=2)
    for name in Profiles(BUILT_IN).by_name:
        plan = plan_of(client, "?train_images=5000", compute={"profile": name})
        assert plan["profile"] == name
        assert ("worker" in names(plan)) == name.startswith("gpu")
        assert (plan["plan"]["compute"] == {}) == name.startswith("gpu")


def test_a_batch_of_one_is_refused_with_a_pointer_before_there_is_any_data(client: httpx2.Client) -> None:
    wrong = {"model": {"name": "resnet18"}, "training": {"batch_size": 1, "image_size": 32}}
    for path in ("/v1/jobs", "/v1/jobs?validate_only=true", "/v1/plans"):
        answer = client.post(path, json={**SPEC, **wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported"), path
        [fault] = answer.json()["errors"]
        assert fault["pointer"] == "/training/batch_size"
        assert "raise training.batch_size to 2 or more" in answer.json()["hint"]


def test_one_that_only_the_data_tells_is_refused_by_the_plan(client: httpx2.Client, control: Control) -> None:
    control.heartbeat()
    wrong = {"model": {"name": "small_resnet"}, "training": {"batch_size": 1}}
    answer = client.post("/v1/plans?train_images=100&image_size=8", json={**SPEC, **wrong})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/training/batch_size")
    assert client.post("/v1/plans?train_images=100&image_size=16", json={**SPEC, **wrong}).status_code == 200
