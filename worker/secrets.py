"""The credentials that an attempt reads its data with: opened here, for the one process that reads it."""

from __future__ import annotations

from pathlib import Path

from training_core.contract.errors import Failed, Reason
from training_core.contract.messages import Ticket
from training_core.contract.sealing import CannotOpen, Sealer
from training_core.storage.credentials import read_all, unknown

RESERVED = "store"  # the store's own key in the operator's file, lent to nobody


class Secrets:
    """`file` is the operator's, read anew for each attempt: entries come and go without a restart."""

    def __init__(self, sealer: Sealer | None, file: Path | None) -> None:
        self._sealer, self._file = sealer, file

    def of(self, ticket: Ticket) -> bytes | None:
        """Credentials as JSON, an operator's entry with its projects; None where the spec names none.

        Raises `Failed(credentials_unknown)`, in the same words for a name that nobody knows and one lent to others.
        """
        name = ticket.spec.dataset.credentials
        if name is None:
            return None
        if ticket.secret is not None and ticket.secret.name == name:
            return self._opened(ticket)
        entry = read_all(self._file).get(name)
        if entry is None or name == RESERVED or not entry.is_for(ticket.project):
            raise unknown(name)
        return entry.model_dump_json(exclude_defaults=True).encode()

    def _opened(self, ticket: Ticket) -> bytes:
        assert ticket.secret is not None  # noqa: S101
        if self._sealer is None:
            raise _closed(ticket.secret.name, "this worker has no key for secrets")
        try:
            return self._sealer.open(ticket.secret.project_id, ticket.secret.name, ticket.secret.sealed)
        except CannotOpen:
            raise _closed(ticket.secret.name, "none of this worker's keys opens it") from None


def _closed(name: str, why: str) -> Failed:
    return Failed(
        Reason.CREDENTIALS_UNKNOWN,
        f"the secret {name!r} stays closed: {why}",
        "the operator sets the same TRAINYARD_SECRETS_KEY on the API and on every worker",
    )
