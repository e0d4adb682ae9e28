"""Images that look wrong by themselves: which, how badly, and beyond which value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_core.data.items import Items

Rows = NDArray[np.int64]
Values = NDArray[Any]

DARK = 0.32
BRIGHT = 0.95
LOW_INFORMATION = 3.0
LOW_CONTRAST = 0.25
BLURRED = 0.33
SIZE_OCTAVES = 1.0
ASPECT_OCTAVES = (1.0, 1.5)
IQR_FACTOR = 3.0


@dataclass(frozen=True)
class Look:
    """`rows`, rising, were found; `severity` orders them, worst highest; `values` are shown for each of them.

    `of` names, for a copy, the row that it is a copy of; None where that is no question.
    """

    rows: Rows
    severity: Values
    values: Values
    threshold: str
    of: Rows | None = None


def _dark(items: Items) -> Look:
    highlight = items.column("highlight")
    return _found(highlight < DARK, -highlight, highlight, f"99 % of the pixels are darker than {DARK}")


def _bright(items: Items) -> Look:
    shadow = items.column("shadow")
    return _found(shadow > BRIGHT, shadow, shadow, f"95 % of the pixels are brighter than {BRIGHT}")


def _low_information(items: Items) -> Look:
    """Drawings on a plain ground have few tones too: what is flat has no contrast either."""
    entropy, contrast = items.column("information"), items.column("highlight") - items.column("shadow")
    found = (entropy < LOW_INFORMATION) & (contrast < LOW_CONTRAST)
    threshold = f"entropy below {LOW_INFORMATION} bits a pixel, and contrast below {LOW_CONTRAST}"
    return _found(found, -entropy, entropy, threshold)


def _blurred(items: Items) -> Look:
    """One limit for all sizes: sharpness is measured in pixels, and sharp images of 28 px reach 0.6 where photographs
    of 258 px reach 0.4 to 0.8, and either falls below 0.31 when blurred by a Gaussian of two pixels."""
    sharpness = items.column("sharpness")
    return _found(sharpness < BLURRED, -sharpness, sharpness, f"sharpness below {BLURRED}")


def _odd_size(items: Items) -> Look:
    width, height = items.column("width").astype(np.float64), items.column("height").astype(np.float64)
    return _outlying(np.sqrt(width * height), SIZE_OCTAVES, np.inf, "px", "square root of the area")


def _odd_aspect(items: Items) -> Look:
    aspect = items.column("width").astype(np.float64) / items.column("height")
    return _outlying(aspect, *ASPECT_OCTAVES, "", "width / height")


def _outlying(values: Values, least: float, most: float, unit: str, what: str) -> Look:
    """Beyond IQR_FACTOR interquartile ranges from the quartiles (Tukey 1977), on a scale of octaves.

    `least` octaves from the median are always ordinary: where nearly all images are alike the range is no measure.
    `most` octaves are always odd: where shapes are mixed the range grows beyond any use.
    """
    if not len(values):
        return _found(np.zeros(0, np.bool_), values, values, "")
    octaves = np.log2(values)
    low, middle, high = np.percentile(octaves, [25, 50, 75])
    reach = IQR_FACTOR * (high - low)
    lower = middle - np.clip(middle - low + reach, least, most)
    upper = middle + np.clip(high - middle + reach, least, most)
    found = (octaves < lower) | (octaves > upper)
    threshold = f"{what} below {2**lower:.3g} or above {2**upper:.3g} {unit}".strip()
    return _found(found, np.abs(octaves - middle), values, threshold)


def _found(found: NDArray[np.bool_], severity: Values, values: Values, threshold: str) -> Look:
    rows = np.flatnonzero(found)
    return Look(rows, severity[rows], values[rows], threshold)


LOOKS = {
    "blurred": _blurred,
    "dark": _dark,
    "bright": _bright,
    "low_information": _low_information,
    "odd_size": _odd_size,
    "odd_aspect": _odd_aspect,
}
