"""Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a list of keys, the first of which seals and all of which open.

sealed     1 byte of format, 4 that tell the key, 12 of nonce (random), ciphertext with its tag of 16 bytes

What is sealed is bound to its project and name: a ciphertext that was moved to another row does not open there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = b"\x01"
KEY_BYTES, MARK_BYTES, NONCE_BYTES = 32, 4, 12
HEAD_BYTES = len(FORMAT) + MARK_BYTES + NONCE_BYTES
FINGERPRINT_CHARACTERS = 16


class CannotOpen(Exception):
    """It was sealed by a key that is not here, for another project or name, or it was changed since."""


class Sealer:
    """Whoever holds one can read every secret of every project."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """At least one key of 32 bytes."""
        self._keys = {_mark(key): key for key in keys}
        self._first = keys[0]

    def seal(self, project_id: str, name: str, content: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        head = FORMAT + _mark(self._first) + nonce
        return head + AESGCM(self._first).encrypt(nonce, content, _bound_to(project_id, name))

    def open(self, project_id: str, name: str, sealed: bytes) -> bytes:
        """Raises `CannotOpen`."""
        key = self._keys.get(sealed[len(FORMAT) : len(FORMAT) + MARK_BYTES])
        if key is None or not sealed.startswith(FORMAT):
            raise CannotOpen
        nonce = sealed[HEAD_BYTES - NONCE_BYTES : HEAD_BYTES]
        try:
            return AESGCM(key).decrypt(nonce, sealed[HEAD_BYTES:], _bound_to(project_id, name))
        except (InvalidTag, ValueError):
            raise CannotOpen from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key sealed it."""
        return sealed.startswith(FORMAT + _mark(self._first))

    def fingerprint(self, project_id: str, name: str, content: bytes) -> str:
        """Changes with the content, and tells nothing about it to somebody without the key."""
        key = hmac.digest(self._first, b"trainyard fingerprint", "sha256")
        return hmac.new(key, _bound_to(project_id, name) + content, "sha256").hexdigest()[:FINGERPRINT_CHARACTERS]


def new_key() -> str:
    """As `TRAINYARD_SECRETS_KEY` takes it."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def parse_keys(text: str) -> list[bytes]:
    """Keys with commas, each 32 bytes in base64; none of an empty text. Raises `ValueError`, which quotes nothing."""
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            key = base64.b64decode(part.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("each key is base64; `python -m api.secrets new-key` prints one") from None
        if len(key) != KEY_BYTES or len(set(key)) < KEY_BYTES // 4:
            raise ValueError(f"each key is {KEY_BYTES} random bytes; `python -m api.secrets new-key` prints one")
        keys.append(key)
    return keys


def sealer_of(text: str) -> Sealer | None:
    """None where no key is set. Raises `ValueError`."""
    keys = parse_keys(text)
    return Sealer(keys) if keys else None


def _mark(key: bytes) -> bytes:
    return hashlib.sha256(b"trainyard key " + key).digest()[:MARK_BYTES]


def _bound_to(project_id: str, name: str) -> bytes:
    return json.dumps(["trainyard secret", 1, project_id, name]).encode()
