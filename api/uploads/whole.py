"""An upload in one body: a form with files, or the bytes of one archive, table or list."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.book import audit, datasets
from api.book.audit import Actor
from api.book.locks import now
from api.book.models import Dataset
from api.errors import Code, Problem
from api.uploads import digest
from api.uploads.body import Body
from api.uploads.form import Form
from api.uploads.holding import LEASE, Depot, Holding, explained, give_up, in_progress
from api.uploads.incoming import Incoming, Stored
from training_core.contract.uploads import UploadedFile, whole_sha256


@dataclass(frozen=True)
class Order:
    """What a request says before its body: `form` the Content-Type of a form, `file` the name of a raw body."""

    caller: Actor
    name: str | None
    form: str | None
    file: str | None
    sha256: str | None
    key: str | None


async def receive(body: Body, order: Order, depot: Depot) -> tuple[str, bool]:
    """Take the whole body; the id of the dataset, and whether it was there already by this idempotency key.

    Raises problems; then nothing is kept.
    """
    row, known = await run_in_threadpool(_begin, body.announced or 0, order, depot)
    if known:
        incoming = Incoming(depot.settings.upload_files_limit)
        name = await _take(body, order, incoming, lambda _: None)
        if row.request_sha256 != _fingerprint(order, name, incoming.files):
            detail = "This Idempotency-Key was used for a different upload"
            raise Problem(422, Code.IDEMPOTENCY_KEY_REUSED, detail, hint="Use a new key for a new request")
        return row.id, True
    stored: Incoming | None = None
    try:
        stored = await run_in_threadpool(Stored, depot.vault, row.id, depot.settings.upload_files_limit)
        holding = Holding(depot, row)
        holding.expects(body.announced or 0)
        name = await _take(body, order, stored, holding.keep)
        await run_in_threadpool(_finish, depot, row, order, name, stored.files)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(_fail, depot, row, stored)
        raise
    return row.id, False


def _begin(announced: int, order: Order, depot: Depot) -> tuple[Dataset, bool]:
    """A new row, or the one that this key made."""
    with explained(), depot.sessions.begin() as session:
        known = of_key(session, order.caller.project_id, order.key, "body")
        if known is not None:
            return known, True
        depot.vault.check_room(announced)
        row = datasets.begin(session, order.caller.project_id, order.name or order.file or "upload", "body", LEASE)
        set_key(session, row, order.key)
        datasets.hold(session, row, announced, depot.settings.upload_quota_bytes, LEASE)
    return row, False


def of_key(session: Session, project_id: str, key: str | None, form: str) -> Dataset | None:
    """The upload that this key began. Raises a 409 problem while its body comes."""
    if key is None:
        return None
    query = select(Dataset).where(Dataset.project_id == project_id, Dataset.idempotency_key == key)
    row = session.scalars(query).one_or_none()
    if row is None:
        return None
    if row.form != form:
        detail = "This Idempotency-Key was used for an upload of another form"
        raise Problem(422, Code.IDEMPOTENCY_KEY_REUSED, detail, hint="Use a new key for a new request")
    if row.state == "uploading" and form == "body":
        if row.expires_at is not None and row.expires_at > now(session):
            raise in_progress("The first request with this Idempotency-Key is still being received")
        datasets.end(session, row, "failed")  # its server died
        session.flush()
        return None
    return row


def set_key(session: Session, row: Dataset, key: str | None) -> None:
    row.idempotency_key = key
    try:
        session.flush()
    except IntegrityError:
        raise in_progress("Another request with this Idempotency-Key began at the same time") from None


async def _take(body: Body, order: Order, incoming: Incoming, keep: Callable[[int], None]) -> str | None:
    """Feed the files of the body to `incoming`; returns the name that the form gave."""
    form = Form(order.form, incoming) if order.form is not None else None
    if order.file is not None:
        incoming.begin(order.file)

    def take(piece: bytes) -> None:
        keep(body.size)
        form.feed(piece) if form is not None else incoming.write(piece)

    async for piece in body.pieces():
        await run_in_threadpool(take, piece)
    await run_in_threadpool(form.close if form is not None else incoming.end)
    await run_in_threadpool(incoming.close)
    _check(order, incoming.files)
    return form.name if form is not None else None


def _check(order: Order, files: list[UploadedFile]) -> None:
    if not any(one.size for one in files):
        what = "The upload holds no files" if not files else "All files of the upload are empty"
        raise Problem(422, Code.INVALID_REQUEST, what, hint="Send one archive, or the images of each class in a folder")
    digest.check(order.sha256, whole_sha256(files))


def _finish(depot: Depot, row: Dataset, order: Order, name: str | None, files: list[UploadedFile]) -> None:
    depot.vault.settle(row.id, files)
    fingerprint, called = _fingerprint(order, name, files), order.name or name or _name(files)
    with explained(), depot.sessions.begin() as session:
        datasets.finish(session, session.get_one(Dataset, row.id), files, fingerprint, called)
        audit.record(session, order.caller, "datasets.create", row.id)


def _name(files: list[UploadedFile]) -> str:
    tops = {one.path.split("/")[0] for one in files}
    return tops.pop() if len(tops) == 1 else "upload"


def _fingerprint(order: Order, name: str | None, files: list[UploadedFile]) -> bytes:
    """The same for requests that make the same dataset, in whatever order their files came."""
    listed = sorted((one.path, one.size, one.sha256) for one in files)
    return hashlib.sha256(json.dumps([order.name, order.file, name, listed]).encode()).digest()


def _fail(depot: Depot, row: Dataset, stored: Incoming | None) -> None:
    """Whatever fails here is done by the cleaner, when the lease is over."""
    with suppress(Exception):
        if stored is not None:
            stored.abandon()
    with suppress(Exception):
        give_up(depot.sessions, depot.vault, row, "failed")
