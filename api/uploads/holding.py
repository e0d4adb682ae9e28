"""The life of one upload while it comes: what it holds of its project's quota, its lease, and its end if it fails."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, select

from api.book import audit, datasets
from api.book.audit import Actor
from api.book.database import Sessions
from api.book.datasets import InUse, NotUploading, QuotaExceeded
from api.book.models import Dataset
from api.errors import Code, Problem
from api.settings import Settings
from api.uploads.body import CLOSE
from api.uploads.vault import Vault
from training_core.contract.uploads import PARTS

# While a body comes, the upload is renewed before this is over; a server that died leaves it to the cleaner.
LEASE = timedelta(minutes=2)
RENEW_SECONDS = 20.0
STEP_BYTES = 16 << 20

log = logging.getLogger("trainyard.uploads")


@dataclass(frozen=True)
class Depot:
    """What every upload needs: the book, the settings, and the place of its bytes."""

    sessions: Sessions
    settings: Settings
    vault: Vault


def life_of(settings: Settings) -> timedelta:
    """How long an upload in parts waits for the next one."""
    return max(LEASE, timedelta(hours=settings.upload_expiry_hours))


class Holding:
    """`keep` as often as bytes come: the quota holds them before they are written. Raises problems."""

    def __init__(self, depot: Depot, row: Dataset) -> None:
        self.row = row
        self._sessions, self._settings = depot.sessions, depot.settings
        self._held, self._renewed = 0, time.monotonic()
        self._life = LEASE if row.form == "body" else life_of(depot.settings)

    def expects(self, size: int) -> None:
        """As many bytes are held already."""
        self._held = size

    def keep(self, size: int) -> None:
        """`size` bytes have come."""
        needed = size - self._held
        if needed > 0:
            self._step(needed)
        elif time.monotonic() - self._renewed > RENEW_SECONDS:
            self.hold(0)

    def _step(self, needed: int) -> None:
        """More than needed, for fewer turns, unless the quota is near its end."""
        try:
            self.hold(max(STEP_BYTES, needed))
        except Problem as problem:
            if problem.code != Code.QUOTA_EXCEEDED or needed >= STEP_BYTES:
                raise
            self.hold(needed)

    def hold(self, more: int) -> None:
        """`more` bytes are coming; fewer than none give some back."""
        with explained(), self._sessions.begin() as session:
            datasets.hold(session, self.row, more, self._settings.upload_quota_bytes, self._life)
        self._held, self._renewed = self._held + more, time.monotonic()

    def give_back(self, kept: int = 0) -> None:
        """All but `kept` bytes."""
        if self._held > kept:
            self.hold(kept - self._held)


@contextmanager
def explained() -> Iterator[None]:
    """What the book refuses, as problems."""
    try:
        yield
    except QuotaExceeded as over:
        raise Problem(
            413, Code.QUOTA_EXCEEDED, f"{str(over).capitalize()}", headers=CLOSE, quota_bytes=over.quota,
            used_bytes=over.used, asked_bytes=over.asked,
            hint="DELETE /v1/datasets/{id} of one that no job needs, or ask the operator for a larger quota",
        ) from None  # fmt: skip
    except NotUploading:
        raise ended() from None
    except InUse as use:
        hint = "Cancel these jobs, or wait until they have ended"
        raise Problem(409, Code.DATASET_IN_USE, str(use).capitalize(), hint=hint, jobs=use.jobs) from None


def ended() -> Problem:
    detail = "This upload is complete, or was given up: nothing more can come to it"
    return Problem(409, Code.UPLOAD_ENDED, detail, hint="Begin another upload", headers=CLOSE)


def in_progress(what: str) -> Problem:
    headers = {"Retry-After": "5"} | CLOSE
    return Problem(409, Code.UPLOAD_IN_PROGRESS, what, retryable=True, headers=headers)


@contextmanager
def alone(sessions: Sessions, dataset_id: str) -> Iterator[bool]:
    """True for the one process that works on the upload's files; the lock ends with its connection."""
    engine: Engine = sessions.kw["bind"]
    key = int.from_bytes(hashlib.blake2b(dataset_id.encode(), digest_size=8).digest(), signed=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        granted = bool(connection.scalar(select(func.pg_try_advisory_lock(key))))
        try:
            yield granted
        finally:
            if granted:
                connection.scalar(select(func.pg_advisory_unlock(key)))


def give_up(sessions: Sessions, vault: Vault, row: Dataset, why: str, caller: Actor | None = None) -> None:
    """End an upload and delete its bytes; what cannot be done now is the cleaner's. Raises what `end` does."""
    with explained(), sessions.begin() as session:
        datasets.end(session, session.get_one(Dataset, row.id), why)
        if caller is not None:
            audit.record(session, caller, "datasets.delete", row.id)
    purge(sessions, vault, row.id)


def purge(sessions: Sessions, vault: Vault, dataset_id: str) -> None:
    """Delete the bytes of one that is gone, unless another process is at them or the store is silent."""
    with alone(sessions, dataset_id) as granted:
        if not granted:
            return
        try:
            vault.delete(dataset_id)
        except Problem as problem:
            log.warning("%s stays in the store for now: %s", dataset_id, problem.detail)
            return
        with sessions.begin() as session:
            datasets.purged(session, dataset_id)


def clear_parts(sessions: Sessions, vault: Vault, dataset_id: str) -> None:
    """Of one that is ready. Raises the store's problems."""
    vault.delete(dataset_id, PARTS)
    with sessions.begin() as session:
        datasets.forget_parts(session, dataset_id)
