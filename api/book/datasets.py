"""Uploaded datasets in the book: how one begins, what it holds of its project's quota, how it becomes ready or goes.

Whoever changes what a project holds locks the project's row first, so that the sum of all uploads is always true.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from api.book.ids import new_id
from api.book.locks import now
from api.book.models import Dataset, DatasetPart, Job, Project
from api.book.status import TERMINAL
from training_core.contract import uploads
from training_core.contract.uploads import UploadedFile, whole_sha256

NAMED_JOBS = 10


class QuotaExceeded(Exception):
    """The project would hold more bytes than it may."""

    def __init__(self, quota: int, used: int, asked: int) -> None:
        super().__init__(f"the project holds {used:,} of its {quota:,} bytes of uploads, and {asked:,} more do not fit")
        self.quota, self.used, self.asked = quota, used, asked


class NotUploading(Exception):
    """The upload is ready or gone: nothing more can come to it."""


class InUse(Exception):
    """Jobs that have not ended read the dataset; `jobs` names the first of them."""

    def __init__(self, jobs: Sequence[str]) -> None:
        super().__init__(f"jobs that have not ended read this dataset: {', '.join(jobs)}")
        self.jobs = list(jobs)


def begin(session: Session, project_id: str, name: str, form: str, life: timedelta) -> Dataset:
    """A new upload, which ends by itself when nothing comes for as long as `life`."""
    row = Dataset(id=new_id("dataset"), project_id=project_id, name=name, form=form, state="uploading", held_bytes=0)
    row.expires_at = now(session) + life
    session.add(row)
    session.flush()
    return row


def of(session: Session, project_id: str, dataset_id: str, *, locked: bool = False) -> Dataset | None:
    """One that is uploading or ready."""
    query = select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id, Dataset.state != "gone")
    query = query.execution_options(populate_existing=True)
    return session.scalars(query.with_for_update() if locked else query).one_or_none()


def place_of(session: Session, project_id: str, dataset_id: str) -> str | None:
    """Where a ready one lies below the store; it stays for as long as the caller's transaction, deletions wait."""
    query = select(Dataset.place).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
    ready = query.where(Dataset.state == "ready").with_for_update(read=True, key_share=True)
    return session.scalars(ready).one_or_none()


def listed(session: Session, project_id: str, after: str | None, limit: int) -> Sequence[Dataset]:
    """Newest first; one more than `limit` tells that there is a next page."""
    query = select(Dataset).where(
        Dataset.project_id == project_id, Dataset.state != "gone", Dataset.purged_at.is_(None)
    )
    if after is not None:
        query = query.where(Dataset.id < after)
    return session.scalars(query.order_by(Dataset.id.desc()).limit(limit + 1)).all()


def hold(session: Session, row: Dataset, more: int, quota: int, life: timedelta) -> None:
    """Count `more` bytes (or fewer than none) as the upload's, and give it its full time again.

    Raises `QuotaExceeded` and `NotUploading`.
    """
    session.execute(select(Project.id).where(Project.id == row.project_id).with_for_update(key_share=True))
    if more > 0:
        used = used_bytes(session, row.project_id)
        if used + more > quota:
            raise QuotaExceeded(quota, used, more)
    changed = update(Dataset).where(Dataset.id == row.id, Dataset.state == "uploading")
    values = {"held_bytes": func.greatest(Dataset.held_bytes + more, 0), "expires_at": func.now() + life}
    if session.execute(changed.values(values)).rowcount == 0:  # type: ignore[attr-defined]
        raise NotUploading


def check_quota(session: Session, row: Dataset, size: int, quota: int) -> None:
    """Whether `size` bytes would fit now. Raises `QuotaExceeded`."""
    used = used_bytes(session, row.project_id)
    if used + size > quota:
        raise QuotaExceeded(quota, used, size)


def used_bytes(session: Session, project_id: str) -> int:
    """What the project's uploads hold, those included that are still coming or not yet removed."""
    held = select(func.coalesce(func.sum(Dataset.held_bytes), 0))
    return int(session.execute(held.where(Dataset.project_id == project_id, Dataset.purged_at.is_(None))).scalar_one())


