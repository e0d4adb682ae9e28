"""The two stages of an attempt, each a process: begun warm or cold, watched to its end, and concluded from."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from training_core.contract.reports import CheckpointSaved, Finished, decode
from training_core.contract.run_dir import RunDir, complete_lines
from training_core.runtime.launcher_protocol import Stage
from worker import outcome
from worker.host import Host, Run
from worker.launcher import Standby
from worker.process import Process, bury_orphans, environment, launch
from worker.slots import threads_of
from worker.stopper import Stopper

LOOK_SECONDS = 0.2
CHECKPOINT_SAVED = b'"checkpoint_saved"'


@dataclass(frozen=True)
class Ended:
    """How the process of a stage ended."""

    stage: Stage
    exit_code: int
    out_of_memory: bool


def run_stage(
    host: Host, run: Run, stage: Stage, stopper: Stopper, *,
    slots: Sequence[int] = (), standby: Standby | None = None, secret: bytes | None = None,
) -> Ended:  # fmt: skip
    """Run one stage to its end, which is brought about when it has to end; nothing of it lives on.

    `secret` is handed to its process, and kept nowhere.
    """
    kills = outcome.oom_kills()
    threads = threads_of(run.ticket.share, host.threads)
    variables = environment(device=run.ticket.device, slots=slots, threads=threads)
    with host.cgroups.of(run.ticket.attempt_id) as group:
        process = start(host, run, stage, variables, standby=standby, secret=secret)
        group.take(process.pid)
        while (exit_code := process.wait(LOOK_SECONDS)) is None:
            stopper.look(process)
    return Ended(stage, exit_code, out_of_memory=exit_code == -signal.SIGKILL and outcome.oom_kills() > kills)


def conclude(run: Run, ended: Ended) -> Finished | None:
    """The report about a stage, should it be the last one."""
    bury_orphans()
    return outcome.settle(
        ended.exit_code,
        run.run_dir.read_outcome(),
        run.cause,
        phase="preparing" if ended.stage == "prepare" else "running",
        out_of_memory=ended.out_of_memory,
        log=run.run_dir.log,
        checkpoint=last_checkpoint(run.run_dir) or run.ticket.resume_from,
    )


@contextmanager
def at_hand(host: Host, run: Run) -> Iterator[Standby | None]:
    """A warm process that waits for the slots with us, so that they do not wait for it; ended if it never began."""
    standby = host.launcher.standby(run.run_dir, "train") if host.launcher is not None and starts_warm(run) else None
    try:
        yield standby
    finally:
        if standby is not None and not standby.over:
            standby.dismiss()


def starts_warm(run: Run) -> bool:
    """Not where the job wants its ranks from torchrun itself."""
    return run.ticket.spec.compute.start != "torchrun"


def start(
    host: Host, run: Run, stage: Stage, variables: dict[str, str], *, standby: Standby | None, secret: bytes | None
) -> Process:
    """The process at hand, one from the warm launcher, or a cold one."""
    warm = None
    if host.launcher is not None and (stage == "prepare" or starts_warm(run)):
        begun = host.launcher.begin(standby, variables, secret) if standby is not None else None
        warm = begun or host.launcher.launch(run.run_dir, stage, variables, secret)
    return warm or launch(run.run_dir, stage, variables, host.program, secret=secret)


def last_checkpoint(run_dir: RunDir) -> str | None:
    """The path of the newest one that the run reported."""
    reports = (decode(line) for line, _ in complete_lines(run_dir.events, 0) if CHECKPOINT_SAVED in line)
    return max((one.path for one in reports if isinstance(one, CheckpointSaved)), default=None)
