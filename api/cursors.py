"""Opaque cursors: where a page ended, as flat JSON in base64url. Whatever we did not write ourselves is no cursor."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping

Value = str | int | float | bool | None
CHARACTERS = 4000
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


class Unreadable(Exception):
    """No cursor of this kind of page."""


def write(place: Mapping[str, Value]) -> str:
    """Names in their order, so that a place is written in one way alone."""
    text = json.dumps(place, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str) -> dict[str, Value]:
    """What `write` was given. Raises `Unreadable` for any text that it does not write."""
    if len(cursor) > CHARACTERS:
        raise Unreadable
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        raise Unreadable from None
    if not isinstance(place, dict) or not all(_is_plain(value) for value in place.values()) or write(place) != cursor:
        raise Unreadable
    return place


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    return value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
