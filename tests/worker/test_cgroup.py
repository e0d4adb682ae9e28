"""A cgroup for each attempt, on the real file system where it may be written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.waiting import eventually
from tests.worker.conftest import Book
from tests.worker.test_launcher_faults import gone
from tests.worker.test_runner import run_dir
from training_core.contract.errors import Reason
from training_core.contract.messages import Ticket
from training_core.processes.process import adopt_orphans
from worker import process
from worker.cgroup import Cgroups
from worker.host import Host
from worker.runner import run_attempt

Make = Callable[..., Ticket]


@pytest.fixture
def cgroups(host: Host) -> Cgroups:
    if host.cgroups.base is None:
        pytest.skip("no cgroup v2 that this user may write to")
    return host.cgroups


def escaped(host: Host, one: Ticket) -> int:
    return int((run_dir(host, one) / "escaped").read_text())


def test_what_left_the_session_ends_with_the_attempt(cgroups: Cgroups, host: Host, ticket: Make, book: Book) -> None:
    one = ticket(host, "escapes")
    run_attempt(host, one)
    assert gone(escaped(host, one))
    assert eventually(lambda: book.finished(one.attempt_id))["reason"] == Reason.COMPLETED
    folder = cgroups.folder_of(one.attempt_id)
    assert folder is not None
    assert folder.parent.exists()
    assert not folder.exists()


def test_memory_is_limited_where_the_controller_is_ours(cgroups: Cgroups, tmp_path: Path) -> None:
    assert cgroups.base is not None
    if "memory" not in (cgroups.base / "cgroup.controllers").read_text().split():
        pytest.skip("the memory controller is not in this cgroup v2")
    limited = Cgroups(64 * 2**20)
    folder = limited.folder_of("limited")
    assert folder is not None
    with limited.of("limited"):
        assert (folder / "memory.max").read_text().strip() == str(64 * 2**20)


def test_without_the_right_to_make_one_nothing_happens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        plain = Cgroups(2**20, tmp_path)
    assert "no cgroup of their own" in caplog.text
    caplog.clear()
    with plain.of("attempt") as group:
        group.take(os.getpid())
    assert caplog.text == ""


def test_an_orphan_that_nobody_waits_for_is_buried(host: Host, ticket: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt_orphans()
    one = ticket(host, "escapes")
    host.cgroups.base = None
    run_attempt(host, one)
    orphan = psutil.Process(escaped(host, one))
    assert orphan.ppid() == os.getpid()
    orphan.kill()
    eventually(lambda: orphan.status() == psutil.STATUS_ZOMBIE)
    monkeypatch.setattr(process, "YOUNG_SECONDS", 0.0)
    process.bury_orphans()
    assert not orphan.is_running()
