"""Requests that stay open, by what keeps them open; each kind has a bound of its own."""

from __future__ import annotations

import re
from typing import Literal

from starlette.types import Scope

Kind = Literal["waits", "streams", "downloads", "uploads"]

_STREAM = re.compile(r"/stream/?$")
_DOWNLOAD = re.compile(r"/(download|data_report|files|pictures)(/|$)")
_UPLOAD = re.compile(r"^/v1/datasets(/|$)")
_WAIT = re.compile(rb"(?:^|&)wait=(?!0*\.?0*(?:&|$))")


def kind_of(scope: Scope) -> Kind | None:
    """None for a request that is answered as soon as it can be."""
    path, reads = scope["path"], scope["method"] in ("GET", "HEAD")
    if not reads:
        return "uploads" if _UPLOAD.match(path) else None
    if _STREAM.search(path):
        return "streams"
    if _DOWNLOAD.search(path):
        return "downloads"
    return "waits" if _WAIT.search(scope["query_string"]) else None
