"""Bad input gets a 4xx that points at the field and shows a way out, and never a value back."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.integration.conftest import SPEC

JSON = {"Content-Type": "application/json"}


def refused(client: httpx2.Client, body: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs", json=body)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["request_id"] == response.headers["request-id"]
    return problem


@pytest.mark.parametrize(
    ("change", "pointer", "suggestion"),
    [
        ({"datset": {}}, "/datset", "dataset"),
        ({"training": {"epoch": 3}}, "/training/epoch", "epochs"),
        ({"training": {"optimizer": {"lerning_rate": 1}}}, "/training/optimizer/lerning_rate", "learning_rate"),
        ({"task": "image-clasification"}, "/task", "image-classification"),
        ({"model": {"name": "resnet5"}}, "/model/name", "resnet50"),
        ({"compute": {"profile": "gpu-3"}}, "/compute/profile", "gpu-8"),
        ({"training": {"augmentation": "lihgt"}}, "/training/augmentation", "light"),
        ({"training": {"augmentation": "atuo"}}, "/training/augmentation", "auto"),
        ({"training": {"augmentation": {"preset": "strnog"}}}, "/training/augmentation/preset", "strong"),
        ({"training": {"augmentation": {"mixp": 0.2}}}, "/training/augmentation/mixp", "mixup"),
        ({"training": {"sampling": {"balance": "class"}}}, "/training/sampling/balance", "classes"),
        ({"dataset": {"uri": "file:///x", "columns": {"lable": "y"}}}, "/dataset/columns/lable", "label"),
        ({"dataset": {"uri": "file:///x", "cleaning": {"blured": "flag"}}}, "/dataset/cleaning/blured", "blurred"),
        ({"dataset": {"uri": "file:///x", "cleaning": {"dark": "flg"}}}, "/dataset/cleaning/dark", "flag"),
        ({"dataset": {"uri": "file:///x", "label_check": {"fold": 3}}}, "/dataset/label_check/fold", "folds"),
        ({"dataset": {"uri": "file:///x", "format": "manifst"}}, "/dataset/format", "manifest"),
        ({"dataset": {"uri": "flie:///x"}}, "/dataset/uri", "file"),
    ],
)
def test_the_nearest_valid_name_is_suggested(
    client: httpx2.Client, change: dict[str, Any], pointer: str, suggestion: str
) -> None:
    entry = next(e for e in refused(client, {**SPEC, **change})["errors"] if e["pointer"] == pointer)
    assert suggestion in (entry.get("did_you_mean"), *entry.get("allowed", ()))
    if pointer != "/compute/profile":
        assert entry["did_you_mean"] == suggestion


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/task"),
        ({"task": "image-classification"}, "/dataset"),
        ([], ""),
        ({**SPEC, "training": {"epochs": 0}}, "/training/epochs"),
        ({**SPEC, "training": {"epochs": "many"}}, "/training/epochs"),
        ({**SPEC, "training": {"batch_size": -1}}, "/training/batch_size"),
        ({**SPEC, "training": {"optimizer": {"learning_rate": "fast"}}}, "/training/optimizer/learning_rate"),
        ({**SPEC, "dataset": {"uri": "gopher://x/"}}, "/dataset/uri"),
        ({**SPEC, "dataset": {"uri": "/etc"}}, "/dataset/uri"),
        ({**SPEC, "dataset": {"uri": "file:///x", "split": {"validation": 0.9, "test": 0.5}}}, "/dataset/split"),
        ({**SPEC, "dataset": {"uri": "hf://datasets/x"}}, "/dataset/uri"),
        ({**SPEC, "dataset": {"uri": "zip://*.jpg::gopher://x/a.zip"}}, "/dataset/uri"),
        ({**SPEC, "dataset": {"uri": "file:///x", "columns": {"image": ""}}}, "/dataset/columns/image"),
        ({**SPEC, "dataset": {"uri": "file:///x", "label_check": {"folds": 1}}}, "/dataset/label_check/folds"),
        ({**SPEC, "dataset": {"uri": "file:///x", "label_check": {"epochs": "all"}}}, "/dataset/label_check/epochs"),
        ({**SPEC, "training": {"augmentation": 5}}, "/training/augmentation"),
        ({**SPEC, "training": {"augmentation": {"mixup": "much"}}}, "/training/augmentation/mixup"),
        ({**SPEC, "training": {"sampling": {"pacing_epochs": 0}}}, "/training/sampling/pacing_epochs"),
        ({**SPEC, "model": {"trainable": "head"}}, "/model"),
        ({**SPEC, "labels": {"a b": "c"}}, "/labels/a b"),
        ({**SPEC, "name": "a\u0000b"}, "/name"),
    ],
)
def test_every_wrong_place_has_a_pointer(client: httpx2.Client, body: Any, pointer: str) -> None:
    problem = refused(client, body)
    assert any(entry["pointer"].startswith(pointer) for entry in problem["errors"]), problem["errors"]


def test_a_text_for_the_augmentation_is_its_preset(client: httpx2.Client) -> None:
    """So a fault in it has no place below it."""
    [entry] = refused(client, {**SPEC, "training": {"augmentation": "lihgt"}})["errors"]
    assert (entry["pointer"], entry["allowed"][-1]) == ("/training/augmentation", "auto")
    spec = {**SPEC, "training": {"augmentation": "light"}}
    stored = client.post("/v1/jobs?validate_only=true", json=spec).json()["spec"]
    assert stored["training"]["augmentation"]["preset"] == "light"


def test_a_field_that_takes_a_number_or_auto_says_both(client: httpx2.Client) -> None:
    [entry] = refused(client, {**SPEC, "training": {"batch_size": "many"}})["errors"]
    assert entry["message"].endswith(", or 'auto'")


def test_rejected_values_are_never_echoed(client: httpx2.Client) -> None:
    secret = "AKIAVERYSECRET"
    bodies = [
        {**SPEC, "dataset": {"uri": f"s3://{secret}:{secret}@bucket/x"}},
        {**SPEC, "dataset": {"uri": f"{secret}://bucket"}},
        {**SPEC, "model": {"name": secret}},
        {**SPEC, "compute": {"profile": secret.lower()}},
        {**SPEC, "training": {"epochs": secret}},
        {**SPEC, "priority": {"x": secret}},
    ]
    for body in bodies:
        response = client.post("/v1/jobs", json=body)
        assert response.status_code == 422
        assert secret.lower() not in response.text.lower()


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"a":1,"a":2}', b"[" * 100_000])
def test_what_is_no_json_is_a_400(client: httpx2.Client, body: bytes) -> None:
    response = client.post("/v1/jobs", content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(client: httpx2.Client, number: str) -> None:
    body = f'{{"task":"image-classification","dataset":{{"uri":"file:///x"}},"compute":{{"max_hours":{number}}}}}'
    response = client.post("/v1/jobs", content=body, headers=JSON)
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/compute/max_hours")


def test_a_large_body_is_a_413_and_a_wrong_type_a_415(client: httpx2.Client) -> None:
    large = client.post("/v1/jobs", content=b" " * 1_000_001, headers=JSON)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    wrong = client.post("/v1/jobs", content=b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (wrong.status_code, wrong.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?created_after=x", "/v1/jobs/job_x?wait=-1",
     "/v1/jobs/job_x/metrics?points=1", "/v1/jobs/job_x/events?after=99999999999999999999"],
)  # fmt: skip
def test_bad_parameters_name_themselves(client: httpx2.Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] in path


def test_unknown_addresses_and_methods_are_problems_too(client: httpx2.Client) -> None:
    assert client.get("/v1/nothing").json()["code"] == "not_found"
    assert client.delete("/v1/jobs").json()["code"] == "method_not_allowed"
    assert client.get("/v1/jobs/job_%00").status_code in (404, 422)
