"""What a client says that the sha256 of a body is: `?sha256=` in hexadecimal digits, or Content-Digest (RFC 9530)."""

from __future__ import annotations

import base64
import binascii
import re

from api.errors import Code, Problem


def told_sha256(parameter: str | None, header: str | None) -> str | None:
    """In hexadecimal digits; None where nothing was told. Raises a 422 problem for what is no sha256."""
    told = {one for one in (_of_parameter(parameter), _of_header(header)) if one is not None}
    if len(told) > 1:
        raise _invalid("The parameter sha256 and Content-Digest differ")
    return told.pop() if told else None


def check(told: str | None, found: str) -> None:
    """Raises a 422 problem where the body was not what it should be."""
    if told is not None and told != found:
        detail = "The sha256 of what arrived is not the one that was told"
        raise Problem(422, Code.DIGEST_MISMATCH, detail, hint="Send it again", retryable=True, sha256=found)


def _of_parameter(text: str | None) -> str | None:
    if text is None:
        return None
    if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
        raise _invalid("sha256 is 64 hexadecimal digits")
    return text.lower()


def _of_header(text: str | None) -> str | None:
    """Other algorithms are passed over, as the RFC wants it."""
    found = re.search(r"(?:^|,)\s*sha-256=([^,]*)", text or "")
    if found is None:
        return None
    try:
        digest = base64.b64decode(found[1].strip().removeprefix(":").removesuffix(":"), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32 or not found[1].strip().startswith(":"):
        raise _invalid("Content-Digest is sha-256=:…: with the digest in base64")
    return digest.hex()


def _invalid(message: str) -> Problem:
    return Problem(422, Code.INVALID_REQUEST, message)
