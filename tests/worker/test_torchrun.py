"""A real training whose ranks torchrun starts, under a real worker: its stop, and its death."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.training.running import make_images
from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_launcher_faults import gone
from tests.worker.test_runner import run_dir, running
from training_core.contract.errors import Reason
from training_core.contract.messages import WISHES_HASH, Ticket, Wish
from training_core.contract.run_dir import RunDir
from training_core.contract.spec import JobSpec
from training_core.processes.process import adopt_orphans
from worker import process
from worker.heartbeat import Heart
from worker.host import Host
from worker.process import LAUNCH
from worker.settings import Settings


@pytest.fixture
def trainer(settings: Settings, program: tuple[str, ...], tmp_path: Path) -> Iterator[Host]:
    """A host of two CPU slots that starts real trainings."""
    make_images(tmp_path / "data" / "stripes", each=12)
    changes: dict[str, Any] = {"data_roots": [tmp_path / "data"], "slots": 2, "stop_grace_seconds": 60.0}
    host = Host(settings.model_copy(update=changes), LAUNCH)
    host.journal.start()
    yield host
    host.journal.stop(0)
    host.redis.close()


def by_torchrun(host: Host) -> Ticket:
    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": "file://stripes", "split": {"validation": 0.25}},
            "model": {"name": "small_cnn"},
            "compute": {"start": "torchrun", "strategy": "ddp"},
            "training": {"epochs": 5000, "batch_size": 8, "early_stopping": None},
        }
    )
    return Ticket(
        attempt_id="att_t_1", job_id="job_t", attempt=1, spec=spec, device="cpu", devices=2,
        incarnation=host.incarnation,
    )  # fmt: skip


def training_ranks(one: Ticket, host: Host) -> tuple[psutil.Process, list[psutil.Process]]:
    """Torchrun's agent and its ranks, once they train."""
    folder = run_dir(host, one)
    eventually(lambda: b'"first_step"' in (folder / "events.jsonl").read_bytes(), 120)
    children = psutil.Process().children(recursive=True)
    ranks = [child for child in children if "training_core.train" in child.cmdline()]
    assert len(ranks) == 2
    agent = ranks[0].parent()
    assert agent is not None
    return agent, ranks


def test_a_killed_torchrun_takes_its_ranks_along(trainer: Host, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt_orphans()
    one = by_torchrun(trainer)
    with running(trainer, one):
        agent, ranks = training_ranks(one, trainer)
        assert agent.ppid() == os.getpid()
        assert {os.getsid(rank.pid) for rank in ranks} == {rank.pid for rank in ranks}  # killing its group misses them
        agent.send_signal(signal.SIGKILL)
    finished = eventually(lambda: book.finished(one.attempt_id))
    assert (finished["reason"], finished["exit_code"]) == (Reason.PROCESS_DIED, -9)
    eventually(lambda: all(gone(rank.pid) for rank in ranks))
    monkeypatch.setattr(process, "YOUNG_SECONDS", 0.0)
    process.bury_orphans()
    assert not any(rank.is_running() for rank in ranks)


@pytest.mark.long
def test_a_pause_reaches_ranks_of_torchrun(trainer: Host, book: Book) -> None:
    one = by_torchrun(trainer)
    with running(trainer, one):
        training_ranks(one, trainer)
        trainer.redis.hset(WISHES_HASH, one.attempt_id, Wish.PAUSE.value)
        Heart(trainer).listen()
    finished = eventually(lambda: book.finished(one.attempt_id))
    assert (finished["reason"], finished["exit_code"]) == (Reason.PAUSED_BY_CLIENT, 0)
    outcome = RunDir(run_dir(trainer, one)).read_outcome()
    assert outcome is not None
    assert outcome.step > 0
    assert "checkpoint_saved" in {line["kind"] for line in book.lines[one.attempt_id]}
