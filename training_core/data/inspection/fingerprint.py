"""A 64-bit hash of bytes at memory speed: equal bytes give equal numbers, different ones practically never do.

Multilinear hashing modulo 2**64 (Lemire & Kaser 2014, "Strongly universal string hashing is fast") over fixed odd
weights, block by block. It finds copies, it defends nothing: whoever builds a collision only loses his own image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORDS = 1 << 15  # 256 KiB of weights; more makes no difference to the speed
_WEIGHTS: NDArray[np.uint64] = np.random.default_rng(0x7261_6E79).integers(0, 1 << 64, WORDS, np.uint64) | np.uint64(1)
_PRIME = 0x9E37_79B9_7F4A_7C15
_MASK = (1 << 64) - 1


def fingerprint(content: bytes | NDArray[np.uint8]) -> int:
    """A number below 2**64, never 0, which stands for "no content"."""
    flat = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else np.ascontiguousarray(content).reshape(-1)
    whole = flat.size // 8 * 8
    value = flat.size
    words = flat[:whole].view(np.uint64)
    for start in range(0, words.size, WORDS):
        block = words[start : start + WORDS]
        value = (_mix(value) + int(np.dot(block, _WEIGHTS[: block.size]))) & _MASK
    if whole < flat.size:
        value = _mix(value) ^ int.from_bytes(flat[whole:].tobytes(), "little")
    return _mix(value) or 1


def _mix(value: int) -> int:
    value = ((value ^ (value >> 32)) * _PRIME) & _MASK
    return value ^ (value >> 29)
