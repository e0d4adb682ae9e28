"""Checkpoints in pieces: written by all ranks, read by any number of them."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.tensor import DeviceMesh, Shard, distribute_module, distribute_tensor

from tests.training.keeping import Trained, run_in
from training_core.checkpoints import checkpoint
from training_core.checkpoints.manifest import Damaged, read_manifest
from training_core.contract.errors import Failed, Reason
from training_core.distributed.agreement import Agreement
from training_core.storage.store import FolderStore, Sink, open_store

RANKS = 2
LEARNING_RATE = 1e-2


def odd_network() -> nn.Module:
    """Of which five rows are shared by two ranks as three and two, and one row as one and none."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    def of_one(_: str, module: nn.Module, mesh: DeviceMesh) -> None:
        for name, parameter in list(module.named_parameters(recurse=False)):
            cut = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
            module.register_parameter(name, nn.Parameter(cut))

    return distribute_module(model, mesh, of_one)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return [torch.randn(parameter.shape, generator=random) for parameter in model.parameters()]


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """With gradients that are the same however the parameters are cut."""
    for parameter, gradient in zip(model.parameters(), gradients(model), strict=True):
        cut: Any = parameter
        parameter.grad = (
            distribute_tensor(gradient, cut.device_mesh, cut.placements, src_data_rank=None)
            if hasattr(cut, "device_mesh")
            else gradient
        )
    optimizer.step()


class FullStore(FolderStore):
    def create(self, path: str, *, durable: bool = True) -> AbstractContextManager[Sink]:
        raise OSError(errno.ENOSPC, "No space left on device")


def on_a_rank(rank: int, folder: Path, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=RANKS, timeout=timedelta(seconds=60))
    mesh = DeviceMesh("cpu", list(range(RANKS)))
    (folder / f"rank-{rank}").mkdir()
    trained = Trained(folder / f"rank-{rank}", run_in(folder), model=shard(odd_network(), mesh))
    trained.keeper(agreement=Agreement(rank, RANKS), keep_last=9)
    take_step(trained.model, trained.optimizer)
    trained.state.step = 1
    trained.checkpoints.save(trained.live, trained.state, 0.5)
    trained.checkpoints.settle()
    distributed.barrier()
    resume_in_pieces(trained, mesh)
    one_rank_without_numbers(trained, rank)
    one_rank_without_space(trained, rank, folder)
    trained.close()
    distributed.destroy_process_group()


def resume_in_pieces(trained: Trained, mesh: DeviceMesh) -> None:
    """On as many ranks: the next step is the same to the bit."""
    assert trained.state.last_checkpoint is not None
    content = checkpoint.read(trained.store, trained.state.last_checkpoint, trained.run)
    again = odd_network()
    again.load_state_dict(content.trained)
    again = shard(again, mesh)
    optimizer = torch.optim.AdamW(again.parameters(), lr=LEARNING_RATE)
    checkpoint.restore_optimizer(optimizer, content)
    take_step(again, optimizer)
    take_step(trained.model, trained.optimizer)
    for one, other in zip(again.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(one.to_local(), other.to_local())  # type: ignore[attr-defined]


def one_rank_without_numbers(trained: Trained, rank: int) -> None:
    kept = list(trained.state.kept)
    first: Any = next(trained.model.parameters())
    before = first.to_local().clone()
    with torch.no_grad():
        if rank == 1:
            first.to_local()[0, 0] = float("nan")
    trained.state.step = 2
    trained.checkpoints.save(trained.live, trained.state, 0.5)
    trained.checkpoints.settle()
    with torch.no_grad():
        first.to_local().copy_(before)
    if rank == 0:
        assert trained.state.kept == kept
        assert [one.alert for one in trained.said("alert_raised")] == ["nan"]


def one_rank_without_space(trained: Trained, rank: int, folder: Path) -> None:
    if rank == 1:
        trained.store = FullStore(folder / "store")
        trained.keeper(agreement=Agreement(rank, RANKS))
    trained.state.step = 3
    trained.checkpoints.save(trained.live, trained.state, 0.5)
    with pytest.raises(Failed, match="the checkpoint of step 3") as raised:
        trained.checkpoints.settle()
    assert raised.value.reason is Reason.NO_SPACE
    assert raised.value.message.startswith("rank 1: ") == (rank == 0)
    distributed.barrier()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have written a checkpoint in pieces, and passed their own checks."""
    folder = tmp_path_factory.mktemp("sharded")
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # a free port
    port = store.port
    del store
    multiprocessing.spawn(on_a_rank, (folder, port), nprocs=RANKS)
    return folder


PATH = "jobs/j/trial-0/attempt-1/step-00000001"


def test_every_rank_writes_its_pieces_and_the_manifest_has_all(written: Path) -> None:
    run = run_in(written)
    manifest = read_manifest(open_store(run), PATH)
    pieces = {f"{kind}-0000{rank}-of-00002.safetensors" for kind in ("model", "optimizer") for rank in (1, 2)}
    assert set(manifest.files) == pieces | {"state.json", "history.jsonl"}
    assert manifest.sharded["model"] == {name: 0 for name, _ in odd_network().named_parameters()}


def test_one_process_reads_what_two_ranks_wrote(written: Path) -> None:
    run = run_in(written)
    content = checkpoint.read(open_store(run), PATH, run)
    alone = odd_network()
    optimizer = torch.optim.AdamW(alone.parameters(), lr=LEARNING_RATE)
    take_step(alone, optimizer)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(content.model[name], tensor), name
    again = odd_network()
    again.load_state_dict(content.trained)
    restored = torch.optim.AdamW(again.parameters(), lr=LEARNING_RATE)
    checkpoint.restore_optimizer(restored, content)
    take_step(alone, optimizer)
    take_step(again, restored)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_no_manifest_without_the_pieces_of_all(written: Path) -> None:
    manifests = [one.parent.name for one in (written / "store").rglob("manifest.json")]
    assert manifests == ["step-00000001"]


def test_a_flipped_bit_in_one_piece_is_seen(written: Path) -> None:
    run = run_in(written)
    file = written / "store" / PATH / "optimizer-00002-of-00002.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Damaged, match="optimizer-00002-of-00002"):
        checkpoint.read(open_store(run), PATH, run)
    file.write_bytes(content)
