"""What each preset does. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

SMALL_SIDE = 96


@dataclass(frozen=True)
class Preset:
    """Ranges that random numbers are taken from.

    Large images get a random resized crop of `area` (a fraction of the image, aspect ratio 3:4 to 4:3; Szegedy et al.
    2015), those of `SMALL_SIDE` or less are shifted by a fourteenth at most, mirrored at the border.
    `brightness` and `contrast` are relative, `cast` is the contrast of each colour channel by itself. `degrees`,
    `shift` and `zoom` turn, move and scale the picture, its border repeated. `trivial` is one operation of
    TrivialAugment (Müller & Hutter 2021), `erase` the probability of a grey rectangle (Zhong et al. 2017).
    """

    area: tuple[float, float] | None = None
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    cast: float = 0.0
    degrees: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    trivial: bool = False
    erase: float = 0.0

    @property
    def colours(self) -> bool:
        return max(self.brightness, self.contrast, self.cast) > 0

    @property
    def moves(self) -> bool:
        return max(self.degrees, self.shift, self.zoom) > 0

    def crops(self, shape: tuple[int, int]) -> bool:
        return self.area is not None and max(shape) > SMALL_SIDE


PRESETS = {
    "none": Preset(),
    "flip": Preset(flip=True),
    "light": Preset(area=(0.5, 1.0), flip=True),
    "standard": Preset(area=(0.25, 1.0), flip=True, brightness=0.2, contrast=0.2, cast=0.05),
    "strong": Preset(area=(0.25, 1.0), flip=True, trivial=True, erase=0.25),
    # A mirrored organ is another finding, and a colour can be a diagnosis: neither changes here.
    "medical": Preset(brightness=0.1, contrast=0.1, degrees=10.0, shift=0.05, zoom=0.05),
}
