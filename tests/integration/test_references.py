"""What the service made is named by id, found under the caller's project alone, and kept while a job needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.book.models import Attempt
from tests.integration.conftest import SPEC, Control
from tests.integration.search_book import RATE, Book, tickets
from training_core.contract import reports
from training_core.contract.errors import Reason

CLAIMED = reports.Claimed(worker="host-a", incarnation="one")
METRICS = {"validation/loss": 0.5, "validation/accuracy": 0.75}
UNKNOWN = "There is no such checkpoint or job in this project"
PATH = "jobs/job_01J9Z3K4M5N6P7Q8R9S0T1V2W3/trial-0/attempt-1/step-00000001"


def saved(attempt: Attempt, step: int, root: Path, kept_because: str = "best") -> reports.CheckpointSaved:
    path = f"jobs/{attempt.job_id}/trial-0/attempt-1/step-{step:08d}"
    (root / path).mkdir(parents=True)
    (root / path / "manifest.json").write_text("{}")
    return reports.CheckpointSaved(
        path=path, step=step, epoch=1, metrics=METRICS, size_bytes=2, kept_because=kept_because,
        files={"manifest.json": 2}, sha256={"manifest.json": "0" * 64},
    )  # fmt: skip


class Trained:
    """A job that has written one checkpoint, and runs on."""

    def __init__(self, client: httpx2.Client, control: Control, root: Path) -> None:
        self.client, self.control, self.root = client, control, root
        self.id = client.post("/v1/jobs", json=SPEC).json()["id"]
        control.heartbeat(slots=8)
        control.dispatcher.dispatch()
        self.attempt = control.attempts()[-1]
        control.report(self.attempt, CLAIMED, reports.Started(), saved(self.attempt, 7, root))
        [self.checkpoint] = client.get(f"/v1/jobs/{self.id}/checkpoints").json()["data"]

    @property
    def place(self) -> str:
        return f"jobs/{self.id}/trial-0/attempt-1/step-00000007"

    def ends(self) -> None:
        summary = reports.Summary(
            metrics=METRICS, best_step=7, best_checkpoint=self.place, seconds={}, images_seen=1, images_per_second=1.0
        )
        self.control.report(self.attempt, summary, reports.Finished(reason=Reason.COMPLETED, phase="running"))

    def goes(self) -> None:
        self.control.report(self.attempt, reports.CheckpointDeleted(path=self.place))

    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = self.client.get(f"/v1/jobs/{self.id}").json()
        return job


@pytest.fixture
def trained(client: httpx2.Client, control: Control, tmp_path: Path) -> Trained:
    return Trained(client, control, tmp_path)


@pytest.fixture
def other(api_url: str, keys: Callable[..., str]) -> Iterator[httpx2.Client]:
    """Of another project."""
    headers = {"Authorization": f"Bearer {keys('other')}"}
    with httpx2.Client(base_url=api_url, headers=headers, timeout=20) as client:
        yield client


def weights(name: str) -> dict[str, Any]:
    return {**SPEC, "model": {"weights": name}}


def teacher(name: str) -> dict[str, Any]:
    return {**SPEC, "training": {"distillation": {"teacher": name}}}


def chosen(name: str) -> dict[str, Any]:
    space = {"model.weights": {"type": "categorical", "choices": ["s3://bucket/x.safetensors", name]}}
    return {**SPEC, "search": {"space": space, "trials": 2}}


def warm_start(name: str) -> dict[str, Any]:
    space = {RATE: {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}}
    return {**SPEC, "search": {"space": space, "warm_start": [name]}}


FIELDS = [
    (weights, "/model/weights"),
    (teacher, "/training/distillation/teacher"),
    (chosen, "/search/space/model.weights/choices/1"),
]


def said(answer: httpx2.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(one["pointer"], one["message"]) for one in answer.json()["errors"]]


@pytest.mark.parametrize(("make", "pointer"), FIELDS)
def test_what_another_project_made_is_refused_in_the_words_for_what_nobody_made(
    other: httpx2.Client, trained: Trained, make: Callable[[str], dict[str, Any]], pointer: str
) -> None:
    trained.ends()
    nobodys = ["ckpt_01J9Z3K4M5N6P7Q8R9S0T1V2W3", "job_01J9Z3K4M5N6P7Q8R9S0T1V2W3"]
    for name in (trained.checkpoint["id"], trained.id, *nobodys):
        for path in ("/v1/jobs", "/v1/jobs?validate_only=true", "/v1/plans"):
            assert said(other.post(path, json=make(name))) == [(pointer, UNKNOWN)]
    for name in (trained.checkpoint["id"], trained.id):
        assert trained.client.post("/v1/jobs", json=make(name)).status_code == 202


def test_a_search_of_another_project_warms_nobody(
    client: httpx2.Client, control: Control, other: httpx2.Client
) -> None:
    book = Book(client, control)
    words = [said(other.post("/v1/jobs", json=warm_start(name))) for name in (book.id, f"job_{'0' * 26}")]
    assert words[0] == words[1] == [("/search/warm_start/0", "There is no such search in this project")]


@pytest.mark.parametrize(("make", "pointer"), FIELDS)
@pytest.mark.parametrize("path", [PATH, f"/{PATH}", f"../{PATH}", "ckpt_1", "job_", "model.safetensors"])
def test_no_path_leads_into_the_store(
    client: httpx2.Client, make: Callable[[str], dict[str, Any]], pointer: str, path: str
) -> None:
    [(where, words)] = said(client.post("/v1/jobs", json=make(path)))
    assert where == pointer
    assert "ckpt_…" in words


def test_a_ticket_says_where_the_ids_lie_and_an_id_that_went_is_left_out(
    client: httpx2.Client, control: Control, trained: Trained
) -> None:
    trained.ends()
    by_job = client.post("/v1/jobs", json=weights(trained.id)).json()["id"]
    by_checkpoint = client.post("/v1/jobs", json=teacher(trained.checkpoint["id"])).json()["id"]
    control.dispatcher.dispatch()
    sent = {ticket.job_id: ticket.references for ticket in tickets(control)}
    assert sent[by_job] == {trained.id: trained.place}
    assert sent[by_checkpoint] == {trained.checkpoint["id"]: trained.place}
    assert sent[trained.id] == {}


def test_a_checkpoint_that_retention_took_is_said_to_be_gone(trained: Trained) -> None:
    trained.goes()
    [(pointer, words)] = said(trained.client.post("/v1/jobs", json=weights(trained.checkpoint["id"])))
    assert (pointer, "deleted by retention" in words) == ("/model/weights", True)


def test_a_job_stands_for_its_best_checkpoint_once_it_has_ended(client: httpx2.Client, trained: Trained) -> None:
    [(_, words)] = said(client.post("/v1/jobs", json=weights(trained.id)))
    assert "has not ended" in words
    trained.goes()
    trained.ends()
    assert said(client.post("/v1/jobs", json=weights(trained.id))) == [("/model/weights", "This job has no checkpoint")]


def test_what_a_job_starts_from_is_pinned_while_retention_could_take_it(trained: Trained, tmp_path: Path) -> None:
    pin = tmp_path / trained.place / "pinned"
    assert trained.client.post("/v1/jobs?validate_only=true", json=weights(trained.checkpoint["id"])).is_success
    assert not pin.exists()
    assert trained.client.post("/v1/jobs", json=weights(trained.checkpoint["id"])).status_code == 202
    assert pin.exists()
    url = f"/v1/jobs/{trained.id}/checkpoints/{trained.checkpoint['id']}"
    assert trained.client.get(url).json()["pinned"] is True


def test_a_checkpoint_that_goes_at_this_very_moment_is_a_409_and_books_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / trained.place / "manifest.json").unlink()
    answer = trained.client.post("/v1/jobs", json=weights(trained.checkpoint["id"]))
    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_deleted")
    assert len(trained.client.get("/v1/jobs").json()["data"]) == 1


def test_answers_name_checkpoints_by_id_and_say_where_the_job_ran(trained: Trained) -> None:
    trained.ends()
    job, own = trained.job(), trained.checkpoint["id"]
    assert job["best"] == {"trial": 0, "value": 0.5, "checkpoint": own, "step": 7, "metrics": METRICS}
    assert job["result"]["best_checkpoint"] == own
    assert job["hosts"] == ["host-a"]
    assert "path" not in trained.checkpoint
