"""Disks that are too small, and stores that are not disks."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.conftest import S3
from tests.training.keeping import Trained, network, run_in
from training_core.checkpoints import checkpoint
from training_core.checkpoints.disk_forecast import check_room, checkpoint_bytes, optimizer_bytes
from training_core.checkpoints.manifest import PINNED, candidates
from training_core.checkpoints.train_state import TrainState
from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import RunDir
from training_core.storage.store import FolderStore, ObjectStore, open_store

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB of its own, with the store."""
    folder = tmp_path / "store"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("only who may mount can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_newest_sound_checkpoint(tmp_path: Path, small_disk: Path) -> None:
    trained = Trained(tmp_path, run_in(tmp_path), model=network(32))
    good = trained.settled()
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 8192))
    trained.save()
    with pytest.raises(Failed) as raised:
        trained.checkpoints.settle()
    assert raised.value.reason is Reason.NO_SPACE
    assert "the checkpoint of step 2" in raised.value.message
    assert trained.resumed(good)[0] == good
    ballast.unlink()
    again = Trained(tmp_path, run_in(tmp_path, attempt=2))
    again.checkpoints.begin(TrainState())
    assert [one.name for one in small_disk.rglob("step-*")] == ["step-00000001"]
    again.close()
    trained.close()


def _with_limit(check: Callable[[], None], most_bytes: int) -> int:
    """The exit code of a process that may write no larger file than `most_bytes`."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # the threads of a fork's parent do not live in the fork
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            check()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_file_that_may_not_grow_is_no_space(tmp_path: Path) -> None:
    def check() -> None:
        trained = Trained(tmp_path, run_in(tmp_path), model=network(64))
        trained.save()
        with pytest.raises(Failed) as raised:
            trained.checkpoints.settle()
        assert raised.value.reason is Reason.NO_SPACE
        assert trained.there() == []
        assert list(trained.path("jobs").rglob("*.tmp")) == []

    assert _with_limit(check, 4096) == 0


def training(folder: Path, free: int, *, optimizer: torch.optim.Optimizer, kept: int = 0, ema: bool = False) -> Any:
    """As much of a training as a forecast looks at, with a store of which the free bytes are known."""
    model = network()
    reports: list[str] = []
    spoken = SimpleNamespace(alert=lambda alert, message, **_: reports.append(f"{alert}: {message}"))
    store = SimpleNamespace(free_bytes=lambda: free)
    content = SimpleNamespace(
        judged_weights=model.state_dict,
        optimizer=optimizer,
        plan=SimpleNamespace(keep_last_checkpoints=2, ema_decay=0.9 if ema else None),
        state=TrainState(kept=[f"step-{number}" for number in range(kept)]),
        run_dir=RunDir(folder),
        reports=spoken,
    )
    return content, store, reports


def one_checkpoint(content: Any) -> int:
    return checkpoint_bytes(content.judged_weights(), content.optimizer, averaged=content.plan.ema_decay is not None)


def room_for(content: Any, store: Any) -> None:
    keep_last, there = content.plan.keep_last_checkpoints, len(content.state.kept)
    one, run_dir, reports = one_checkpoint(content), content.run_dir, content.reports
    check_room(one, keep_last=keep_last, there=there, store=store, run_dir=run_dir, reports=reports)


@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
        lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True),
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.1),
        lambda parameters: torch.optim.RAdam(parameters, lr=0.1),
        lambda parameters: torch.optim.NAdam(parameters, lr=0.1),
        lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
        lambda parameters: torch.optim.Adamax(parameters, lr=0.1),
    ],
)
def test_the_forecast_of_a_checkpoint_is_its_size(tmp_path: Path, make: Any, ema: bool) -> None:
    trained = Trained(tmp_path, run_in(tmp_path), model=network(64))
    trained.optimizer = make(trained.model.parameters())
    content, _, _ = training(tmp_path, 0, optimizer=trained.optimizer, ema=ema)
    content.judged_weights = trained.model.state_dict
    forecast = one_checkpoint(content)
    trained.step()
    raw = trained.model.state_dict() if ema else None
    live = trained.live
    trained.checkpoints.save(type(live)(live.model, raw, live.optimizer, live.scaler), trained.state, 0.5)
    trained.checkpoints.settle()
    assert trained.state.last_checkpoint is not None
    files = trained.path(trained.state.last_checkpoint).glob("*.safetensors")
    # Headers and counters of single numbers come on top.
    assert forecast <= sum(one.stat().st_size for one in files) < forecast + 8192
    assert optimizer_bytes(trained.optimizer) <= forecast
    trained.close()


def test_too_little_room_is_told_before_the_first_step(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(network(64).parameters(), lr=0.1)
    content, store, _ = training(tmp_path, 0, optimizer=optimizer)
    needed = 4 * one_checkpoint(content)  # two newest, the best, and one on its way
    for free, verdict in ((needed - 1, "refused"), (needed, "tight"), (2 * needed, "fine")):
        content, store, reports = training(tmp_path, free, optimizer=optimizer)
        if verdict == "refused":
            with pytest.raises(Failed, match=r"the store needs .* MiB") as raised:
                room_for(content, store)
            assert raised.value.reason is Reason.NO_SPACE
        else:
            room_for(content, store)
        assert [one.split(":")[0] for one in reports] == (["disk_tight"] if verdict == "tight" else [])


def test_what_a_resumed_training_has_already_needs_no_room(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(network(64).parameters(), lr=0.1)
    content, _, _ = training(tmp_path, 0, optimizer=optimizer)
    content, store, _ = training(tmp_path, one_checkpoint(content), optimizer=optimizer, kept=3)
    room_for(content, store)


def test_a_store_that_does_not_exist_yet_has_the_room_of_its_disk(tmp_path: Path) -> None:
    free = FolderStore(tmp_path / "not" / "yet").free_bytes()
    assert free is not None
    assert free > MIB


def test_checkpoints_in_a_bucket(tmp_path: Path, s3: S3) -> None:
    s3.client().create_bucket(Bucket="models")
    run = run_in(tmp_path, store="s3://models/below", store_credentials_file=s3.credentials_file)
    trained = Trained(tmp_path, run, model=network(800))  # larger than one part of an upload
    trained.model[3] = torch.nn.Linear(3200, 1400)
    trained.optimizer = torch.optim.SGD(trained.model.parameters(), lr=0.1, momentum=0.9)
    assert isinstance(trained.store, ObjectStore)
    assert trained.store.free_bytes() is None
    first = trained.settled()
    trained.store.write(f"{first}/{PINNED}", b"")
    second, third = trained.settled(), trained.settled()
    assert candidates(trained.store, run) == [third, first]
    content = checkpoint.read(trained.store, third, run)
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(content.model[name], tensor), name
    trained.store.delete(third, "manifest.json")
    trained.store.write(f"{second}/model.safetensors", b"half")
    trained.checkpoints.begin(TrainState())
    assert trained.store.folders("") == [first]
    trained.close()


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path, s3: S3) -> None:
    s3.client().create_bucket(Bucket="other")
    run = run_in(tmp_path, store="s3://other/below", store_credentials_file=s3.credentials_file)
    store = open_store(run)

    def cut_short() -> None:
        with store.create("a/large") as file:
            file.write(b"x" * (17 * MIB))
            raise RuntimeError("cut short")

    with pytest.raises(RuntimeError, match="cut short"):
        cut_short()
    assert store.folders("") == []
    assert s3.client().list_multipart_uploads(Bucket="other").get("Uploads", []) == []
