"""Entries of an operator's list, each the beginning of URIs: `s3://pets/`, `https://images.example.org/2026`."""

from __future__ import annotations

from urllib.parse import unquote

from training_core.contract.redaction import shown
from training_core.contract.uris.links import ALIASES, DEFAULT_PORTS, WEB, Link, parse_link
from training_core.contract.uris.text import Refused


def segments(link: Link) -> tuple[str, ...]:
    """Scheme, host and the segments of the path, as the server will understand them."""
    port = f":{link.port or DEFAULT_PORTS[link.scheme]}" if link.scheme in WEB else ""
    path = unquote(link.path) if link.scheme in WEB else link.path
    inside = path.strip("/")
    return (link.scheme, link.host + port, *(inside.split("/") if inside else ()))


def covers(prefix: str, place: tuple[str, ...]) -> bool:
    """Whether `place`, in segments, lies below an entry; `s3://` alone allows the whole scheme."""
    scheme, separator, rest = prefix.partition("://")
    if separator and not rest:
        return place[0] == ALIASES.get(scheme.lower(), scheme.lower())
    wanted = segments(parse_link(prefix.replace(" ", "%20") if scheme.lower() in WEB else prefix))
    return place[: len(wanted)] == wanted


def check_prefix(prefix: str) -> None:
    """Raises `ValueError` for an entry that covers nothing: when the worker starts, not when a job does."""
    try:
        covers(prefix, ("",))
    except Refused as refused:
        raise ValueError(f"{shown(prefix)} is no beginning of a URI: {refused}") from None
