"""One attempt as a pipe of named steps: claim -> prepare -> launch -> watch -> settle."""

from __future__ import annotations

import errno
import logging
import signal
import subprocess
import time
from collections.abc import Sequence

from training_core.events import Claimed, Finished
from training_core.rundir import EventsFile, RunDir, RunSpec, write_atomically
from training_core.wire import Reason, Ticket
from worker import outcome
from worker.host import Host, Run
from worker.journal import TICKET_FILE
from worker.outcome import Cause
from worker.process import environment, launch, signal_group

LOOK_SECONDS = 0.2

log = logging.getLogger("trainyard.worker")


def run_attempt(host: Host, ticket: Ticket) -> None:
    """Run one attempt to its end and report it. A ticket that is repeated or outdated is dropped."""
    run = claim(host, ticket)
    if run is None:
        return None
    spool = host.journal.add(run.run_dir, ticket)
    try:
        with host.running(run), host.slots.hold(ticket.devices) as slots:
            kills = outcome.oom_kills()
            try:
                prepare(host, run)
                process = launch(run.run_dir, _environment(host, ticket, slots), host.program)
            except OSError as error:
                return settle(run, Finished(reason=_cannot_start(error), phase="preparing", message=str(error)))
            exit_code = watch(host, run, process)
            killed = exit_code == -signal.SIGKILL and outcome.oom_kills() > kills
            told = run.run_dir.read_outcome()
            settle(run, outcome.settle(exit_code, told, run.cause, out_of_memory=killed, log=run.run_dir.log))
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


def prepare(host: Host, run: Run) -> None:
    """Write down all that the training needs to know."""
    settings, ticket = host.settings, run.ticket
    run.run_dir.write_spec(
        RunSpec(
            job_id=ticket.job_id,
            trial=ticket.trial,
            attempt=ticket.attempt,
            spec=ticket.spec,
            device=ticket.device,
            devices=ticket.devices,
            threads=host.threads,
            store=settings.store,
            cache_dir=settings.cache_dir,
            data_roots=settings.data_roots,
            credentials_file=settings.credentials_file,
            resume_from=ticket.resume_from,
        )
    )


def _environment(host: Host, ticket: Ticket, slots: Sequence[int]) -> dict[str, str]:
    return environment(device=ticket.device, slots=slots, threads=host.threads)


def watch(host: Host, run: Run, process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of the training, and bring it about when it has to end; returns the exit code."""
    stopper = Stopper(host, run, process)
    while True:
        try:
            exit_code = process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            stopper.look()
        else:
            signal_group(process, signal.SIGKILL)  # whatever it started and did not take along
            return exit_code


class Stopper:
    """Ends a run that has to end: the stop file first, SIGTERM after its grace, SIGKILL after the next."""

    def __init__(self, host: Host, run: Run, process: subprocess.Popen[bytes]) -> None:
        self._settings, self._run, self._process = host.settings, run, process
        self._began = self._heard_at = time.monotonic()
        self._heard_bytes = 0
        self._asked_at: float | None = None
        self._terminated = False

    def look(self) -> None:
        """Notice limits, then press one step harder where the time for it has come."""
        now = time.monotonic()
        self._notice(now)
        if self._run.cause is None:
            return None
        if self._run.cause in (Cause.ABANDONED, Cause.STALLED):
            return signal_group(self._process, signal.SIGKILL)
        if self._asked_at is None:
            self._asked_at = now
            return self._run.run_dir.request_stop()
        waited_seconds = now - self._asked_at
        if waited_seconds > self._settings.stop_grace_seconds + self._settings.term_grace_seconds:
            signal_group(self._process, signal.SIGKILL)
        elif waited_seconds > self._settings.stop_grace_seconds and not self._terminated:
            self._terminated = True
            signal_group(self._process, signal.SIGTERM)
        return None

    def _notice(self, now: float) -> None:
        size = self._run.run_dir.events.stat().st_size
        if size != self._heard_bytes:
            self._heard_bytes, self._heard_at = size, now
        if now - self._began > self._run.ticket.spec.compute.max_hours * 3600:
            self._run.stop(Cause.TIME_LIMIT)
        elif now - self._heard_at > self._settings.stall_seconds:
            self._run.stop(Cause.STALLED)


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
