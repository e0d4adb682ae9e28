"""Which names `dataset.credentials` may be: the project's own secrets, and those that the operator lends to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.orm import Session

from api.book import secrets
from api.book.models import Project
from api.errors import Problem, invalid_request
from training_core.contract.credentials import OperatorEntry
from training_core.contract.errors import Failed
from training_core.storage.credentials import read_all

RESERVED = "store"  # the entry of the store's own key, in the operator's file


class KnownSecrets:
    """The operator's entries as of the start of this process, without their values."""

    def __init__(self, entries: Mapping[str, OperatorEntry]) -> None:
        self._lent = {
            name: OperatorEntry(projects=entry.projects) for name, entry in entries.items() if name != RESERVED
        }

    @classmethod
    def load(cls, file: Path | None) -> KnownSecrets:
        """Ends the process where the file is not valid."""
        try:
            return cls(read_all(file))
        except Failed:
            raise SystemExit("TRAINYARD_CREDENTIALS_FILE: it is no JSON of credentials by name") from None

    def check(self, session: Session, project_id: str, name: str | None) -> None:
        """Raises a 422 for a name that means nothing to the project: unknown, or lent to others, told alike."""
        if name is None:
            return
        if name == RESERVED:
            raise _refused(
                "`store` is the operator's own key and is lent to nobody; PUT /v1/secrets/{name} stores yours"
            )
        if secrets.find(session, project_id, name) is not None:
            return
        entry = self._lent.get(name)
        if entry is None or not entry.is_for(session.get_one(Project, project_id).name):
            raise _refused("This project has no secret of this name; PUT /v1/secrets/{name} stores one")


def _refused(message: str) -> Problem:
    fault = {"type": "value_error", "loc": ("body", "dataset", "credentials"), "ctx": {"error": message}}
    return invalid_request([fault])