def finish(
    session: Session, row: Dataset, files: Sequence[UploadedFile], request_sha256: bytes | None, name: str
) -> None:  # fmt: skip
    """All `files` are in the store and nothing else is to come. Raises `NotUploading`."""
    size = sum(one.size for one in files)
    values = {
        "state": "ready", "expires_at": None, "ready_at": func.now(), "held_bytes": size, "size_bytes": size,
        "files": len(files), "sha256": whole_sha256(files), "place": uploads.place_of(row.id, files),
        "request_sha256": request_sha256, "name": name,
    }  # fmt: skip
    done = update(Dataset).where(Dataset.id == row.id, Dataset.state == "uploading").values(values)
    if session.execute(done).rowcount == 0:  # type: ignore[attr-defined]
        raise NotUploading
    session.refresh(row)


def end(session: Session, row: Dataset, why: str) -> None:
    """Without it from now on; its bytes count until they are purged. Raises `InUse` for one that open jobs read."""
    session.refresh(row, with_for_update=True)
    if row.state == "gone":
        return
    open_jobs = select(Job.id).where(Job.dataset_id == row.id, Job.status.not_in(TERMINAL))
    if jobs := session.scalars(open_jobs.order_by(Job.id).limit(NAMED_JOBS)).all():
        raise InUse(jobs)
    row.state, row.why_gone, row.gone_at = "gone", why, now(session)
    row.expires_at, row.idempotency_key, row.request_sha256 = None, None, None


def purged(session: Session, dataset_id: str) -> None:
    """Nothing of it is in the store any more."""
    session.execute(delete(DatasetPart).where(DatasetPart.dataset_id == dataset_id))
    gone = update(Dataset).where(Dataset.id == dataset_id, Dataset.state == "gone")
    session.execute(gone.values(purged_at=func.now(), held_bytes=0))


def parts_of(session: Session, dataset_id: str, after: int = 0, limit: int | None = None) -> Sequence[DatasetPart]:
    """In the order of their numbers."""
    query = select(DatasetPart).where(DatasetPart.dataset_id == dataset_id, DatasetPart.number > after)
    return session.scalars(query.order_by(DatasetPart.number).limit(limit)).all()


def put_part(session: Session, row: Dataset, part: DatasetPart) -> DatasetPart | None:
    """Note that a part has arrived, in the place of an earlier one of its number, which is returned.

    Raises `NotUploading`.
    """
    session.refresh(row, with_for_update=True)
    if row.state != "uploading":
        raise NotUploading
    earlier = session.get(DatasetPart, (row.id, part.number))
    if earlier is not None:
        session.expunge(earlier)
    part.stored_at = now(session)
    session.merge(part)
    session.flush()
    return earlier


def same_parts(session: Session, row: Dataset, known: Sequence[DatasetPart]) -> None:
    """Raises `NotUploading` where parts came or were replaced since `known` were read; locks the upload."""
    session.execute(select(Dataset.id).where(Dataset.id == row.id).with_for_update())
    there = [(part.number, part.file) for part in parts_of(session, row.id)]
    if there != [(part.number, part.file) for part in known]:
        raise NotUploading


def overdue(session: Session) -> Sequence[Dataset]:
    """Uploads to which nothing came for too long."""
    late = select(Dataset).where(Dataset.state == "uploading", Dataset.purged_at.is_(None))
    return session.scalars(late.where(Dataset.expires_at < func.now()).order_by(Dataset.id).limit(100)).all()


def unpurged(session: Session) -> Sequence[Dataset]:
    """Those that are gone and may still have bytes in the store."""
    query = select(Dataset).where(Dataset.state == "gone", Dataset.purged_at.is_(None))
    return session.scalars(query.order_by(Dataset.gone_at).limit(100)).all()


def with_parts_left(session: Session) -> Sequence[str]:
    """Ready ones whose parts were not cleared away yet."""
    ready = select(Dataset.id).where(Dataset.state == "ready")
    return session.scalars(ready.where(Dataset.id.in_(select(DatasetPart.dataset_id))).limit(100)).all()


def forget_parts(session: Session, dataset_id: str) -> None:
    session.execute(delete(DatasetPart).where(DatasetPart.dataset_id == dataset_id))
