"""About a thousand different photographs as JPEG files, cut from those that scikit-image ships. Seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "ihc.png",
    "hubble_deep_field.jpg",
)
WIDTH, HEIGHT, QUALITY = 500, 375, 90


def make_photographs(folder: Path, count: int = 1000, seed: int = 0) -> Path:
    """`folder/<name>/0001.jpg` …, 500 x 375 pixels, quality 90, chroma at half size; done once."""
    import skimage  # noqa: PLC0415  needed when the files are made, and not by each contender

    if (folder / "complete").exists():
        return folder / "images"
    random = np.random.default_rng(seed)
    sources = [Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB") for name in NAMES]
    for number in range(count):
        source, name = sources[number % len(sources)], Path(NAMES[number % len(sources)]).stem
        width = min(source.width, source.height * WIDTH / HEIGHT) * random.uniform(0.5, 1.0)
        height = width * HEIGHT / WIDTH
        left, top = random.uniform(0, source.width - width), random.uniform(0, source.height - height)
        part = source.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, (left, top, left + width, top + height))
        if random.random() < 0.5:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        file = folder / "images" / name / f"{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        part.save(file, quality=QUALITY)
    (folder / "complete").touch()
    return folder / "images"
