"""Hostile URIs sent to the API, in every field: a 422 at the field or an acceptance, no crash and no echo."""

from __future__ import annotations

import json

import httpx2
import pytest

from tests.data.hostile_uris import hostile_uris
from tests.data.test_hostile_uris import SEED, body_with
from tests.integration.conftest import SPEC

POINTERS = {
    "dataset.uri": "/dataset/uri",
    "model.weights": "/model/weights",
    "search.space": "/search/space/model.weights/choices/1",
}


@pytest.mark.parametrize("count", [150, pytest.param(2500, marks=pytest.mark.long)])
def test_each_is_refused_at_its_field_or_taken(client: httpx2.Client, count: int) -> None:
    taken = 0
    for one in hostile_uris(SEED, count):
        for path in ("jobs?validate_only=true", "plans", "dataset_checks"):
            if path == "dataset_checks" and (one.field != "dataset.uri" or one.is_uri):
                continue
            body = body_with(one) if path != "dataset_checks" else {"task": SPEC["task"], "dataset": {"uri": one.uri}}
            answer = client.post(f"/v1/{path}", json=body)
            if answer.status_code == 200:
                taken += 1
                continue
            assert answer.status_code == 422, (one, answer.text)
            if len(one.uri) > 12:
                assert json.dumps(one.uri)[1:-1] not in answer.text, one
            assert POINTERS[one.field] in {entry["pointer"] for entry in answer.json()["errors"]}, (one, answer.text)
    assert taken > 0


@pytest.mark.parametrize("scheme", ["https", "gs", "az", "hf", "dvc"])
def test_the_refusal_of_a_scheme_names_its_setting(client: httpx2.Client, scheme: str) -> None:
    for field, pointer in list(POINTERS.items())[:2]:
        uri = f"{scheme}://place/model.safetensors"
        body = {**SPEC, "dataset": {"uri": uri}} if field == "dataset.uri" else {**SPEC, "model": {"weights": uri}}
        answer = client.post("/v1/jobs", json=body).json()
        (entry,) = [entry for entry in answer["errors"] if entry["pointer"] == pointer]
        assert "TRAINYARD_ALLOWED_SCHEMES" in entry["message"]
        assert "the workers" in entry["message"]
