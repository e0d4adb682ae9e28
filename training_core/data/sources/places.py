"""Which places may be read: `file://` below the data roots, other URIs by the operator's list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from training_core.failure import Failed
from training_core.wire import Reason

WEB = ("http", "https")
CONTAINERS = ("zip", "tar")
ALIASES = {"gcs": "gs", "abfs": "az", "abfss": "az", "s3a": "s3"}
DEFAULT_PORTS = {"http": 80, "https": 443}


def parse(link: str) -> tuple[str, str]:
    """Scheme and path of one link of a URI; a container may stand without `://`."""
    scheme, separator, path = link.partition("://")
    if not separator:
        scheme, path = link, ""
    scheme = ALIASES.get(scheme.lower(), scheme.lower())
    return scheme, path.rstrip("*").strip("/") if scheme in CONTAINERS else path


def allowed_path(path: str, roots: Sequence[Path]) -> Path:
    """The real path behind `path`, relative ones from the first root.

    Raises `Failed(dataset_forbidden)` outside the roots.
    """
    if not roots:
        raise Failed(
            Reason.DATASET_FORBIDDEN,
            f"file://{path} may not be read: this worker allows no local folders",
            "the operator can allow some with data_roots",
        )
    real = Path(os.path.realpath(roots[0] / path))
    if not is_below(str(real), real_roots(roots)):
        raise Failed(
            Reason.DATASET_FORBIDDEN,
            f"file://{path} lies outside the folders that this worker may read",
            "move the data below one of the worker's data roots, or have the operator add its folder to them",
        )
    return real


def real_roots(roots: Sequence[Path]) -> list[str]:
    return [os.path.realpath(root) for root in roots]


def is_below(real: str, roots: Sequence[str]) -> bool:
    return any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots)


def check_allowed(uri: str, allowed: Sequence[str]) -> None:
    """Raises `Failed(dataset_forbidden)` for a URI that the operator's list does not cover.

    Without a list every bucket may be read, and no web address: a worker must not become a door to its own network.
    """
    place = normal(uri)
    if not allowed and place[0] not in WEB:
        return
    if any(_covers(normal(prefix), place) for prefix in allowed):
        return
    raise Failed(
        Reason.DATASET_FORBIDDEN,
        f"{shown(uri)} may not be read: it is not among the places that this worker allows",
        "the operator can allow its prefix with allowed_uris",
    )


def normal(uri: str) -> tuple[str, ...]:
    """Scheme, host and the segments of the path, as the server will understand them.

    Raises `Failed(dataset_forbidden)` for a path that two readers may take for two places (`..`, an encoded slash).
    """
    scheme, rest = parse(uri)
    if scheme in WEB:
        parts = urlsplit(f"{scheme}://{rest}")
        host = f"{(parts.hostname or '').rstrip('.')}:{parts.port or DEFAULT_PORTS[scheme]}"
        path, clear = unquote(parts.path), "@" not in parts.netloc and "%2f" not in parts.path.lower()
    else:
        host, _, path = rest.partition("/")
        host, clear = host.lower(), True
    decoded = unquote(unquote(path)).replace("\\", "/")
    if not clear or not {".", ".."}.isdisjoint(decoded.split("/")):
        raise Failed(
            Reason.DATASET_FORBIDDEN, f"{shown(uri)} is not a plain path", "write it without `..` and encoded slashes"
        )
    return (scheme, host, *path.strip("/").split("/")) if path.strip("/") else (scheme, host)


def _covers(prefix: tuple[str, ...], place: tuple[str, ...]) -> bool:
    if prefix[1] == "":  # `s3://` alone allows the whole scheme
        return place[0] == prefix[0]
    return place[: len(prefix)] == prefix


def shown(uri: str) -> str:
    """The URI without its query, which may hold a signature."""
    return uri.partition("?")[0]


def check_name(name: str, where: str) -> str:
    """`name` of a member or a row, which must stay below its root. Raises `Failed(dataset_invalid)`."""
    unsafe = name.startswith("/") or "\\" in name or "\0" in name or ":" in name.split("/", 1)[0]
    if unsafe or ".." in name.split("/"):
        raise Failed(
            Reason.DATASET_INVALID,
            f"{name[:200]!r} in {where} is not a safe name for a file",
            "make the archive or the list again with names relative to its root",
        )
    return name
