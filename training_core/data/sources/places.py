"""Which places may be read: `file://` below the data roots, other URIs by the operator's list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from training_core.contract.errors import Failed, Reason
from training_core.contract.redaction import shown
from training_core.contract.uris import WEB, Link, Refused, parse_link
from training_core.contract.uris.prefixes import covers, segments

ALLOW_FOLDER = (
    "have the operator add its folder to TRAINYARD_DATA_ROOTS of the worker (on one machine `make up DATA=/folder`), "
    "or upload the files with POST /v1/datasets"
)


def allowed_path(path: str, roots: Sequence[Path]) -> Path:
    """The real path behind `path`, relative ones from the first root.

    Raises `Failed(dataset_forbidden)` outside the roots.
    """
    if not roots:
        raise Failed(
            Reason.DATASET_FORBIDDEN,
            f"file://{path} may not be read: this worker allows no local folders",
            ALLOW_FOLDER,
        )
    real = Path(os.path.realpath(roots[0] / path))
    if not is_below(str(real), real_roots(roots)):
        raise Failed(
            Reason.DATASET_FORBIDDEN,
            f"file://{path} lies outside the folders that this worker may read",
            ALLOW_FOLDER,
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
    link = plain(uri)
    place = segments(link)
    if not allowed and link.scheme not in WEB:
        return
    if any(covers(prefix, place) for prefix in allowed):
        return
    raise Failed(
        Reason.DATASET_FORBIDDEN,
        f"{shown(uri)} may not be read: it is not among the places that this worker allows",
        "the operator can allow its prefix with TRAINYARD_ALLOWED_URIS on the worker, and the scheme with "
        "TRAINYARD_ALLOWED_SCHEMES on the API",
    )


def plain(uri: str) -> Link:
    """One place without archives. Raises `Failed(dataset_forbidden)` for what is none, or two to two readers."""
    try:
        return parse_link(uri)
    except Refused as refused:
        raise Failed(Reason.DATASET_FORBIDDEN, f"{shown(uri)} is not a plain address: {refused}") from None


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
