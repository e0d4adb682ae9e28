"""Random numbers by counter, so that each draw has its own, in any order. Torch-free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GAMMA = 0x9E3779B97F4A7C15


def sample_bits(draws: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.uint64]:
    """64 random bits for each draw: SplitMix64 (Steele, Lea & Flood 2014) over seed, epoch and draw."""
    start = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return _mix(start + (draws.astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA))


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


class Bits:
    """Streams of independent numbers for each draw; every use takes a stream of its own by number."""

    def __init__(self, draws: NDArray[np.int64], seed: int, epoch: int) -> None:
        self._state = sample_bits(draws, seed, epoch)

    def word(self, stream: int) -> NDArray[np.uint64]:
        return _mix(self._state + np.uint64(stream * GAMMA % 2**64)) if stream else self._state

    def uniform(self, stream: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
        """Each in [low, high)."""
        unit = (self.word(stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return low + (high - low) * unit

    def below(self, stream: int, bound: int) -> NDArray[np.int64]:
        """Whole numbers in [0, bound); the bias of at most bound / 2**32 is nothing here."""
        return ((self.word(stream) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)
