"""Checkpoints: written beside the training, whole or not at all, verified to the bit when they are read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from tests.training.keeping import Trained, network, run_in, spec_of
from training_core.checkpoints import checkpoint, resume, safetensors_file
from training_core.checkpoints.manager import Live
from training_core.checkpoints.manifest import Damaged, read_manifest
from training_core.contract.errors import Failed, Reason
from training_core.contract.reporter import Reports
from training_core.storage.store import FolderStore, Sink


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Trained]:
    one = Trained(tmp_path, run_in(tmp_path))
    yield one
    one.close()


def test_our_safetensors_are_those_of_the_library() -> None:
    tensors = {
        "b.weight": torch.randn(4, 3, 2, 2),
        "a": torch.arange(7, dtype=torch.int64),
        "half": torch.randn(3, 5).to(torch.bfloat16),
        "one": torch.tensor(1.5),
        "none": torch.empty(0, 3),
        "flags": torch.tensor([True, False]),
    }
    assert b"".join(bytes(piece) for piece in safetensors_file.pieces(tensors)) == save(tensors)


def test_a_tensor_in_another_layout_is_written_in_the_plain_one() -> None:
    tensor = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    content = b"".join(bytes(piece) for piece in safetensors_file.pieces({"x": tensor}))
    assert content == save({"x": tensor.contiguous()})


def test_what_is_read_is_what_was_there_at_the_moment_of_the_save(trained: Trained) -> None:
    path = trained.save(steps=3)
    expected = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    trained.step()  # goes on while the thread writes
    trained.checkpoints.settle()
    content = checkpoint.read(trained.store, path, trained.run)
    for name, tensor in expected.items():
        assert torch.equal(content.model[name], tensor), name
    assert [point.step for point in content.history] == [1, 2, 3]
    assert (content.state.step, content.state.kept) == (3, [path])


def test_a_restored_optimizer_takes_the_same_step(trained: Trained) -> None:
    path = trained.settled(steps=3)
    content = checkpoint.read(trained.store, path, trained.run)
    again = network()
    again.load_state_dict(content.trained)
    optimizer = torch.optim.AdamW(again.parameters(), lr=1e-2)
    checkpoint.restore_optimizer(optimizer, content)
    batch = torch.randn(8, 3, 4, 4)
    for model, steps in ((trained.model, trained.optimizer), (again, optimizer)):
        steps.zero_grad()
        model(batch).square().mean().backward()
        steps.step()
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_averaged_and_raw_weights_are_kept_apart(trained: Trained) -> None:
    trained.step()
    raw = trained.model.state_dict()
    average = {name: tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    trained.checkpoints.save(Live(average, raw, trained.optimizer, trained.scaler), trained.state, 1.0)
    trained.checkpoints.settle()
    assert trained.state.last_checkpoint is not None
    content = checkpoint.read(trained.store, trained.state.last_checkpoint, trained.run)
    for name, tensor in raw.items():
        assert torch.equal(content.trained[name], tensor)
        assert torch.equal(content.model[name], average[name])


def test_numbers_in_the_state_of_an_optimizer_come_back(trained: Trained) -> None:
    for _ in range(2):
        trained.step()
    for one in trained.optimizer.state.values():
        one["rounds"] = 2
    content = checkpoint.read(trained.store, trained.settled(), trained.run)
    again = torch.optim.AdamW(network().parameters(), lr=1e-2)
    checkpoint.restore_optimizer(again, content)
    assert all(one["rounds"] == 2 for one in again.state.values())


class SlowStore(FolderStore):
    """A folder whose large files wait until they are let go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.let_go = threading.Event(), threading.Event()

    @contextmanager
    def create(self, path: str, *, durable: bool = True) -> Iterator[Sink]:
        self.begun.set()
        assert self.let_go.wait(20)
        with super().create(path, durable=durable) as file:
            yield file


def test_nothing_is_said_or_deleted_before_the_newer_one_is_there(tmp_path: Path, trained: Trained) -> None:
    first = trained.settled()
    trained.store = slow = SlowStore(tmp_path / "store")
    trained.keeper()
    second = trained.save()
    assert slow.begun.wait(20)
    trained.checkpoints.poll()
    assert [one.path for one in trained.said("checkpoint_saved")] == [first]
    assert trained.there() == ["step-00000001"]
    slow.let_go.set()
    trained.checkpoints.settle()
    assert [one.path for one in trained.said("checkpoint_saved")] == [first, second]
    assert [one.path for one in trained.said("checkpoint_deleted")] == [first]
    assert trained.there() == ["step-00000002"]


