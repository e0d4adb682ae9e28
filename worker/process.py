"""The training process of one attempt: started with a clean environment, stopped in three steps, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from training_core.rundir import RunDir

LAUNCH = (sys.executable, "-m", "training_core.launch")

# What a training may know of this host. Whatever is not here, such as the broker's URL, it does not get.
ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME",
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE",
)  # fmt: skip


def environment(*, device: str, slots: Sequence[int], threads: int) -> dict[str, str]:
    """The child's whole environment."""
    kept = {name: os.environ[name] for name in ALLOWED_ENVIRONMENT if name in os.environ}
    kept |= {
        "TRAINYARD_PARENT_PID": str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, slots)) if device == "cuda" else "",
    }
    return kept


def launch(run_dir: RunDir, variables: dict[str, str], program: Sequence[str] = LAUNCH) -> subprocess.Popen[bytes]:
    """Start `program RUN_DIR` in a session of its own.

    The calling thread must outlive the child: the child asks the kernel to be killed when this thread ends.
    """
    with run_dir.log.open("ab") as output:
        return subprocess.Popen(
            [*program, str(run_dir.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the process and what it started; ranks under torchrun follow by their parent-death signal."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # it has ended by itself, which is what we wanted
