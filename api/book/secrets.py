"""Secrets of a project in the book: sealed before they get here, opened only by who holds the key."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.book.models import Secret
from training_core.contract.credentials import Credentials
from training_core.contract.sealing import CannotOpen, Sealer

MOST_IN_A_PROJECT = 100


class TooMany(Exception):
    """The project has as many secrets as it may."""


def put(session: Session, sealer: Sealer, project_id: str, name: str, credentials: Credentials) -> tuple[Secret, bool]:
    """The secret, and whether it is new. The same value again changes nothing. Raises `TooMany`."""
    content = credentials.model_dump_json(exclude_defaults=True).encode()
    known = find(session, project_id, name)
    if known is not None and _holds(sealer, known, content):
        return known, False
    if known is None and len(all_of(session, project_id)) >= MOST_IN_A_PROJECT:
        raise TooMany
    row = {
        "kind": credentials.kind,
        "sealed": sealer.seal(project_id, name, content),
        "fingerprint": sealer.fingerprint(project_id, name, content),
    }
    statement = insert(Secret).values(project_id=project_id, name=name, version=1, **row)
    changed = {**row, "version": Secret.version + 1, "updated_at": func.now()}
    statement = statement.on_conflict_do_update(index_elements=[Secret.project_id, Secret.name], set_=changed)
    written = select(Secret).from_statement(statement.returning(Secret))
    secret = session.scalars(written, execution_options={"populate_existing": True}).one()
    return secret, secret.version == 1


def find(session: Session, project_id: str, name: str) -> Secret | None:
    return session.get(Secret, (project_id, name))


def all_of(session: Session, project_id: str) -> Sequence[Secret]:
    """By name."""
    return session.scalars(select(Secret).where(Secret.project_id == project_id).order_by(Secret.name)).all()


def remove(session: Session, project_id: str, name: str) -> bool:
    """Whether there was one."""
    gone = delete(Secret).where(Secret.project_id == project_id, Secret.name == name).returning(Secret.name)
    return session.execute(gone).first() is not None


def seal_again(session: Session, sealer: Sealer) -> tuple[int, list[tuple[str, str]]]:
    """Seal what other keys than the first have sealed; how many those were, and which ones no key opens.

    Fingerprints and versions stay: the values are the same.
    """
    sealed, lost = 0, []
    for row in session.scalars(select(Secret).order_by(Secret.project_id, Secret.name).with_for_update()):
        if sealer.is_current(row.sealed):
            continue
        try:
            content = sealer.open(row.project_id, row.name, row.sealed)
        except CannotOpen:
            lost.append((row.project_id, row.name))
            continue
        row.sealed = sealer.seal(row.project_id, row.name, content)
        sealed += 1
    return sealed, lost


def _holds(sealer: Sealer, secret: Secret, content: bytes) -> bool:
    try:
        return sealer.open(secret.project_id, secret.name, secret.sealed) == content
    except CannotOpen:
        return False
