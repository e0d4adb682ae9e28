"""Where the first weights come from, and what of them is taken."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import get_model, get_model_weights

from tests.training import running as runs
from tests.training.running import KEPT, NOBODYS
from training_core.checkpoints.manager import Checkpoints, Live
from training_core.checkpoints.train_state import TrainState
from training_core.contract.errors import Failed, Reason
from training_core.contract.reporter import Reports
from training_core.contract.run_dir import EventsFile, RunSpec
from training_core.contract.spec import JobSpec
from training_core.outgoing import Networks
from training_core.runtime.attempt import Attempt
from training_core.runtime.planning import plan_compute
from training_core.storage.store import open_store
from training_core.tasks.image_classification import transfer
from training_core.tasks.image_classification.origin import check_origin
from training_core.tasks.image_classification.transfer import Origin, check_fit, read_origin, start_from
from training_core.vision import published_weights
from training_core.vision.networks import make_model
from training_core.vision.prepare import prepare
from training_core.vision.published_weights import PUBLISHED, Published

NETWORK = "mobilenet_v3_small"
EARLIER = "jobs/earlier/trial-0/attempt-1/step-00000007"
LOOPBACK = Networks.of(["127.0.0.1"])


def make_run(
    folder: Path, model: dict[str, Any], training: dict[str, Any] | None = None, place: str = EARLIER
) -> RunSpec:
    """`place` is where the checkpoint `KEPT` lies in the store."""
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": f"file://{folder}/images"},
            "model": model,
            "training": training or {},
        }
    )
    return RunSpec(
        spec=spec, store=f"file://{folder}/store", cache_dir=folder / "cache", data_roots=[folder],
        references={KEPT: place}, allowed_networks=["127.0.0.1"],
    )  # fmt: skip


class Server(ThreadingHTTPServer):
    """Answers every GET with `body`, of which it sends `cut_after` bytes, or with `status`."""

    body = b""
    cut_after: int | None = None
    status = 200
    requests = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.requests += 1
        self.send_response(server.status)
        body = server.body if server.status == 200 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def published_network(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A network of torchvision, served the way torchvision's site serves it: a pickle with its hash in its name."""
    torch.manual_seed(5)
    tensors = get_model(NETWORK, weights=None).state_dict()
    file = tmp_path / "made.pth"
    torch.save(tensors, file)
    server.body = file.read_bytes()
    name = f"{NETWORK}-{hashlib.sha256(server.body).hexdigest()[:8]}.pth"
    monkeypatch.setitem(PUBLISHED, NETWORK, Published("TEST", f"http://127.0.0.1:{server.server_port}/{name}"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return dict(tensors)


def test_the_table_is_what_torchvision_says() -> None:
    for name, one in PUBLISHED.items():
        weights = get_model_weights(name).DEFAULT
        assert (one.version, one.url) == (weights.name, weights.url)
        transforms = weights.transforms()
        assert [value * 255 for value in transforms.mean] == published_weights.MEAN
        assert [value * 255 for value in transforms.std] == published_weights.DEVIATION


def test_the_folder_is_that_of_torch_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("TORCH_HOME", tmp_path / "a"), ("XDG_CACHE_HOME", tmp_path / "b")):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv(variable, str(value))
        assert published_weights.weights_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_published_weights_are_fetched_once_and_taken(
    tmp_path: Path, server: Server, published_network: dict[str, torch.Tensor]
) -> None:
    run = make_run(tmp_path, {"name": NETWORK, "pretrained": True})
    check_origin(run)
    origin = read_origin(run)
    assert origin is not None
    assert server.requests == 1
    model = make_model(NETWORK, channels=3, classes=4)
    fresh_head = model.state_dict()["classifier.3.weight"].clone()
    words = start_from(origin, model, ["a", "b", "c", "d"])
    state = model.state_dict()
    assert all(torch.equal(state[name], published_network[name]) for name in state if "classifier.3" not in name)
    assert torch.equal(state["classifier.3.weight"], fresh_head)
    assert f"{len(state) - 2} of {len(state)} tensors" in words
    assert "classifier.3" in words
    assert origin.statistics(3) == (published_weights.MEAN, published_weights.DEVIATION)


def test_a_job_from_published_weights(
    tmp_path: Path, images: Path, server: Server, published_network: dict[str, torch.Tensor]
) -> None:
    """In this process, which alone knows of the server; grey images, other classes, the model left to us."""
    run = runs.make_run(
        tmp_path,
        f"file://{images}",
        training={"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 1e-12}},
        model={"pretrained": True},
    )
    check_origin(run.spec)
    with EventsFile(run.dir.events) as events:
        prepared = prepare(run.spec, run.dir.stop_requested, events.append)
    check_fit(run.spec, prepared.folder, None)
    run.dir.write_prepared(prepared)
    plan_compute(run.dir)
    assert Attempt(run.dir).run() == 0, run.outcome
    assert server.requests == 1
    [plan] = run.of_kind("plan_chosen")
    assert plan.resolved["model.name"] == NETWORK
    for words in ("torchvision's mobilenet_v3_small TEST", "summed for grey images", "the last layer"):
        assert words in plan.reasons["model.pretrained"]
    path = run.file(run.last_checkpoint().path)
    about = json.loads((path / "manifest.json").read_text())["about"]
    assert about["preprocessing"]["mean"] == [pytest.approx(0.449 * 255, abs=0.2)]
    saved = load_file(path / "model.safetensors")
    torch.testing.assert_close(
        saved["features.0.0.weight"], published_network["features.0.0.weight"].sum(dim=1, keepdim=True)
    )


def test_a_file_in_the_weights_folder_needs_no_network(
    server: Server, published_network: dict[str, torch.Tensor]
) -> None:
    path = published_weights.weights_folder() / PUBLISHED[NETWORK].file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(server.body)
    assert published_weights.published_file(NETWORK, LOOPBACK) == path
    assert server.requests == 0


def spoil_status(server: Server) -> None:
    server.status = 404


def spoil_cut(server: Server) -> None:
    server.cut_after = 1000


def spoil_content(server: Server) -> None:
    server.body = server.body[:-1] + bytes([server.body[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_status, "answered 404"), (spoil_cut, "ended after 1,000"), (spoil_content, "something else")],
)
def test_weights_that_cannot_be_fetched(
    server: Server, published_network: dict[str, torch.Tensor], spoil: Any, words: str
) -> None:
    spoil(server)
    with pytest.raises(Failed, match=words) as raised:
        published_weights.published_file(NETWORK, LOOPBACK)
    assert raised.value.reason is Reason.WEIGHTS_UNAVAILABLE
    for way_out in (str(published_weights.weights_folder()), "model.weights", "model.pretrained"):
        assert way_out in (raised.value.hint or "")
    assert list(published_weights.weights_folder().iterdir()) == []


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(PUBLISHED, NETWORK, Published("TEST", "http://127.0.0.1:9/x-00000000.pth"))
    with pytest.raises(Failed, match="refused") as raised:
        published_weights.published_file(NETWORK, LOOPBACK)
    assert raised.value.reason is Reason.WEIGHTS_UNAVAILABLE


def test_a_changed_file_in_the_weights_folder_is_not_loaded(published_network: dict[str, torch.Tensor]) -> None:
    path = published_weights.weights_folder() / PUBLISHED[NETWORK].file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    with pytest.raises(Failed, match="SHA-256") as raised:
        published_weights.published_file(NETWORK, LOOPBACK)
    assert raised.value.reason is Reason.WEIGHTS_UNAVAILABLE


class Payload:
    """What a hostile pickle does when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def test_a_pickle_with_code_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published_network: dict[str, torch.Tensor]
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = tmp_path / "hostile.pth"
    torch.save({"weight": Payload()}, hostile)
    name = f"x-{hashlib.sha256(hostile.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(PUBLISHED, NETWORK, Published("TEST", f"http://127.0.0.1:9/{name}"))
    published_weights.weights_folder().mkdir(parents=True)
    hostile.rename(published_weights.weights_folder() / name)
    with pytest.raises(Failed, match="cannot be read"):
        read_origin(make_run(tmp_path, {"name": NETWORK, "pretrained": True}))
    assert not (tmp_path / "owned").exists()


def test_small_cnn_has_no_published_weights(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="small_cnn") as raised:
        check_origin(make_run(tmp_path, {"name": "small_cnn", "pretrained": True}))
    assert raised.value.reason is Reason.UNSUPPORTED
    assert "mobilenet_v3_small" in (raised.value.hint or "")


def test_grey_images_sum_the_first_filters() -> None:
    torch.manual_seed(0)
    colour = make_model(NETWORK, channels=3, classes=4).eval()
    origin = Origin("a network", dict(colour.state_dict()), classes=["a", "b", "c", "d"])
    grey = make_model(NETWORK, channels=1, classes=4).eval()
    assert "summed" in start_from(origin, grey, ["a", "b", "c", "d"])
    images = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_the_last_layer_is_kept_only_for_the_same_classes() -> None:
    model = make_model("small_cnn", channels=1, classes=2)
    origin = Origin("a network", dict(model.state_dict()), classes=["cat", "dog"])
    for classes, kept in ((["cat", "dog"], True), (["dog", "cat"], False)):
        other = make_model("small_cnn", channels=1, classes=2)
        start_from(origin, other, classes)
        assert torch.equal(list(model.parameters())[-2], list(other.parameters())[-2]) is kept


def test_another_network_is_refused_by_its_first_tensors() -> None:
    origin = Origin("that file", dict(make_model("small_cnn", channels=1, classes=2).state_dict()))
    with pytest.raises(Failed, match=r"conv1\.weight is missing.* and \d+ more") as raised:
        start_from(origin, make_model("resnet18", channels=1, classes=2), ["a", "b"])
    assert raised.value.reason is Reason.CHECKPOINT_INVALID


@pytest.mark.parametrize("change", ["shape", "nan"])
def test_tensors_that_do_not_fit_are_named(change: str) -> None:
    model = make_model("small_cnn", channels=1, classes=2)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["4.weight"] = tensors["4.weight"][1:] if change == "shape" else tensors["4.weight"] * float("nan")
    with pytest.raises(Failed, match=r"4\.weight"):
        start_from(Origin("that file", tensors), model, ["a", "b"])


def save_checkpoint(run: RunSpec) -> str:
    model = make_model("small_cnn", channels=1, classes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    live = Live(model.state_dict(), None, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    about = {
        "model": "small_cnn",
        "classes": ["a", "b"],
        "preprocessing": {"mean": [100.0], "standard_deviation": [50.0]},
    }
    checkpoints = Checkpoints(open_store(run), run.model_copy(update={"job_id": "earlier"}), Reports(None), about)
    checkpoints.save(live, TrainState(step=7), 1.0)
    checkpoints.settle()
    checkpoints.end()
    return EARLIER


def test_a_checkpoint_of_another_job_says_what_it_is(tmp_path: Path) -> None:
    save_checkpoint(make_run(tmp_path, {}))
    run = make_run(tmp_path, {"weights": KEPT})
    check_origin(run)
    origin = read_origin(run)
    assert origin is not None
    assert (origin.model, origin.classes) == ("small_cnn", ["a", "b"])
    assert origin.statistics(1) == ([100.0], [50.0])
    assert origin.statistics(3) == ([100.0] * 3, [50.0] * 3)


def test_a_damaged_checkpoint_is_not_taken(tmp_path: Path) -> None:
    path = save_checkpoint(make_run(tmp_path, {}))
    file = tmp_path / "store" / path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(Failed, match="not what the manifest says") as raised:
        read_origin(make_run(tmp_path, {"weights": KEPT}))
    assert raised.value.reason is Reason.CHECKPOINT_INVALID


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("jobs/none/step-1", Reason.WEIGHTS_UNAVAILABLE),
        ("../outside", Reason.CHECKPOINT_INVALID),
        ("/etc", Reason.CHECKPOINT_INVALID),
    ],
)
def test_checkpoints_that_are_not_there(tmp_path: Path, path: str, reason: Reason) -> None:
    with pytest.raises(Failed) as raised:
        check_origin(make_run(tmp_path, {"weights": KEPT}, place=path))
    assert raised.value.reason is reason


def test_an_id_that_nobody_resolved_is_no_checkpoint_and_leads_nowhere(tmp_path: Path) -> None:
    for read in (check_origin, read_origin):
        with pytest.raises(Failed, match=f"model.weights: there is no checkpoint {NOBODYS}") as raised:
            read(make_run(tmp_path, {"weights": NOBODYS}))
        assert raised.value.reason is Reason.WEIGHTS_UNAVAILABLE


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"weights": KEPT}, place="jobs/x")
    for content in (b"no json", b"[]", json.dumps({"about": 3}).encode()):
        open_store(run).write("jobs/x/manifest.json", content)
        with pytest.raises(Failed, match="its manifest is not what was written"):
            check_origin(run)


@pytest.mark.parametrize(
    "training",
    [
        {"augmentation": "light"},
        {"augmentation": {"mixup": 0.2}},
        {"augmentation": {"check": True}},
        {"sampling": {"buckets": "shape"}},
    ],
)
def test_a_frozen_trunk_refuses_what_changes_images(tmp_path: Path, training: dict[str, Any]) -> None:
    save_checkpoint(make_run(tmp_path, {}))
    run = make_run(tmp_path, {"weights": KEPT, "trainable": "head"}, training)
    with pytest.raises(Failed, match="trainable: head") as raised:
        check_origin(run)
    assert raised.value.reason is Reason.UNSUPPORTED
    assert transfer.read_origin(run) is not None
