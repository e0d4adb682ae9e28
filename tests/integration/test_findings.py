"""What a run finds and makes beside its curves: the efficiency account, artifacts, pins, and what went wrong and on."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2

from api.book.models import Attempt
from tests.integration.conftest import Control
from tests.integration.test_control import CLAIMED, STARTED, checkpoint, dispatched, finished, job_of
from training_core.contract import reports
from training_core.contract.errors import Reason

ACCOUNT: dict[str, Any] = {
    "step_seconds": 0.02,
    "speed": {"images_per_second": 3200.0, "ratio": 0.97},
    "memory": {"of": "process", "peak_bytes": 1000, "limit_bytes": 4000},
    "compared": {"data_seconds": {"predicted": 0.001, "measured": 0.002}},
    "verdict": {"kind": "compute_bound", "evidence": ["…"], "remedy": "a faster device"},
}
PREDICTION = {"step_seconds": 0.025, "images_per_second": 2560.0, "hours": 0.5, "basis": "probes"}
PLAN = reports.PlanChosen(
    resolved={"model.name": "resnet18"}, reasons={}, total_steps=10, total_epochs=1, world_size=1,
    compute={"strategy": "single"}, prediction=PREDICTION,
)  # fmt: skip


def running(client: httpx2.Client, control: Control) -> tuple[str, Attempt]:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, PLAN, STARTED, reports.FirstStep(step=1))
    return job_id, attempt


def efficiency(step: int, *, final: bool) -> reports.Efficiency:
    return reports.Efficiency(step=step, final=final, account=ACCOUNT)


def test_the_account_is_there_once_reported_with_the_prediction_beside_it(
    client: httpx2.Client, control: Control
) -> None:
    job_id, attempt = running(client, control)
    url = job_of(client, job_id)["urls"]["efficiency"]
    early = client.get(url)
    assert (early.status_code, early.json()["retryable"]) == (404, True)
    assert "first steps" in early.json()["hint"]
    tag = client.get(f"/v1/jobs/{job_id}").headers["etag"]
    control.report(attempt, efficiency(5, final=False))
    assert client.get(f"/v1/jobs/{job_id}").headers["etag"] != tag
    control.report(attempt, efficiency(10, final=True), finished(Reason.COMPLETED))
    answer = client.get(url).json()
    assert (answer["step"], answer["final"], answer["account"]) == (10, True, ACCOUNT)
    assert answer["prediction"] == PREDICTION
    measured = answer["measured"]
    assert (measured["step_seconds"], measured["images_per_second"], measured["data_seconds"]) == (0.02, 3200, 0.002)
    assert {"dispatched", "first_step", "finished"} <= set(answer["phases"])
    assert answer["cost"] is None
    job = job_of(client, job_id)
    assert job["plan"]["prediction"] == PREDICTION
    assert job["efficiency"]["measured"] == measured
    assert (job["efficiency"]["verdict"], job["efficiency"]["ratio_to_bound"]) == ("compute_bound", 0.97)


def test_a_job_that_ended_without_an_account_says_so(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = dispatched(client, control)
    control.report(attempt, CLAIMED, finished(Reason.DATASET_EMPTY, message="x"))
    answer = client.get(f"/v1/jobs/{job_id}/efficiency")
    assert (answer.status_code, answer.json()["retryable"]) == (404, False)


def test_exports_are_listed_and_downloaded_in_ranges(client: httpx2.Client, control: Control, tmp_path: Path) -> None:
    job_id, attempt = running(client, control)
    path = f"jobs/{job_id}/trial-0/exports/onnx"
    (tmp_path / path).mkdir(parents=True)
    (tmp_path / path / "model.onnx").write_bytes(b"0123456789")
    (tmp_path / path / "card.json").write_bytes(b"{}")
    saved = reports.ArtifactSaved(
        path=path, artifact="export", format="onnx", step=10, size_bytes=12,
        files={"model.onnx": 10, "card.json": 2},
        sha256={"model.onnx": sha256(b"0123456789").hexdigest(), "card.json": sha256(b"{}").hexdigest()},
        about={"checked": True},
    )  # fmt: skip
    control.report(attempt, saved)
    control.report(attempt, saved.model_copy(update={"step": 20}))  # a resumed training exports to the same place
    [listed] = client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"]
    url = f"/v1/jobs/{job_id}/artifacts/{listed['id']}"
    assert client.get(url).json() == listed
    assert (listed["kind"], listed["format"], listed["step"], listed["about"]) == (
        "export",
        "onnx",
        20,
        {"checked": True},
    )
    part = client.get(f"{listed['download_url']}?file=model.onnx", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert client.get(f"{listed['download_url']}?file=card.json").content == b"{}"
    assert client.get(listed["download_url"]).json()["hint"].endswith("card.json, model.onnx")
    for wrong in ("../x", "model.pt"):
        assert client.get(f"{listed['download_url']}?file={wrong}").status_code == 404
    (tmp_path / path / "model.onnx").unlink()
    assert client.get(f"{listed['download_url']}?file=model.onnx").status_code == 404


def test_another_projects_findings_do_not_exist(
    client: httpx2.Client, control: Control, api_url: str, keys: Callable[[str], str]
) -> None:
    job_id, attempt = running(client, control)
    control.report(attempt, checkpoint(3, "a/b"), efficiency(5, final=False))
    [saved] = client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    stranger = {"Authorization": f"Bearer {keys('other')}"}
    for part in ("/efficiency", "/artifacts", "/artifacts/art_x", "/artifacts/art_x/download"):
        assert httpx2.get(f"{api_url}/v1/jobs/{job_id}{part}", headers=stranger).status_code == 404, part
    for part in ("/pause", "/resume", "/profile", f"/checkpoints/{saved['id']}/pin"):
        assert httpx2.post(f"{api_url}/v1/jobs/{job_id}{part}", headers=stranger).status_code == 404, part


def test_a_pin_is_a_file_that_keeps_retention_away(client: httpx2.Client, control: Control, tmp_path: Path) -> None:
    job_id, attempt = running(client, control)
    for step in (3, 4):
        (tmp_path / f"c/{step}").mkdir(parents=True)
        (tmp_path / f"c/{step}/manifest.json").write_text("{}")
        control.report(attempt, checkpoint(step, f"c/{step}"))
    last, first = client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    pin = f"/v1/jobs/{job_id}/checkpoints/{first['id']}/pin"
    for _ in range(2):
        answer = client.post(pin)
        assert (answer.status_code, answer.json()["pinned"]) == (200, True)
        assert (tmp_path / "c/3/pinned").exists()
    for _ in range(2):
        assert not client.delete(pin).json()["pinned"]
        assert not (tmp_path / "c/3/pinned").exists()
    kinds = [event["type"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]
    assert kinds[-2:] == ["checkpoint.pinned", "checkpoint.unpinned"]

    (tmp_path / "c/4/manifest.json").unlink()  # retention has begun to delete it, and the book does not know yet
    gone = client.post(f"/v1/jobs/{job_id}/checkpoints/{last['id']}/pin")
    assert (gone.status_code, gone.json()["code"]) == (409, "checkpoint_deleted")
    assert not (tmp_path / "c/4/pinned").exists()
    control.report(attempt, reports.CheckpointDeleted(path="c/4"))
    assert client.post(f"/v1/jobs/{job_id}/checkpoints/{last['id']}/pin").status_code == 404


def test_troubles_that_a_run_survived_are_events(client: httpx2.Client, control: Control) -> None:
    job_id, attempt = running(client, control)
    oom = reports.OomRecovered(step=7, micro_batch_before=64, micro_batch_after=32, batch_size=64)
    alerts = [reports.AlertRaised(alert=name, message=name) for name in ("nan", "diverged", "data_bound")]
    control.report(attempt, oom, *alerts)
    [event] = client.get(f"/v1/jobs/{job_id}/events?types=oom.recovered").json()["data"]
    assert event["message"].endswith("the batch of 64 images goes on in pieces of 32 instead of 64")
    assert (event["level"], event["data"]["micro_batch_after"]) == ("warning", 32)
    raised = client.get(f"/v1/jobs/{job_id}/events?types=alert.raised").json()["data"]
    assert [one["level"] for one in raised] == ["error", "error", "warning"]
