"""What a run found or made beside its training: measurements of its device, traces and exported models."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book.events import record_event
from api.book.ids import new_id
from api.book.models import Artifact, Attempt, Job, Probe, Worker
from training_core import events as reports

# Every other alert is a warning: a person should look, and the job goes on.
ALERT_LEVELS = {"nan": "error", "diverged": "error"}


def probed(session: Session, attempt: Attempt, report: reports.Probed) -> None:
    """Keep the newest table of its key for the plans to come."""
    device_name = session.scalars(select(Worker.device_name).where(Worker.name == attempt.worker)).one_or_none()
    values = {"key": report.key, "device_name": device_name or attempt.device, "table": report.table}
    statement = insert(Probe).values(**values)
    newer = {name: statement.excluded[name] for name in ("device_name", "table")}
    session.execute(
        statement.on_conflict_do_update(index_elements=[Probe.key], set_={**newer, "updated_at": func.now()})
    )


def artifact_saved(session: Session, job: Job, attempt: Attempt, report: reports.ArtifactSaved) -> None:
    """One row for each folder of files; a trace fulfils the wish for it."""
    if report.artifact == "trace":
        job.profile_requested_at = None
    facts = report.model_dump(mode="json", exclude={"kind", "seq", "at", "artifact"})
    known = session.scalars(
        select(Artifact).where(Artifact.job_id == job.id, Artifact.path == report.path)
    ).one_or_none()
    if known is not None:  # a resumed training exports the same model to the same place once more
        for name, value in facts.items():
            setattr(known, name, value)
        known.attempt = attempt.number
        return
    row = Artifact(
        id=new_id("art"), job_id=job.id, trial=attempt.trial, attempt=attempt.number, kind=report.artifact, **facts
    )
    session.add(row)
    message = f"Trace of step {row.step} saved" if row.kind == "trace" else f"Model exported as {row.format}"
    data = {"id": row.id, "kind": row.kind, "format": row.format, "step": row.step, "size_bytes": row.size_bytes}
    record_event(session, job, "artifact.saved", message, data)


def oom_message(report: reports.OomRecovered) -> str:
    return (
        f"A device ran out of memory at step {report.step}; the batch of {report.batch_size} images goes on in pieces"
        f" of {report.micro_batch_after} instead of {report.micro_batch_before}"
    )
