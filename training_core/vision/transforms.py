"""Draws become pictures: decoded, cropped, resized once and augmented, straight into the batch that will hold them."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from training_core.data.buckets import Shape
from training_core.data.sampler import COPY, Indices
from training_core.vision.augment.affine import move_all
from training_core.vision.augment.counter_rng import Bits
from training_core.vision.augment.crops import Boxes, centre_boxes, random_boxes
from training_core.vision.augment.pixels import colour, erase, shift_and_flip, turn
from training_core.vision.augment.presets import PRESETS
from training_core.vision.augment.trivial import trivial
from training_core.vision.pack import Pack

Images = NDArray[np.uint8]

# Streams of a draw's random numbers: one use each, the last ones for the box.
SHIFT, FLIP, COLOUR, MOVE, TRIVIAL, ERASE, BOX = 0, 1, 8, 16, 24, 32, 40


@dataclass(frozen=True)
class Recipe:
    """What pictures are made from and how; all that another process needs to make the same."""

    folder: Path
    augmentation: str = "none"
    seed: int = 0


class Renderer:
    """Makes the pictures of one recipe. Safe from many threads; each keeps a buffer for what it decodes."""

    def __init__(self, pack: Pack, recipe: Recipe) -> None:
        self._pack, self.seed = pack, recipe.seed
        self._preset = PRESETS[recipe.augmentation]
        self._mine = threading.local()
        self._colour_space = "GRAY" if pack.channels == 1 else "RGB"
        _silence_read_only()

    def together(self, shape: Shape) -> bool:
        """Whether a batch is made in one go, a few microseconds an image, so that sharing it would not pay."""
        return self._pack.shape == shape and not self._preset.crops(shape)

    def __call__(self, draws: Indices, epoch: int, out: Images) -> None:
        """Fills `out`, `(len(draws), height, width, channels) uint8`."""
        rows, shape = draws % COPY, (out.shape[1], out.shape[2])
        bits = Bits(draws, self.seed, epoch)
        if self.together(shape):
            self._pack.gather(rows, out)
        elif self._alike(shape):
            resize_into(torch.from_numpy(out).permute(0, 3, 1, 2), self._whole(rows))
        else:
            self.cut(rows, *self.geometry(rows, bits, shape), out)
        self.change(bits, out)

    def _alike(self, shape: Shape) -> bool:
        """Whether all images are square pixels of one size that become whole: one resize makes a batch.

        2 microseconds an image instead of 9 for 28 px to 20, and the same values.
        """
        stored = self._pack.shape
        return stored is not None and stored[0] == stored[1] and shape[0] == shape[1] and not self._preset.crops(shape)

    def _whole(self, rows: Indices) -> Images:
        shape = (len(rows), *(self._pack.shape or ()), self._pack.channels)
        size = math.prod(shape)
        return self._pack.gather(rows, self._buffer(size)[:size].reshape(shape))

    def geometry(self, rows: Indices, bits: Bits, shape: Shape) -> tuple[Boxes, NDArray[np.bool_]]:
        """The part of each image that becomes its picture, and whether it is mirrored."""
        heights, widths = self._pack.heights[rows], self._pack.widths[rows]
        if self._preset.area is None or not self._preset.crops(shape):
            return centre_boxes(heights, widths, shape), np.zeros(len(rows), np.bool_)
        boxes = random_boxes(bits, BOX, heights, widths, area=self._preset.area, shape=shape)
        return boxes, (bits.below(FLIP, 2) == 1) & self._preset.flip

    def cut(self, rows: Indices, boxes: Boxes, flips: NDArray[np.bool_], out: Images) -> None:
        pictures, shape = torch.from_numpy(out).permute(0, 3, 1, 2), (out.shape[1], out.shape[2])
        plans = zip(rows.tolist(), boxes.tolist(), flips.tolist(), strict=True)
        for number, (row, box, flip) in enumerate(plans):
            picture = pictures[number : number + 1]
            resize_into(picture, self._part(row, box, shape))
            if flip:
                picture.copy_(picture.flip(3))

    def _part(self, row: int, box: list[int], shape: Shape) -> Images:
        """The pixels below `box` (top, left, height, width), at least as many as `shape` where the image has them."""
        top, left, height, width = box
        pack = self._pack
        if pack.encoding == "raw" or not pack.plain[row]:
            return pack.pixels(row)[top : top + height, left : left + width]
        whole_height, whole_width = int(pack.heights[row]), int(pack.widths[row])
        divisor = decoding_divisor(height / shape[0], width / shape[1]) if self._preset.crops(shape) else 1
        pixels: Images = simplejpeg.decode_jpeg(
            pack.encoded(row),
            self._colour_space,
            min_height=-(-whole_height // divisor),
            min_width=-(-whole_width // divisor),
            buffer=self._buffer(whole_height * whole_width * pack.channels),
            strict=False,
        )
        if pixels.shape[0] == whole_height:
            return pixels[top : top + height, left : left + width]
        down, right = pixels.shape[0] / whole_height, pixels.shape[1] / whole_width
        top, left = round(top * down), round(left * right)
        return pixels[top : top + max(1, round(height * down)), left : left + max(1, round(width * right))]

    def _buffer(self, size: int) -> Images:
        buffer: Images | None = getattr(self._mine, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._mine.buffer = np.empty(size, np.uint8)
        return buffer

    def change(self, bits: Bits, out: Images) -> None:
        """What happens to pictures that have their size."""
        preset, shape = self._preset, (out.shape[1], out.shape[2])
        if preset.area is not None and not preset.crops(shape):
            shift_and_flip(out, bits.word(SHIFT), flip=preset.flip)
        elif preset.flip and preset.area is None:
            turn(out, bits.below(FLIP, 2) == 1)
        if preset.moves:
            move_all(out, bits, MOVE, preset)
        if preset.colours:
            colour(out, bits, COLOUR, preset)
        if preset.trivial:
            trivial(out, bits, TRIVIAL)
        if preset.erase:
            erase(out, bits, ERASE, preset.erase)


def decoding_divisor(down: float, right: float) -> int:
    """What a JPEG may be divided by in decoding when its part is to shrink by so much: a power of two or nothing.

    Its part then begins up to half a pixel away from where it should, which is well for a random one. Other fractions
    have no fast code in libjpeg-turbo.
    """
    return max(divisor for divisor in (1, 2, 4, 8) if divisor <= max(1.0, min(down, right)))


def resize_into(picture: torch.Tensor, pixels: Images) -> None:
    """`picture` is `(n, channels, height, width) uint8` in channels-last memory, `pixels` `([n,] h, w, channels)`.

    Bilinear with antialiasing on uint8: the kernel below torchvision's `resize`, which writes where we want it. Called
    through its Python binding, which holds the interpreter's lock for some microseconds less than `torch.ops` does.
    """
    source = torch.from_numpy(pixels if pixels.ndim == 4 else pixels[None]).permute(0, 3, 1, 2)
    size = picture.shape[2:]
    if source.shape[2:] == size:
        picture.copy_(source)
    else:
        torch._C._nn._upsample_bilinear2d_aa(source, size, False, None, None, out=picture)  # type: ignore[call-arg]


def _silence_read_only() -> None:
    """Torch warns once in a process that memory-mapped pixels are read-only; nothing here writes to them."""
    locked = np.zeros(1, np.uint8)
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.from_numpy(locked)


def channel_statistics(renderer: Renderer, rows: Indices, side: int, channels: int, images: int) -> NDArray[np.float64]:
    """`(2, channels)`: mean and standard deviation in units of 0-255, from at most `images` spread over `rows`."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), images)).astype(np.int64)]
    sums = np.zeros((2, channels))
    for some in _pieces(chosen, 64):
        out = np.empty((len(some), side, side, channels), np.uint8)
        renderer(some, 0, out)
        pixels = out.reshape(-1, channels)
        sums += [pixels.sum(axis=0, dtype=np.int64), np.square(pixels, dtype=np.int32).sum(axis=0, dtype=np.int64)]
    mean, square = sums / (len(chosen) * side * side)
    return np.stack([mean, np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), 1.0)])


def _pieces(rows: Indices, size: int) -> Iterator[Indices]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
