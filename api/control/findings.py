"""What a run found or made: checkpoints, measurements of its device, traces and exported models."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book.events import record_event
from api.book.ids import new_id
from api.book.models import Artifact, Attempt, Checkpoint, Job, Probe, Trial, Worker
from training_core.contract import reports

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


def checkpoint(
    session: Session,
    job: Job,
    trial: Trial,
    attempt: Attempt,
    report: reports.CheckpointSaved | reports.CheckpointDeleted,
) -> None:
    """A row for each complete checkpoint; one known already is kept for another reason now, or gone."""
    known = session.scalars(
        select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.path == report.path)
    ).one_or_none()
    if isinstance(report, reports.CheckpointDeleted):
        if known is not None and known.deleted_at is None:
            forget_checkpoint(session, job, known)
        return
    if known is not None:
        known.kept_because = report.kept_because
        return
    values = report.model_dump(mode="json", exclude={"kind", "seq", "at"})
    row = Checkpoint(id=new_id("ckpt"), job_id=job.id, trial=trial.number, attempt=attempt.number, **values)
    session.add(row)
    attempt.made_progress, trial.adopts = True, None
    detail = {"id": row.id, "step": row.step, "kept_because": row.kept_because, "metrics": values["metrics"]}
    message = f"Checkpoint of step {row.step} saved"
    record_event(session, job, "checkpoint.saved", message, detail, trial=trial.number)


def forget_checkpoint(session: Session, job: Job, row: Checkpoint) -> None:
    """Its files are gone from the store."""
    row.deleted_at = func.now()
    message = f"Checkpoint of step {row.step} deleted"
    record_event(session, job, "checkpoint.deleted", message, {"id": row.id, "step": row.step}, trial=row.trial)


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
    record_event(session, job, "artifact.saved", message, data, trial=attempt.trial)


def oom_message(report: reports.OomRecovered) -> str:
    return (
        f"A device ran out of memory at step {report.step}; the batch of {report.batch_size} images goes on in pieces"
        f" of {report.micro_batch_after} instead of {report.micro_batch_before}"
    )