def test_the_next_save_waits_for_the_one_before(tmp_path: Path, trained: Trained) -> None:
    trained.store = slow = SlowStore(tmp_path / "store")
    trained.keeper(keep_last=5)
    trained.save()
    assert slow.begun.wait(20)
    threading.Timer(0.05, slow.let_go.set).start()
    trained.save()
    assert [one.step for one in trained.said("checkpoint_saved")] == [1]
    trained.checkpoints.settle()
    assert trained.there() == ["step-00000001", "step-00000002"]


def test_best_last_and_pinned_stay(trained: Trained) -> None:
    trained.keeper(keep_last=2)
    paths = []
    for number in range(1, 7):
        if number == 2:
            trained.state.best, trained.state.best_step = 0.9, 2
        paths.append(trained.settled())
        if number == 3:
            trained.path(f"{paths[2]}/pinned").touch()
    assert trained.there() == [f"step-{number:08d}" for number in (2, 3, 5, 6)]
    reasons = {one.step: one.kept_because for one in trained.said("checkpoint_saved")}
    assert reasons == {1: "last", 2: "best", 3: "pinned", 4: "last", 5: "last", 6: "last"}
    trained.path(f"{paths[2]}/pinned").unlink()
    trained.settled()
    assert trained.there() == [f"step-{number:08d}" for number in (2, 6, 7)]


def test_a_former_best_is_told_to_be_the_last(trained: Trained) -> None:
    trained.keeper(keep_last=2)
    for number in (1, 2):
        trained.state.best_step = number
        trained.settled()
    assert [(one.step, one.kept_because) for one in trained.said("checkpoint_saved")] == [
        (1, "best"), (2, "best"), (1, "last"),
    ]  # fmt: skip


