"""One attempt as a pipe of named steps: claim -> prepare -> hold slots -> train -> settle.

The data is prepared without a device, and once for all trials of a job; slots are lent only to a training that can
begin.
"""

from __future__ import annotations

import errno
import logging
import time

from training_core.contract.errors import Failed, Reason
from training_core.contract.messages import Ticket
from training_core.contract.reports import Claimed, Finished
from training_core.contract.run_dir import EventsFile, RunDir, RunSpec, write_atomically
from worker import outcome, preparation
from worker.host import Host, Run
from worker.journal import TICKET_FILE
from worker.slots import threads_of
from worker.stages import at_hand, conclude, run_stage
from worker.stopper import Stopper

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
        host.journal.close(spool)


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
    write_atomically(path / TICKET_FILE, ticket.model_dump_json(exclude={"secret"}).encode())
    return Run(ticket, run_dir)


def carry_out(host: Host, run: Run) -> Finished | None:
    """Both stages one after the other; the report about the one that the attempt ended with."""
    stopper = Stopper(host.settings, run)
    try:
        write_spec(host, run)
        if not preparation.take_over(host.runs, run.ticket, run.run_dir):
            report = conclude(run, run_stage(host, run, "prepare", stopper, secret=host.secrets.of(run.ticket)))
            if not run.run_dir.prepared.exists() or run.cause is not None or run.run_dir.outcome.exists():
                return report
            preparation.remember(host.runs, run.ticket, run.run_dir)
        with preparation.in_use(run.run_dir.read_prepared()):
            return train(host, run, stopper)
    except Failed as problem:
        return Finished(reason=problem.reason, phase="preparing", message=problem.message, hint=problem.hint)
    except OSError as error:
        return Finished(reason=_cannot_start(error), phase="preparing", message=str(error))


def train(host: Host, run: Run, stopper: Stopper) -> Finished | None:
    """Wait for slots with a process at hand, and train.

    The slots are free again before what became of it is worked out and reported.
    """
    seconds = slot_wait_seconds(host, run)
    with (
        at_hand(host, run) as standby,
        host.slots.hold(run.ticket.devices, run.ticket.share, seconds, lambda: run.cause is not None) as slots,
    ):
        if slots is None:
            return no_slot(run, seconds)
        stopper.slots_held()
        began = time.monotonic()
        ended = run_stage(host, run, "train", stopper, slots=slots, standby=standby)
        held_seconds = time.monotonic() - began
    report = conclude(run, ended)
    return report and report.model_copy(update={"held_seconds": held_seconds})


def slot_wait_seconds(host: Host, run: Run) -> float:
    """A trial of a search may have been sent ahead of a free slot, so that the slot never waits for the trial."""
    ahead = preparation.of_a_search(host.runs, run.ticket)
    return host.settings.ahead_wait_seconds if ahead else host.settings.slot_wait_seconds


def write_spec(host: Host, run: Run) -> None:
    """Write down all that the training needs to know."""
    settings, ticket = host.settings, run.ticket
    run.run_dir.write_spec(
        RunSpec(
            job_id=ticket.job_id,
            project=ticket.project,
            trial=ticket.trial,
            attempt=ticket.attempt,
            work=ticket.work,
            spec=ticket.spec,
            references=ticket.references,
            device=ticket.device,
            devices=max(1, ticket.devices),  # a check holds none
            share=ticket.share,
            threads=threads_of(ticket.share, host.threads),
            store=settings.store,
            cache_dir=settings.cache_dir,
            cache_bytes=settings.cache_bytes,
            data_roots=host.access.data_roots(ticket.project),
            allowed_uris=host.access.allowed_uris(ticket.project),
            private_dirs=[settings.work_dir, *settings.private_dirs],
            preparation_memory_bytes=settings.preparation_memory_bytes,
            allowed_networks=settings.allowed_networks,
            private=host.access.is_own(ticket.project),
            store_credentials_file=settings.store_credentials_file,
            resume_from=ticket.resume_from,
            loader=settings.loader,
            train_seconds=ticket.train_seconds,
            rung=ticket.rung,
            until=ticket.until,
            adopt=ticket.adopt,
        )
    )


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
