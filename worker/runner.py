"""One attempt as a pipe of named steps: claim -> prepare -> hold slots -> train -> settle.

The data is prepared without a device; slots are lent only to a training that can begin.
"""

from __future__ import annotations

import errno
import logging
import signal
import time
from collections.abc import Sequence

from training_core.events import CheckpointSaved, Claimed, Finished, decode
from training_core.orders import Stage
from training_core.rundir import EventsFile, RunDir, RunSpec, complete_lines, write_atomically
from training_core.wire import Reason, Ticket
from worker import outcome
from worker.host import Host, Run
from worker.journal import TICKET_FILE
from worker.process import Process, bury_orphans, environment, launch
from worker.stopper import Stopper

LOOK_SECONDS = 0.2
CHECKPOINT_SAVED = b'"checkpoint_saved"'

log = logging.getLogger("trainyard.worker")


def run_attempt(host: Host, ticket: Ticket) -> None:
    """Run one attempt to its end and report it. A ticket that is repeated or outdated is dropped."""
    run = claim(host, ticket)
    if run is None:
        return
    spool = host.journal.add(run.run_dir, ticket)
    try:
        with host.running(run):
            report = carry_out(host, run)
        settle(run, report)
    finally:
        spool.closed = True


def claim(host: Host, ticket: Ticket) -> Run | None:
    """Take the attempt by making its run dir: that succeeds once, on this host, over every restart and flush."""
    if ticket.incarnation != host.incarnation:
        log.info("dropped a ticket of %s for an earlier process of this worker", ticket.attempt_id)
        return None
    path = host.runs / ticket.job_id / f"trial-{ticket.trial}" / f"attempt-{ticket.attempt}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        log.info("dropped a repeated ticket of %s", ticket.attempt_id)
        return None
    run_dir = RunDir(path)
    with EventsFile(run_dir.events) as events:
        events.append(Claimed(worker=host.settings.worker_name, incarnation=host.incarnation))
    write_atomically(path / TICKET_FILE, ticket.model_dump_json().encode())
    return Run(ticket, run_dir)


def carry_out(host: Host, run: Run) -> Finished | None:
    """Both stages one after the other; the report about the one that the attempt ended with."""
    stopper = Stopper(host.settings, run)
    try:
        write_spec(host, run)
        report = run_stage(host, run, "prepare", [], stopper)
        if not run.run_dir.prepared.exists() or run.cause is not None or run.run_dir.outcome.exists():
            return report
        seconds = host.settings.slot_wait_seconds
        with host.slots.hold(run.ticket.devices, seconds, lambda: run.cause is not None) as slots:
            if slots is None:
                return no_slot(run, seconds)
            stopper.slots_held()
            began = time.monotonic()
            report = run_stage(host, run, "train", slots, stopper)
            return report and report.model_copy(update={"held_seconds": time.monotonic() - began})
    except OSError as error:
        return Finished(reason=_cannot_start(error), phase="preparing", message=str(error))


def write_spec(host: Host, run: Run) -> None:
    """Write down all that the training needs to know."""
    settings, ticket = host.settings, run.ticket
    run.run_dir.write_spec(
        RunSpec(
            job_id=ticket.job_id,
            trial=ticket.trial,
            attempt=ticket.attempt,
            work=ticket.work,
            spec=ticket.spec,
            device=ticket.device,
            devices=max(1, ticket.devices),  # a check holds none
            threads=host.threads,
            store=settings.store,
            cache_dir=settings.cache_dir,
            cache_bytes=settings.cache_bytes,
            data_roots=settings.data_roots,
            allowed_uris=settings.allowed_uris,
            credentials_file=settings.credentials_file,
            resume_from=ticket.resume_from,
            loader=settings.loader,
            train_seconds=ticket.train_seconds,
        )
    )


def run_stage(host: Host, run: Run, stage: Stage, slots: Sequence[int], stopper: Stopper) -> Finished | None:
    """Run one stage to its end, which is brought about when it has to end; the report, should it be the last."""
    kills = outcome.oom_kills()
    variables = environment(device=run.ticket.device, slots=slots, threads=host.threads)
    with host.cgroups.of(run.ticket.attempt_id) as group:
        process = start(host, run, stage, variables)
        group.take(process.pid)
        while (exit_code := process.wait(LOOK_SECONDS)) is None:
            stopper.look(process)
    bury_orphans()
    return outcome.settle(
        exit_code,
        run.run_dir.read_outcome(),
        run.cause,
        phase="preparing" if stage == "prepare" else "running",
        out_of_memory=exit_code == -signal.SIGKILL and outcome.oom_kills() > kills,
        log=run.run_dir.log,
        checkpoint=last_checkpoint(run.run_dir) or run.ticket.resume_from,
    )


def start(host: Host, run: Run, stage: Stage, variables: dict[str, str]) -> Process:
    """By the warm launcher, or cold: without one, or where the job wants its ranks from torchrun itself."""
    torchrun = stage == "train" and run.ticket.spec.compute.start == "torchrun"
    warm = None if host.launcher is None or torchrun else host.launcher.launch(run.run_dir, stage, variables)
    return warm or launch(run.run_dir, stage, variables, host.program)


def last_checkpoint(run_dir: RunDir) -> str | None:
    """The path of the newest one that the run reported."""
    reports = (decode(line) for line, _ in complete_lines(run_dir.events, 0) if CHECKPOINT_SAVED in line)
    return max((one.path for one in reports if isinstance(one, CheckpointSaved)), default=None)


def no_slot(run: Run, seconds: float) -> Finished | None:
    """The data is ready, and the attempt goes back to the book: some other host may have what this one lacks."""
    if run.cause is not None:
        return outcome.settle(None, None, run.cause, phase="preparing", out_of_memory=False, log=run.run_dir.log)
    message = f"The data is ready, but no slot came free within {seconds:g} s"
    return Finished(reason=Reason.NO_SLOT, phase="preparing", message=message)


def settle(run: Run, report: Finished | None) -> None:
    """Write the attempt's last report, behind everything the training wrote; the journal takes it from there."""
    if report is None:
        log.info("%s was given up by the book; nothing is reported", run.ticket.attempt_id)
        return
    with EventsFile(run.run_dir.events) as events:
        events.append(report)
        events.sync()
    log.info("%s ended: %s", run.ticket.attempt_id, report.reason)


def _cannot_start(error: OSError) -> Reason:
    return Reason.NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else Reason.PROCESS_DIED