def test_weights_that_are_no_numbers_get_no_checkpoint(trained: Trained) -> None:
    good = trained.settled()
    with torch.no_grad():
        next(trained.model.parameters())[0, 0, 0, 2] = float("nan")
    trained.checkpoints.save(trained.live, trained.state, 0.5)
    trained.state.step += 1
    trained.checkpoints.save(trained.live, trained.state, 0.5)
    trained.checkpoints.settle()
    assert trained.there() == ["step-00000001"]
    assert (trained.state.last_checkpoint, trained.state.kept) == (good, [good])
    assert [one.alert for one in trained.said("alert_raised")] == ["nan"]


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_flipped_bit_in_any_file_is_seen(trained: Trained, where: str) -> None:
    sound = trained.settled()
    trained.keeper(keep_last=5)
    damaged = trained.settled()
    names = sorted(one.name for one in trained.path(damaged).iterdir())
    assert names == ["history.jsonl", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    for name in names:
        file = trained.path(f"{damaged}/{name}")
        content = file.read_bytes()
        place = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}[where]
        for bit in (0, 6):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            file.write_bytes(changed)
            path, read = trained.resumed(damaged)
            assert path == sound, f"{name} with another bit {bit} was taken"
            assert read is not None
            assert read.state.step == 1
            if name in {"manifest.json", "model.safetensors"}:
                with pytest.raises(Damaged):
                    checkpoint.read_model(trained.store, damaged)
        file.write_bytes(content)
    assert trained.resumed(damaged)[0] == damaged


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["gone", "empty", "half"])
def test_a_file_that_is_not_whole(trained: Trained, name: str, how: str) -> None:
    path = trained.settled()
    file = trained.path(f"{path}/{name}")
    content = file.read_bytes()
    file.unlink()
    if how != "gone":
        file.write_bytes(content[: len(content) // 2] if how == "half" else b"")
    assert trained.resumed(path) == ("", None)
    assert trained.said("alert_raised")[-1].alert == "checkpoint_damaged"


def test_a_pickle_is_never_opened(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    path = trained.settled()
    torch.save(trained.model.state_dict(), trained.path(f"{path}/model.safetensors"))
    for name in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(name, opened)
    assert trained.resumed(path) == ("", None)
    with pytest.raises(Damaged):
        checkpoint.read_model(trained.store, path)


def test_a_checkpoint_of_another_spec_is_refused_with_the_fields_that_differ(tmp_path: Path, trained: Trained) -> None:
    path = trained.settled()
    other = run_in(tmp_path, spec=spec_of(batch_size=12), resume_from=path, attempt=2)
    with pytest.raises(Failed, match=r"training\.batch_size is the default there and 12 here") as raised:
        resume.choose(trained.store, other, Reports(None))
    assert raised.value.reason is Reason.CHECKPOINT_INVALID


def test_every_file_is_read_once(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained.settled()
    read: list[str] = []
    original = FolderStore.read

    def counted(self: FolderStore, name: str) -> bytes:
        read.append(name)
        return original(self, name)

    monkeypatch.setattr(FolderStore, "read", counted)
    trained.resumed(path)
    assert len(read) == len(set(read)) == len(list(trained.path(path).iterdir()))


def test_leftovers_of_killed_writers_go_and_what_nobody_was_told_of_is_kept_in_mind(
    tmp_path: Path, trained: Trained
) -> None:
    told = trained.settled()
    trained.keeper(keep_last=5)
    untold = trained.settled()
    half = trained.path(told).with_name("step-00000003")
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    empty = half.with_name("step-00000004")
    empty.mkdir()  # killed before its first file
    trace = trained.path(told).parent / "traces" / "step-00000002"
    trace.mkdir(parents=True)
    (trace / "trace.json").write_text("{}")
    second = Trained(tmp_path, run_in(tmp_path, attempt=2))
    _, content = trained.resumed(told)
    assert content is not None
    second.state = content.state
    second.checkpoints.begin(second.state)
    assert not half.exists()
    assert not empty.exists()
    assert (trace / "trace.json").exists()
    assert second.state.kept == [untold, told]
    newer = second.settled()
    assert [one.path for one in second.said("checkpoint_deleted")] == [untold, told]
    assert second.state.kept == [newer]
    second.close()


def test_the_manifest_says_whose_it_is(trained: Trained) -> None:
    trained.keeper()
    manifest = read_manifest(trained.store, trained.settled())
    assert manifest.about == {"model": "small_cnn"}
    assert manifest.spec["dataset"] == {"uri": "file://x"}


class FailingStore(FolderStore):
    """A folder that answers the first `times` writes of large files with `error`."""

    def __init__(self, root: Path, error: Exception, times: int) -> None:
        super().__init__(root)
        self.error, self.times, self.asked = error, times, 0

    def create(self, path: str, *, durable: bool = True) -> AbstractContextManager[Sink]:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return super().create(path, durable=durable)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries more, at once."""
    monkeypatch.setattr("training_core.storage.retry.PAUSES_SECONDS", (0.0, 0.0))


@pytest.mark.usefixtures("hasty")
def test_a_passing_error_of_the_store_is_told_and_the_checkpoint_is_written(tmp_path: Path, trained: Trained) -> None:
    trained.store = FailingStore(tmp_path / "store", ConnectionResetError("gone for a moment"), times=2)
    trained.keeper()
    path = trained.settled()
    alerts = trained.said("alert_raised")
    assert [one.alert for one in alerts] == ["checkpoint_delayed"] * 2
    assert "gone for a moment" in alerts[0].message
    assert trained.resumed(path)[0] == path


@pytest.mark.parametrize(
    ("error", "reason", "tries"),
    [
        (OSError(28, "No space left on device"), Reason.NO_SPACE, 1),
        (TimeoutError("no answer"), Reason.TRAINING_ERROR, 3),
    ],
)
@pytest.mark.usefixtures("hasty")
def test_a_lasting_error_ends_the_training_with_its_reason(
    tmp_path: Path, trained: Trained, error: Exception, reason: Reason, tries: int
) -> None:
    good = trained.settled()
    trained.store = store = FailingStore(tmp_path / "store", error, times=99)
    trained.keeper()
    trained.save()
    with pytest.raises(Failed) as raised:
        trained.checkpoints.settle()
    assert (raised.value.reason, store.asked) == (reason, tries)
    assert trained.resumed(good)[0] == good


def test_an_error_of_ours_is_not_tried_again(tmp_path: Path, trained: Trained) -> None:
    trained.store = store = FailingStore(tmp_path / "store", PermissionError(13, "not yours"), times=99)
    trained.keeper()
    trained.save()
    with pytest.raises(PermissionError):
        trained.checkpoints.settle()
    assert store.asked == 1


def test_the_buffers_are_used_again(trained: Trained) -> None:
    trained.settled()
    memory: Any = trained.checkpoints._memory
    before = {name: tensor.data_ptr() for name, tensor in memory._buffers["model"].items()}
    trained.settled()
    assert {name: tensor.data_ptr() for name, tensor in memory._buffers["model"].items()} == before


def test_files_can_be_read_by_the_library(trained: Trained) -> None:
    path = trained.settled()
    tensors = load_file(trained.path(f"{path}/model.safetensors"))
    assert tensors.keys() == trained.model.state_dict().keys()
    assert all(json.loads(trained.path(f"{path}/state.json").read_text()))
