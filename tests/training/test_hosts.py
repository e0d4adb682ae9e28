"""Two hosts in network namespaces, one rank each, joined by torchrun's c10d rendezvous."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.training.running import ROOT, Run, make_run

PORT = 29_417


def ip(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass(frozen=True)
class Host:
    namespace: str
    address: str

    def start(self, run: Run, first: Host, **environment: str) -> subprocess.Popen[bytes]:
        """Its agent, which knows the first host by its address; the name of the machine means nothing to either."""
        command = [
            "ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c",
            f"hostname {self.namespace}.invalid && exec \"$@\"", "sh",
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{first.address}:{PORT}", "--rdzv-id", "trainyard",
            # Without the two, torchrun looks up the names of the machines, which mean nothing here.
            "--rdzv-conf", f"is_host={int(self == first)}", "--local-addr", self.address,
            "-m", "training_core.train", str(run.dir.path),
        ]  # fmt: skip
        with run.dir.log.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two, joined by one cable."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    key = uuid.uuid4().hex[:6]
    one, two = Host(f"ty-{key}-a", "10.77.0.1"), Host(f"ty-{key}-b", "10.77.0.2")
    with ExitStack() as made:
        for host in (one, two):
            try:
                ip("netns", "add", host.namespace)
            except (OSError, subprocess.CalledProcessError) as problem:
                pytest.skip(f"no network namespaces here: {problem}")
            made.callback(ip, "netns", "delete", host.namespace)
        ends = (f"{one.namespace}-v", f"{two.namespace}-v")
        ip(
            "link",
            "add",
            ends[0],
            "netns",
            one.namespace,
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            two.namespace,
        )
        for host, end in zip((one, two), ends, strict=True):
            ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", end)
            ip("-n", host.namespace, "link", "set", end, "up")
            ip("-n", host.namespace, "link", "set", "lo", "up")
        yield one, two


@pytest.mark.timeout(170)
def test_two_hosts_train_as_one_does(hosts: tuple[Host, Host], tmp_path: Path, images: Path) -> None:
    training = {"batch_size": 13, "epochs": 2}
    alone = make_run(tmp_path, f"file://{images}", training=training, job_id="alone")
    runs = [
        make_run(tmp_path, f"file://{images}", training=training, job_id="two", devices=2, cache_dir=tmp_path / name)
        for name in ("first", "second")
    ]
    processes = [host.start(run, hosts[0]) for host, run in zip(hosts, runs, strict=True)]
    assert alone.finish() == 0, alone.log()
    codes = [process.wait(150) for process in processes]
    # Rank 0 may be on either: the agents decide.
    codes, first, second = codes, *sorted(runs, key=lambda run: "summary" not in run.kinds())
    assert codes == [0, 0], first.log() + second.log()
    assert first.outcome.result == second.outcome.result == "completed"
    assert first.of_kind("plan_chosen")[0].world_size == 2
    assert not {"metric", "checkpoint_saved", "plan_chosen"} & set(second.kinds())
    for name in ("train/loss", "validation/loss", "test/loss"):
        steps, values = zip(*alone.series(name), strict=True)
        other_steps, other_values = zip(*first.series(name), strict=True)
        assert steps == other_steps
        assert values == pytest.approx(other_values, rel=2e-3, abs=1e-4), name
