"""What a job leaves besides its weights: its efficiency account, a trace that was asked for, an export, and a pin."""

from __future__ import annotations

import hashlib

from tests.e2e.conftest import SPEC, Service
from tests.waiting import eventually


def test_a_job_explains_itself_and_leaves_its_trace_and_its_export(service: Service) -> None:
    longer = {**SPEC, "training": {**SPEC["training"], "epochs": 60, "keep_last_checkpoints": 3}}  # type: ignore[dict-item]
    with service.http() as http:
        planned = http.post("/v1/plans?train_images=270", json={"task": "image-classification", **longer}).json()
    job_id = service.submit(**longer, exports=["safetensors"])
    service.until(job_id, "checkpoint.saved")
    with service.http() as http:
        assert http.post(f"/v1/jobs/{job_id}/profile").status_code == 202
    pinned = eventually(lambda: _pin_the_newest(service, job_id))
    job = service.ended(job_id)
    assert job["status"] == "succeeded", job

    efficiency = service.get(job["urls"]["efficiency"])
    assert efficiency["final"]
    assert efficiency["account"]["verdict"]["kind"]
    assert job["efficiency"]["verdict"] == efficiency["account"]["verdict"]["kind"]
    assert efficiency["measured"]["images_per_second"] > 0
    assert set(efficiency["prediction"]) == set(planned["plan"]["prediction"])
    assert 0 < job["device_hours"] < 1

    artifacts = {one["kind"]: one for one in service.get(job["urls"]["artifacts"])["data"]}
    assert set(artifacts) == {"trace", "export"}
    with service.http() as http:
        for artifact in artifacts.values():
            for name, digest in artifact["sha256"].items():
                content = http.get(f"{artifact['download_url']}?file={name}").content
                assert hashlib.sha256(content).hexdigest() == digest, name
    left = {one["id"]: one for one in service.get(f"/v1/jobs/{job_id}/checkpoints")["data"]}
    assert pinned in left
    assert left[pinned]["step"] < sorted(one["step"] for one in left.values())[-3]  # of the last three it is none
    assert not job["profile_requested"]


def _pin_the_newest(service: Service, job_id: str) -> str | None:
    """None where retention was faster."""
    newest = service.get(f"/v1/jobs/{job_id}/checkpoints")["data"][0]["id"]
    with service.http() as http:
        answer = http.post(f"/v1/jobs/{job_id}/checkpoints/{newest}/pin")
    return str(newest) if answer.status_code == 200 else None
