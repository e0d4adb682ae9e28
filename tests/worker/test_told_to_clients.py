"""What a client reads of a failure, through the real runner: words and a way out, and nothing of the worker's host."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.running import make_images
from tests.waiting import eventually
from tests.worker.conftest import Book
from training_core.contract.messages import Ticket
from training_core.contract.spec import JobSpec
from worker import outcome
from worker.host import Host
from worker.process import LAUNCH
from worker.redaction import Redaction, places_of
from worker.runner import run_attempt
from worker.settings import Settings

RESNET = {"name": "small_resnet"}
NOBODYS = "ckpt_00000000000000000000000002"
Fail = Callable[..., dict[str, Any]]


@pytest.fixture
def fail(settings: Settings, program: tuple[str, ...], book: Book, tmp_path: Path) -> Iterator[Fail]:
    """Run a job of this spec on a worker with real trainings; what it finished with."""
    images = make_images(tmp_path / "data" / "stripes", each=12)
    broken = make_images(tmp_path / "data" / "broken", each=12)
    victim = broken / "class-1" / "005.png"
    victim.write_bytes(victim.read_bytes()[:-40])
    (images / "notes.txt").write_text("not an image")
    (tmp_path / "data" / "pets.zip").write_bytes(b"PK but no more")
    host = Host(settings.model_copy(update={"data_roots": [tmp_path / "data"]}), LAUNCH)
    host.journal.start()

    def run(uri: str = "file://stripes", **spec: Any) -> dict[str, Any]:
        dataset = {"uri": uri, "split": {"validation": 0.25}, **spec.pop("dataset", {})}
        training = {"epochs": 1, "batch_size": 12, **spec.pop("training", {})}
        whole = {"task": "image-classification", "dataset": dataset, "training": training, **spec}
        asked = JobSpec.model_validate(whole)
        ticket = Ticket(
            attempt_id="att_1", job_id="job_1", attempt=1, spec=asked, device="cpu", devices=1,
            incarnation=host.incarnation,
        )  # fmt: skip
        run_attempt(host, ticket)
        finished: dict[str, Any] = eventually(lambda: book.finished("att_1"))
        everything = json.dumps(book.lines["att_1"])
        assert str(tmp_path) not in everything
        assert sys.prefix not in everything
        assert str(Path(__file__).parents[2]) not in everything
        for file in (tmp_path / "store").rglob("*.json"):
            assert str(tmp_path) not in file.read_text(), "the data report is read by clients, too"
        return finished

    yield run
    host.journal.stop(0)
    host.redis.close()


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"uri": "file://broken", "dataset": {"cleaning": {"max_bad_fraction": 0}}}, "image_corrupt", "005.png"),
        ({"uri": "file://nowhere"}, "dataset_unreachable", "file://nowhere"),
        ({"uri": "file:///etc"}, "dataset_forbidden", "/etc"),
        ({"uri": "zip://::file://pets.zip"}, "dataset_invalid", "pets.zip"),
        ({"model": RESNET, "training": {"batch_size": 1, "image_size": 8}}, "unsupported", "a batch of 1"),
        (
            {"model": {"name": "small_cnn", "weights": NOBODYS}},
            "weights_unavailable",
            "model.weights",
        ),
    ],
)
def test_a_mistake_is_told_in_words_and_without_a_traceback(
    fail: Fail, spec: dict[str, Any], reason: str, words: str
) -> None:
    finished = fail(**spec)
    assert finished["reason"] == reason, finished
    assert words in finished["message"]
    assert finished["hint"]
    assert finished["log_excerpt"] is None


def test_a_batch_of_one_that_only_the_data_tells_is_refused_before_training(fail: Fail, tmp_path: Path) -> None:
    make_images(tmp_path / "data" / "tiny", classes=2, each=12, side=8)
    finished = fail("file://tiny", model=RESNET, training={"batch_size": 1})
    assert (finished["reason"], finished["phase"]) == ("unsupported", "preparing")
    assert "8 px come to 1 x 1" in finished["message"]


def test_a_fault_of_the_host_shows_its_log_without_its_folders(fail: Fail, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder of all checkpoints should be")
    finished = fail()
    assert finished["reason"] == "training_error", finished
    assert "Traceback" in finished["log_excerpt"]
    assert "<trainyard>/training_core/" in finished["log_excerpt"]


def test_paths_are_told_from_the_folder_on_and_the_clients_own_stay(settings: Settings, tmp_path: Path) -> None:
    roots = [tmp_path / "data"]
    places = places_of(settings.model_copy(update={"data_roots": roots}))
    dataset = {"uri": f"zip://::file://{tmp_path}/data/pets.zip"}
    redacted = Redaction(places, JobSpec.model_validate({"task": "image-classification", "dataset": dataset}))

    def told(text: str) -> str:
        return str(json.loads(redacted(json.dumps({"message": text}).encode()))["message"])

    assert told(f"{tmp_path}/store/jobs/x and {tmp_path}/cache: 'v1'") == "<store>/jobs/x and <cache>: 'v1'"
    assert told(f"see {settings.store}/jobs") == "see <store>/jobs"
    assert told(f"{tmp_path}/data/pets.zip is no zip") == f"{tmp_path}/data/pets.zip is no zip"
    assert told(f"{tmp_path}/data/others/1.png") == "<data>/others/1.png"
    assert told(f"{tmp_path}/store-of-others") == f"<tmp>{str(tmp_path).removeprefix('/tmp')}/store-of-others"
    assert told(f's3://bucket{tmp_path}/store "x"') == f's3://bucket{tmp_path}/store "x"'


@pytest.mark.parametrize("told", [True, False])
def test_the_log_is_for_what_nobody_can_say_otherwise(tmp_path: Path, *, told: bool) -> None:
    log = tmp_path / "log.txt"
    log.write_text("Traceback")
    reason = outcome.Reason.TRAINING_ERROR if told else outcome.Reason.DATASET_INVALID
    failed = outcome.Outcome(result="failed", reason=reason, phase="running", message="x")
    report = outcome.settle(1, failed, None, phase="running", out_of_memory=False, log=log)
    assert report is not None
    assert (report.log_excerpt == "Traceback") is told
