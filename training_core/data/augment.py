"""Augmentation of a whole batch on uint8, as a function of seed, epoch and sample, whatever the batch or the rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def light(images: Images, samples: NDArray[np.int64], seed: int, epoch: int) -> Images:
    """Random crop after padding by an eighth, and a horizontal flip of every second image.

    `images` is `(batch, height, width, channels)`; the result has the same shape and its own memory.
    """
    batch, height, width, _ = images.shape
    pad = max(1, height // 14)
    random = sample_bits(samples, seed, epoch)
    down = (random % np.uint64(2 * pad + 1)).astype(np.int64)
    right = ((random >> np.uint64(20)) % np.uint64(2 * pad + 1)).astype(np.int64)
    flip = (random >> np.uint64(40)) % np.uint64(2) == 1
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    cropped = np.moveaxis(windows[np.arange(batch), down, right], 1, -1)
    cropped[flip] = cropped[flip][:, :, ::-1]
    return np.ascontiguousarray(cropped)


def sample_bits(samples: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.uint64]:
    """64 random bits for each sample: SplitMix64 (Steele, Lea & Flood 2014) over seed, epoch and sample number."""
    start = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        bits = start + (samples.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: NDArray[np.uint64] = bits ^ (bits >> np.uint64(31))
    return mixed
