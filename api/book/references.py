"""Ids in a spec that stand for checkpoints and uploads: found in the book, under the project of who asks, or not."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.book import datasets, pins, queries
from api.book.audit import Actor
from api.book.models import Checkpoint, Job
from api.book.status import TERMINAL
from training_core.contract.spec import JobSpec
from training_core.contract.spec.references import Named, references_of
from training_core.contract.uploads import upload_of

UNKNOWN = "There is no such checkpoint or job in this project"
DELETED = "This checkpoint was deleted by retention; GET …/checkpoints of its job lists those that are left"
OPEN = "This job has not ended, so that its best checkpoint is not known yet; give the id of one of its checkpoints"
NOTHING_KEPT = "This job has no checkpoint"
NO_DATASET = "There is no such dataset in this project, or its upload is not complete"


class Unresolved(Exception):
    """An id that stands for no checkpoint; its text says why, and the same for a foreign one as for none."""


def resolve(session: Session, project_id: str, reference: str) -> Checkpoint:
    """The checkpoint itself, or the best one of the job. Raises `Unresolved`."""
    if reference.startswith("job_"):
        return _best_of(session, queries.job_of(session, project_id, reference))
    mine = select(Checkpoint).join(Job, Job.id == Checkpoint.job_id).where(Job.project_id == project_id)
    row = session.scalars(mine.where(Checkpoint.id == reference)).one_or_none()
    if row is None:
        raise Unresolved(UNKNOWN)
    if row.deleted_at is not None:
        raise Unresolved(DELETED)
    return row


def _best_of(session: Session, job: Job | None) -> Checkpoint:
    if job is None:
        raise Unresolved(UNKNOWN)
    if job.status not in TERMINAL:
        raise Unresolved(OPEN)
    best = (job.study or {}).get("best") or {}
    row = queries.best_checkpoint(session, job.id, best.get("trial"))
    if row is None:
        raise Unresolved(NOTHING_KEPT)
    return row


def unresolved(session: Session, project_id: str, spec: JobSpec) -> list[tuple[Named, str]]:
    """The ids in the spec that stand for nothing, each with the reason.

    A dataset that is there stays for as long as the caller's transaction.
    """
    found = []
    dataset_id = upload_of(spec.dataset.uri)
    if dataset_id is not None and datasets.place_of(session, project_id, dataset_id) is None:
        found.append((Named(("dataset", "uri"), dataset_id), NO_DATASET))
    for one in references_of(spec):
        try:
            resolve(session, project_id, one.reference)
        except Unresolved as why:
            found.append((one, str(why)))
    return found


def places(session: Session, project_id: str, spec: JobSpec) -> dict[str, str]:
    """By id, where each lies below the store; without those that are gone."""
    found = {}
    dataset_id = upload_of(spec.dataset.uri)
    place = None if dataset_id is None else datasets.place_of(session, project_id, dataset_id)
    if dataset_id is not None and place is not None:
        found[dataset_id] = place
    for one in references_of(spec):
        try:
            found[one.reference] = resolve(session, project_id, one.reference).path
        except Unresolved:
            continue
    return found


def at_risk(session: Session, project_id: str, spec: JobSpec) -> list[Checkpoint]:
    """What the spec needs and retention may delete before it is read: of open jobs and of searches, if not pinned."""
    rows = {row.id: row for row in (resolve(session, project_id, one.reference) for one in references_of(spec))}
    return [row for row in rows.values() if row.pinned_at is None and _may_go(session.get_one(Job, row.job_id))]


def _may_go(job: Job) -> bool:
    return job.status not in TERMINAL or queries.is_search(job)


def keep(session: Session, actor: Actor, row: Checkpoint) -> bool:
    """Note the pin of a checkpoint whose folder holds it already; False when retention was first."""
    return pins.pin(session, actor, row.job_id, row.id) is not None
