"""Identifiers: a prefix that says what it names, and a ULID, so that they sort by the time of creation."""

from __future__ import annotations

from ulid import ULID


def new_id(prefix: str) -> str:
    """For example `job_01J9Z3K4M5N6P7Q8R9S0T1V2W3`."""
    return f"{prefix}_{ULID()}"
