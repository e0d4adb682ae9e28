"""What is measured of single images, and which of them are found by it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from tests.data.inspecting import make_items
from training_core.data.inspection.findings import LOOKS
from training_core.vision.inspection.fingerprint import fingerprint
from training_core.vision.inspection.measures import FIELDS, measure, measure_many

NAMES = [field.name for field in FIELDS]


def scene(height: int = 200, width: int = 260, seed: int = 0) -> Image.Image:
    """Sharp shapes of many sizes before a gradient, with a little noise."""
    random = np.random.default_rng(seed)
    pixels = np.empty((height, width, 3))
    pixels[:] = np.linspace(40, 200, width)[None, :, None]
    for _ in range(40):
        top, left = random.integers(0, height), random.integers(0, width)
        tall, wide = random.integers(height // 20 + 1, height // 3, 2)
        pixels[top : top + tall, left : left + wide] = random.integers(0, 256, 3)
    return Image.fromarray(np.clip(pixels + random.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8))


def measured(image: Image.Image) -> dict[str, float]:
    pixels = np.asarray(image)
    return dict(zip(NAMES, measure(None, pixels if pixels.ndim == 3 else pixels[:, :, None]), strict=True))


def findings(tmp_path: Path, image: Image.Image) -> set[str]:
    names = ("highlight", "shadow", "information", "sharpness")
    values = measured(image)
    items = make_items(tmp_path, 1, **{name: np.array([values[name]]) for name in names})
    return {finding for finding, look in LOOKS.items() if len(look(items).rows)}


def test_a_good_image_is_not_found(tmp_path: Path) -> None:
    for seed in range(10):
        assert findings(tmp_path, scene(seed=seed)) == set()
        assert findings(tmp_path, scene(28, 28, seed).convert("L")) == set()


@pytest.mark.parametrize("sigma", [2, 3, 5])
@pytest.mark.parametrize("size", [(200, 260), (64, 64), (28, 28)])
def test_blurred_images_are_found(tmp_path: Path, sigma: int, size: tuple[int, int]) -> None:
    assert "blurred" in findings(tmp_path, scene(*size).filter(ImageFilter.GaussianBlur(sigma)))


def test_a_sharp_subject_before_a_blurred_ground_is_sharp(tmp_path: Path) -> None:
    image = scene().filter(ImageFilter.GaussianBlur(5))
    image.paste(scene(seed=1).crop((80, 60, 180, 140)), (80, 60))
    assert findings(tmp_path, image) == set()


@pytest.mark.parametrize("factor", [0.05, 0.1, 0.2])
def test_dark_images_are_found(tmp_path: Path, factor: float) -> None:
    assert "dark" in findings(tmp_path, ImageEnhance.Brightness(scene()).enhance(factor))


def test_a_night_with_lights_is_not_dark(tmp_path: Path) -> None:
    image = ImageEnhance.Brightness(scene()).enhance(0.1)
    image.paste((255, 255, 200), (50, 50, 90, 90))
    assert "dark" not in findings(tmp_path, image)


def test_over_exposed_images_are_bright(tmp_path: Path) -> None:
    washed = Image.fromarray(np.clip(np.asarray(scene()).astype(int) + 250, 0, 255).astype(np.uint8))
    assert "bright" in findings(tmp_path, washed)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_images_of_one_tone_hold_little_information(tmp_path: Path, level: int) -> None:
    assert "low_information" in findings(tmp_path, Image.new("RGB", (200, 150), (level, level, level)))
    noisy = np.clip(level + np.random.default_rng(0).normal(0, 1, (150, 200, 3)), 0, 255).astype(np.uint8)
    assert "low_information" in findings(tmp_path, Image.fromarray(noisy))


def test_a_drawing_on_a_plain_ground_holds_information(tmp_path: Path) -> None:
    drawing = Image.new("L", (28, 28), 0)
    drawing.paste(230, (6, 12, 24, 16))
    assert measured(drawing)["information"] < 3
    assert "low_information" not in findings(tmp_path, drawing)


def test_sizes_and_shapes_far_from_the_others_are_odd(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    width, height = random.integers(400, 600, 200), random.integers(300, 450, 200)
    width[3], height[3] = 40, 30
    width[4], height[4] = 6000, 4000
    width[5], height[5] = 1200, 150
    items = make_items(tmp_path, 200, width=width, height=height)
    assert LOOKS["odd_size"](items).rows.tolist() == [3, 4]
    assert LOOKS["odd_aspect"](items).rows.tolist() == [5]


def test_portraits_among_landscapes_are_not_odd(tmp_path: Path) -> None:
    width = np.where(np.arange(200) % 10 == 0, 300, 400)
    items = make_items(tmp_path, 200, width=width, height=700 - width)
    assert len(LOOKS["odd_aspect"](items).rows) == len(LOOKS["odd_size"](items).rows) == 0


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 3), (3, 1, 3), (1, 4000, 3), (5, 5, 1), (28, 28, 1), (700, 3, 3), (6, 9000, 3)]
)
def test_every_shape_can_be_measured(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    values = dict(zip(NAMES, measure(b"content", pixels), strict=True))
    assert np.isnan(values.pop("sharpness")) == (min(shape[:2]) <= 4)
    assert all(0 <= value < 2**64 for value in values.values())
    assert abs(values["brightness"] - pixels.mean() / 255) < 0.02


def test_views_are_measured_like_copies() -> None:
    pixels = np.asarray(scene())
    view = pixels[::2, ::-1]
    assert measure(b"x", view) == measure(b"x", view.copy())


def test_threads_measure_what_one_measures() -> None:
    images = [np.asarray(scene(60 + seed, 80, seed)) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pixels: measure(b"x", pixels), images)) == [measure(b"x", one) for one in images]


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 48, 3), (3, 90, 1), (200, 150, 3), (2, 300, 1)])
def test_many_are_measured_like_each(shape: tuple[int, int, int]) -> None:
    images = [np.asarray(scene(seed=seed).resize(shape[1::-1]))[:, :, : shape[2]] for seed in range(9)]
    contents = [None if seed == 2 else bytes([seed]) for seed in range(9)]
    for many, one in zip(measure_many(contents, images), map(measure, contents, images), strict=True):
        assert many[:2] == one[:2]
        assert many[7:] == pytest.approx(one[7:], rel=1e-4, nan_ok=True)
        values = (dict(zip(NAMES, values, strict=True)) for values in (many, one))
        assert distance(*values) <= 4


def test_many_of_mixed_shapes_and_none() -> None:
    images = [np.asarray(scene(30 + seed, 40)) for seed in range(3)]
    assert measure_many([b"x"] * 3, images) == [measure(b"x", one) for one in images]
    assert measure_many([], []) == []


def test_without_a_file_there_is_no_content() -> None:
    assert measure(None, np.zeros((4, 4, 1), np.uint8))[0] == 0
    assert measure(b"", np.zeros((4, 4, 1), np.uint8))[0] != 0


def test_the_perceptual_hash_survives_scaling_and_brightness() -> None:
    image = scene()
    for other in (image.resize((130, 100)), ImageEnhance.Brightness(image).enhance(1.1)):
        assert distance(measured(image), measured(other)) <= 30
    assert distance(measured(image), measured(scene(seed=1))) > 90


def distance(one: dict[str, float], other: dict[str, float]) -> int:
    return sum((int(one[f"fine_{part}"]) ^ int(other[f"fine_{part}"])).bit_count() for part in range(4))


def test_the_fingerprint_sees_every_byte_and_the_shape() -> None:
    content = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    changed = content.copy()
    changed[-1, -1, -1] ^= 1
    prints = {fingerprint(one) for one in (content, changed, content.reshape(24, 16, 3), content[::-1].copy())}
    assert len(prints) == 4
    assert fingerprint(content) == fingerprint(content.copy())
    assert fingerprint(b"") != 0
