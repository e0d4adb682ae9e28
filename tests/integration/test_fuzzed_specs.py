"""Whatever is sent as a spec is booked whole or refused with a place, and what it said is never repeated."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.bodies.reading import Refused, read
from api.bodies.spaces import space_faults
from training_core.contract.spec import JobSpec

SECRET = "AKIAVERYSECRET"
WHOLE: dict[str, Any] = {
    "task": "image-classification",
    "dataset": {"uri": "s3://pets/", "columns": {}, "split": {}, "cleaning": {}, "label_check": {}},
    "model": {},
    "compute": {"precision": "bf16", "micro_batch_size": 8, "compile": True},
    "training": {
        "optimizer": {"betas": [0.9, 0.99], "weight_decay_by_layer": {"fc": 0.1}},
        "schedule": {}, "augmentation": {}, "sampling": {}, "resizing": {"start": 0.5},
        "early_stopping": {"target": 0.9}, "distillation": {"teacher": "ckpt_00000000000000000000000002"},
    },
    "budget": {"max_cost": "5"},
    "exports": ["onnx"],
    "labels": {"team": "a"},
}  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(SECRET), st.just("auto"),
    st.just([SECRET]), st.just({"start": SECRET}), st.just({SECRET.lower(): 1}),
)  # fmt: skip


def places(value: Any, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, inner in inside for place in places(inner, (*path, name)))]


NAMES = [*JobSpec.model_fields, "lerning_rate", "start", "0", "literal['auto']", "Resizing", "a/b~c"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_mutilated_spec_is_booked_whole_or_refused_with_a_place(data: st.DataObject) -> None:
    spec = json.loads(json.dumps(WHOLE))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(spec)))
        parent, value = spec, deepcopy(data.draw(LEAVES))
        for part in path[:-1]:
            parent = parent[part]
        if not path:
            continue
        if data.draw(st.booleans()):
            parent[path[-1]] = value
        elif isinstance(parent, dict):
            parent[data.draw(st.sampled_from(NAMES))] = value
    well_answered(spec)


def parsed(spec: Any) -> JobSpec | Refused:
    try:
        return read(json.dumps(spec).encode(), JobSpec, space_faults)
    except Refused as refused:
        return refused


def well_answered(spec: Any) -> None:
    answer = parsed(spec)
    if isinstance(answer, JobSpec):
        assert JobSpec.model_validate_json(answer.model_dump_json()) == answer
        return
    assert (answer.status, bool(answer.entries)) == (422, True)
    assert SECRET not in json.dumps([{**entry, "pointer": ""} for entry in answer.entries])
    for entry in answer.entries:
        assert stands_at(entry["pointer"], spec) or entry["code"] == "missing", entry


def stands_at(pointer: str, document: Any) -> bool:
    """Whether the pointer (RFC 6901) leads to something that was sent."""
    for raw in pointer.split("/")[1:]:
        part = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list):
            document = document[int(part)]
        elif isinstance(document, dict) and part in document:
            document = document[part]
        else:
            return False
    return True
