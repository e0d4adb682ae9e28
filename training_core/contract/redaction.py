"""Takes passwords, signatures, tokens and keys out of text: of errors, hints, reports and log lines. Torch-free.

One list for all: what it finds in a URI is refused there at submission.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from types import TracebackType

HIDDEN = "***"

_NAMES = (
    r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid|key-pair-id|sig|"
    r"signature|(?:access|refresh|id|auth|session|security|bearer|sas)?[_-]?token|(?:api|account)[_-]?key|"
    r"password|passwd|pwd|(?:client[_-]?|(?:aws[_-]?)?)secret(?:[_-]?(?:access[_-]?)?key)?|"
    r"shared-?access-?signature|connection[_-]?string"
)
_USER = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s\"'<>]*@")
_NAMED = re.compile(rf"(?i)((?:(?<![a-z0-9])|(?<=%[0-9a-f][0-9a-f]))(?:{_NAMES})(?:=|%3d))([^\s&\"'<>]+)")
_SAID = re.compile(
    r"(?i)(\b(?:aws_)?(?:secret|token|password|passwd|authorization|api_?key|access_?key)(?:_\w+)?[\"']?\s*[=:]\s*[\"']?"
    r"(?:(?:bearer|basic)\s+)?)\S+"
)
_BEARER = re.compile(r"(?i)(\bbearer\s+)[a-z0-9._~+/=-]{8,}")
_SHAPES = re.compile(
    r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"  # a JSON web token
    r"|(?<![A-Za-z0-9])ty_[0-9A-Z]{20,}(?:_[A-Za-z0-9_-]+)?"  # a key of this service
    r"|(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{12,}"
    r"|(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.|\n)*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_IN_URIS = (_USER, _NAMED)


def redact(text: str) -> str:
    """`text` with `***` where a secret stood. Says nothing new when it is asked twice."""
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    for pattern in (_NAMED, _SAID, _BEARER):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def holds_secret(uri: str) -> bool:
    """Whether something in a URI is no business of whoever reads it."""
    return any(pattern.search(uri) for pattern in (*_IN_URIS, _SHAPES))


def shown(uri: str) -> str:
    """The URI as errors may name it: without its query, and without what is a secret by its look."""
    return redact(uri.partition("?")[0])


class Redacted(logging.Formatter):
    """Another formatter's lines, tracebacks included, without secrets."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return redact(self._inner.format(record))


def redact_logs() -> None:
    """From now on, what the handlers of this process write, and what an uncaught error prints, holds no secrets."""
    known = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    for handler in {handler for logger in (logging.root, *known) for handler in logger.handlers}:
        if not isinstance(handler.formatter, Redacted):
            handler.setFormatter(Redacted(handler.formatter or logging.Formatter()))
    sys.excepthook = _print_uncaught


def print_error(error: BaseException) -> None:
    """The traceback of an error on standard error, which is the log of a run."""
    sys.stderr.write(redact("".join(traceback.format_exception(error))))
    sys.stderr.flush()


def _print_uncaught(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    print_error(error)
