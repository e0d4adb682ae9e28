"""A 64-bit hash of bytes at memory speed (XXH3), to find copies; it defends nothing: whoever builds a collision only
loses his own image."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray


def fingerprint(content: bytes | NDArray[np.uint8]) -> int:
    """A number below 2**64, never 0, which stands for "no content". Arrays are contiguous, and shape counts."""
    if isinstance(content, bytes):
        return xxhash.xxh3_64_intdigest(content) or 1
    return xxhash.xxh3_64_intdigest(content.data, seed=content.shape[0]) or 1
