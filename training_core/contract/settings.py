"""What every process does with its `TRAINYARD_…` variables: reads them once, refuses a misspelt one, shows them.

Torch-free. No value of a variable is ever in a message: it may be a password.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

PREFIX = "TRAINYARD_"

# The settings of all processes, without the prefix: one may be started in the environment of another. The last line is
# of `make up`, of a training without the service, and of what processes hand to their own children.
# `tests/unit/test_settings.py` holds them against the classes that define them.
KNOWN = frozenset(
    {
        "AHEAD_WAIT_SECONDS", "ALLOWED_NETWORKS", "ALLOWED_ORIGINS", "ALLOWED_SCHEMES", "ALLOWED_URIS",
        "ATTEMPT_MEMORY_BYTES", "BODY_LIMIT_BYTES", "CACHE_BYTES", "CACHE_DIR", "CLAIM_SECONDS", "CREDENTIALS_FILE",
        "DATABASE_URL", "DATA_ROOTS", "DEVICE", "KEY_CACHE_SECONDS", "LAUNCHER_ORDERS", "LOADER", "LOSSES_LIMIT",
        "MODE", "POOL_SIZE", "PREPARATION_MEMORY_BYTES", "PRIVATE_DIRS", "PROFILES_FILE", "PUBLIC_URL",
        "RECEIVE_SECONDS", "REDIS_URL", "RESERVE_AFTER_SECONDS",
        "SIGNING_KEY", "SLOTS", "SLOT_WAIT_SECONDS", "STALL_SECONDS", "STOP_GRACE_SECONDS", "STORE",
        "STORE_CREDENTIALS_FILE", "STREAM_TOKEN_SECONDS", "TERM_GRACE_SECONDS", "UNSCHEDULABLE_AFTER_SECONDS",
        "UPLOAD_EXPIRY_HOURS", "UPLOAD_FILES_LIMIT", "UPLOAD_LIMIT_BYTES", "UPLOAD_PART_LIMIT_BYTES",
        "UPLOAD_QUOTA_BYTES", "UPLOAD_STALL_SECONDS", "WAIT_LIMIT_SECONDS", "WARM_LAUNCHER", "WORKER_LOST_SECONDS",
        "WORKER_NAME", "WORKER_SUSPECTED_SECONDS", "WORK_DIR",
        "CONNECTIONS", "DRAIN_SECONDS", "HEADER_SECONDS", "HOST", "KEEP_ALIVE_SECONDS", "OPEN_DOWNLOADS",
        "OPEN_STREAMS", "OPEN_UPLOADS", "OPEN_WAITS", "PATIENCE_SECONDS", "PLACES", "PORT", "RATE_GUESSES",
        "RATE_GUESSES_SECONDS", "RATE_REQUESTS", "RATE_SECONDS",
        "ACCESS_FILE", "SECRETS_KEY",
        "COLLECTIVE_SECONDS", "DATA", "PARENT_PID", "RANKS_PARENT_PID", "SECRET_DESCRIPTOR",
    }
)  # fmt: skip

COMMON_PASSWORDS = frozenset(
    {"", "admin", "changeme", "default", "password", "postgres", "redis", "secret", "trainyard", "valkey"}
)
LEAST_PASSWORD_CHARACTERS = 12

Settings = TypeVar("Settings", bound=BaseModel)


def load(kind: type[Settings]) -> Settings:
    """The settings of this process; it ends here, with one line for each fault, when there is one."""
    faults = list(misspelt(os.environ))
    try:
        settings = kind()
    except ValidationError as error:
        faults += [_line(fault) for fault in error.errors(include_url=False, include_input=False)]
    if faults:
        raise SystemExit("\n".join(faults))
    return settings


def misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable with our prefix that no process knows, with the nearest one."""
    for name in sorted(environment):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in KNOWN:
            nearest = get_close_matches(name.removeprefix(PREFIX), sorted(KNOWN), n=1)
            meant = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else "; docs/settings.md lists them"
            yield f"{name}: there is no such setting{meant}"


def _line(fault: Mapping[str, Any]) -> str:
    """pydantic's own words; those of our validators name what they refuse, which is never a secret."""
    name = PREFIX + str(fault["loc"][0]).upper() if fault["loc"] else "settings"
    if fault["type"] == "missing":
        return f"{name}: it must be set"
    return f"{name}: {str(fault['msg']).removeprefix('Value error, ')}"


def table(settings: BaseModel) -> list[str]:
    """One line for each setting: its variable, what is used, and whether that is the default."""
    rows = [
        (PREFIX + name.upper(), _shown(getattr(settings, name)), _origin(name)) for name in type(settings).model_fields
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}".rstrip() for name, value, origin in rows]


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(secret, set)" if value.get_secret_value() else "(empty)"
    if isinstance(value, list | tuple | frozenset | set):
        return ", ".join(map(str, value)) or "(none)"
    return "(none)" if value is None or value == "" else str(value)


def _origin(name: str) -> str:
    return "from the environment" if PREFIX + name.upper() in os.environ else ""


def weak_password(url: str) -> str | None:
    """What is wrong with the password in a server's URL, in words without it; None for a good one, and for a socket."""
    if not urlsplit(url).hostname:
        return None
    password = urlsplit(url).password or ""
    if password.lower() in COMMON_PASSWORDS:
        return "has no password, or one that everybody knows"
    if len(password) < LEAST_PASSWORD_CHARACTERS:
        return f"has a password of less than {LEAST_PASSWORD_CHARACTERS} characters"
    return None


def without_password(url: str) -> str:
    """The same server, asked by nobody in particular."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def command(kind: type[BaseModel], program: str) -> None:
    """`python -m <program> check`: what would be used, or what is wrong with it (exit code 1)."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description="The settings of this process.")
    parser.add_subparsers(required=True).add_parser("check", help="print what would be used; exit 1 with what is wrong")
    parser.parse_args()
    sys.stdout.write("\n".join(table(load(kind))) + "\n")
