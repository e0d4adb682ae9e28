"""Named credentials of a run by hand, from a file. A worker hands over what a run needs instead, and names no file."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from training_core.contract.credentials import Credentials, OperatorEntry
from training_core.contract.errors import Failed, Reason

__all__ = ["Credentials", "read_all", "read_credentials"]


def read_credentials(file: Path | None, name: str | None) -> Credentials:
    """The entry called `name`, or unsigned access when no name is given. Raises `Failed(credentials_unknown)`."""
    if name is None:
        return Credentials(anonymous=True)
    entries = read_all(file)
    if name not in entries:
        raise unknown(name)
    return entries[name]


def read_all(file: Path | None) -> dict[str, OperatorEntry]:
    """All entries; empty when there is no file. Raises `Failed(credentials_unknown)` for a file that is not valid."""
    if file is None or not file.exists():
        return {}
    try:
        return TypeAdapter(dict[str, OperatorEntry]).validate_json(file.read_bytes())
    except (OSError, ValidationError) as problem:
        raise Failed(
            Reason.CREDENTIALS_UNKNOWN, "the worker's credentials file cannot be read", "ask the operator to mend it"
        ) from problem


def unknown(name: str) -> Failed:
    """The same words for a name that does not exist, and for one that this project may not use."""
    return Failed(
        Reason.CREDENTIALS_UNKNOWN,
        f"this project has no credentials called {name!r}",
        "PUT /v1/secrets/{name} stores them; correct dataset.credentials",
    )
