"""Seeded corruptions of real images, written as files: class folders in which the truth is known by name.

The photographs are those that scikit-image, scikit-learn and matplotlib ship, cut at their own resolution into pieces
that do not overlap; small images are Fashion-MNIST's (Debian's dataset-fashion-mnist, or the sample in examples/data).
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

SKIMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
SKLEARN = ("china.jpg", "flower.jpg")
PHOTOGRAPHS = len(SKIMAGE) + len(SKLEARN) + 1
# Out of focus, or dark, as they were taken: the truth of their pieces is unknown.
SOFT = ("cell", "retina", "moon", "hubble_deep_field")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SAMPLE = Path(__file__).parents[2] / "examples/data/fashion-mnist-sample.zip"

Picture = Image.Image
Random = np.random.Generator
Change = Callable[[Picture, Random], Picture]


@dataclass
class Corpus:
    """Files below `folder`; `bad` are the names that should be found, `pairs` the copies among them."""

    folder: Path
    bad: set[str] = field(default_factory=set)
    pairs: set[frozenset[str]] = field(default_factory=set)
    files: int = 0

    def add(self, name: str, content: bytes | Picture, **options: object) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)
        self.files += 1
        return name


def photographs(width: int, height: int) -> Iterator[tuple[str, Picture]]:
    """Pieces of this size, named by their photograph, at full and at 0.6 of its resolution."""
    for path in _photograph_files():
        whole = Image.open(path).convert("RGB")
        for scale in (1.0, 0.6):
            size = (int(whole.width * scale), int(whole.height * scale))
            image = whole if scale == 1 else whole.resize(size, Image.Resampling.LANCZOS)
            for top in range(0, image.height - height + 1, height):
                for left in range(0, image.width - width + 1, width):
                    name = f"{path.stem}/{int(scale * 10):02}-{left:04}-{top:04}"
                    yield name, image.crop((left, top, left + width, top + height))


def _photograph_files() -> list[Path]:
    import matplotlib as mpl  # noqa: PLC0415  packages of the benchmark alone
    import skimage  # noqa: PLC0415
    import sklearn  # noqa: PLC0415

    folders = [Path(str(module.__file__)).parent for module in (skimage, sklearn, mpl)]
    return [
        *(folders[0] / "data" / name for name in SKIMAGE),
        *(folders[1] / "datasets/images" / name for name in SKLEARN),
        folders[2] / "mpl-data/sample_data/grace_hopper.jpg",
    ]


def fashion(count: int, folder: Path = DEBIAN) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`(count, 28, 28) uint8` and labels, the first of Fashion-MNIST's training and then of its test images."""
    if not folder.exists():
        return _sample(count)
    parts = [
        [np.frombuffer(gzip.decompress((folder / f"{part}-{kind}").read_bytes()), np.uint8)[start:] for part in parts]
        for kind, start, parts in (
            ("images-idx3-ubyte.gz", 16, ("train", "t10k")),
            ("labels-idx1-ubyte.gz", 8, ("train", "t10k")),
        )
    ]
    images, labels = (np.concatenate(one) for one in parts)
    return images.reshape(-1, 28, 28)[:count], labels[:count].astype(np.int64)


def _sample(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    with zipfile.ZipFile(SAMPLE) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".png", ".jpg")))
        random = np.random.default_rng(0).permutation(len(names))[:count]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(names[at]))).convert("L")) for at in random]
    classes = sorted({Path(name).parent.name for name in names})
    return np.stack(images), np.array([classes.index(Path(names[at]).parent.name) for at in random])


def jpeg(image: Picture, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _saved(quality: int) -> Change:
    return lambda image, _: Image.open(io.BytesIO(jpeg(image, quality))).convert(image.mode)


def _scaled(factor: float) -> Change:
    return lambda image, _: image.resize((round(image.width * factor), round(image.height * factor)))


def _cropped(part: float) -> Change:
    def crop(image: Picture, random: Random) -> Picture:
        wide, high = image.width * part, image.height * part
        left, top = random.uniform(0, wide), random.uniform(0, high)
        box = (round(left), round(top), round(left + image.width - wide), round(top + image.height - high))
        return image.crop(box)

    return crop


def _brightened(factor: float) -> Change:
    return lambda image, _: ImageEnhance.Brightness(image).enhance(factor)


def _noisy(image: Picture, random: Random) -> Picture:
    pixels = np.asarray(image).astype(np.float32)
    return Image.fromarray(np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))


def _over_exposed(image: Picture, _: Random) -> Picture:
    return Image.fromarray(np.minimum(np.asarray(image).astype(int) + 245, 255).astype(np.uint8))


def _flattened(image: Picture, random: Random) -> Picture:
    pixels = np.asarray(image).astype(np.float32)
    level = random.uniform(30, 220)
    return Image.fromarray(np.clip(level + (pixels - pixels.mean()) * 0.02, 0, 255).astype(np.uint8))


def _blurred(sigma: float) -> Change:
    return lambda image, _: image.filter(ImageFilter.GaussianBlur(sigma))


NEAR: dict[str, Change] = {
    "JPEG quality 50": _saved(50),
    "JPEG quality 75": _saved(75),
    "JPEG quality 95": _saved(95),
    "half the size": _scaled(0.5),
    "0.9 of the size": _scaled(0.9),
    "2 % cut off": _cropped(0.02),
    "5 % cut off": _cropped(0.05),
    "10 % brighter": _brightened(1.1),
    "10 % darker": _brightened(0.9),
    "noise of 4 levels": _noisy,
}
LOOKS: dict[str, list[Change]] = {
    "blurred": [_blurred(2), _blurred(3), _blurred(5)],
    "dark": [_brightened(0.05), _brightened(0.1), _brightened(0.2)],
    "bright": [_over_exposed],
    "low_information": [_flattened],
}
