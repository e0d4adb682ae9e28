"""Augmentation: a function of seed, epoch and draw, within the bounds of its preset, and cheap for small images."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.data.packs import make_pack, pictures
from training_core.data.sampler import COPY
from training_core.planner.mixing import Mixing
from training_core.vision.augment.affine import move
from training_core.vision.augment.counter_rng import Bits
from training_core.vision.augment.crops import centre_boxes, random_boxes
from training_core.vision.augment.mix import mix, partner_distance
from training_core.vision.augment.pixels import colour, erase, shift_and_flip
from training_core.vision.augment.presets import PRESETS, Preset
from training_core.vision.augment.trivial import OPERATIONS, trivial
from training_core.vision.pack import Pack
from training_core.vision.transforms import Recipe, Renderer

DRAWS = np.arange(400)


def render(pack: Pack, preset: str, draws: np.ndarray, side: int, *, seed: int = 1, epoch: int = 2) -> np.ndarray:
    out = np.empty((len(draws), side, side, pack.channels), np.uint8)
    Renderer(pack, Recipe(pack.folder, preset, seed))(draws, epoch, out)
    return out


@pytest.fixture(params=[(28, 1), (28, 3), (112, 3), (112, 1)], ids=["small-grey", "small", "large", "large-grey"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    side, channels = request.param
    sizes = [(28, 28)] * 24 if side == 28 else [(130 + number, 150 - number) for number in range(24)]
    return make_pack(tmp_path / "pack", pictures(sizes, channels), image_size=side)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_picture_depends_on_its_draw_and_not_on_its_batch(pack: Pack, preset: str) -> None:
    draws, side = np.arange(24), pack.meta.image_size
    whole = render(pack, preset, draws, side)
    for part in (slice(0, 24, 2), slice(1, 24, 2), slice(5, 6), slice(None, None, -1)):
        assert (whole[part] == render(pack, preset, draws[part], side)).all()


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"none", "flip"}))
def test_pictures_change_with_epoch_seed_and_copy(pack: Pack, preset: str) -> None:
    draws, side = np.arange(24), pack.meta.image_size
    whole = render(pack, preset, draws, side)
    for other in (
        render(pack, preset, draws, side, epoch=3),
        render(pack, preset, draws, side, seed=2),
        render(pack, preset, draws + COPY, side),
    ):
        assert (whole != other).any(axis=(1, 2, 3)).mean() > 0.6


def test_flip_mirrors_every_second_image_and_no_more(pack: Pack) -> None:
    draws, side = np.arange(24), pack.meta.image_size
    plain, turned = render(pack, "none", draws, side), render(pack, "flip", draws, side)
    mirrored = [(one == other[:, ::-1]).all() for one, other in zip(turned, plain, strict=True)]
    same = [(one == other).all() for one, other in zip(turned, plain, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 20


def test_none_is_the_same_in_every_epoch(pack: Pack) -> None:
    side = pack.meta.image_size
    first, second = (render(pack, "none", np.arange(24), side, epoch=epoch) for epoch in (0, 1))
    assert (first == second).all()


def test_random_numbers_are_even_and_streams_independent() -> None:
    bits = Bits(np.arange(100_000), 5, 7)
    one, two = bits.uniform(1), bits.uniform(2)
    assert np.histogram(one, 20, (0, 1))[0] == pytest.approx(5000, rel=0.08)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(one, Bits(np.arange(100_000), 5, 8).uniform(1))[0, 1]) < 0.02
    assert np.bincount(bits.below(3, 7), minlength=7) == pytest.approx(100_000 / 7, rel=0.05)
    assert bits.uniform(4, -2, 3).min() >= -2
    assert bits.uniform(4, -2, 3).max() < 3


def test_crops_have_the_distribution_of_torchvision() -> None:
    from torchvision.transforms.v2 import RandomResizedCrop

    count = 4000
    heights, widths = np.full(count, 375), np.full(count, 500)
    bits = Bits(np.arange(count), 0, 0)
    ours = random_boxes(bits, 40, heights, widths, area=(0.25, 1.0), shape=(224, 224))
    torch.manual_seed(0)
    crop = RandomResizedCrop(224, scale=(0.25, 1.0))
    image = torch.zeros(3, 375, 500)
    theirs = np.array([list(crop.make_params([image]).values()) for _ in range(count)])
    for column in range(4):
        quantiles = np.linspace(0.05, 0.95, 10)
        assert np.quantile(ours[:, column], quantiles) == pytest.approx(
            np.quantile(theirs[:, column], quantiles), abs=14
        )


@pytest.mark.parametrize("size", [(375, 500), (1, 1), (3, 900), (900, 3), (17, 16)])
@pytest.mark.parametrize("shape", [(224, 224), (320, 160)])
def test_boxes_lie_within_the_image(size: tuple[int, int], shape: tuple[int, int]) -> None:
    heights, widths = np.full(400, size[0]), np.full(400, size[1])
    for boxes in (
        random_boxes(Bits(DRAWS, 0, 0), 40, heights, widths, area=(0.08, 1.0), shape=shape),
        centre_boxes(heights, widths, shape),
    ):
        top, left, height, width = boxes.T
        assert top.min() >= 0
        assert left.min() >= 0
        assert height.min() >= 1
        assert width.min() >= 1
        assert (top + height).max() <= size[0]
        assert (left + width).max() <= size[1]


def test_shift_and_flip_is_a_crop_of_the_mirrored_padding() -> None:
    images = np.stack(pictures([(28, 28)] * 200))
    bits = Bits(np.arange(200), 3, 4).word(0)
    changed = images.copy()
    shift_and_flip(changed, bits, flip=True)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    flipped = 0
    for number in range(200):
        windows = [
            (window[:, ::-1] if turned else window, turned)
            for turned in (False, True)
            for down in range(5)
            for right in range(5)
            for window in [padded[number, down : down + 28, right : right + 28]]
        ]
        [turned] = [turned for window, turned in windows if (window == changed[number]).all()]
        flipped += turned
    assert 60 < flipped < 140


def test_light_costs_a_few_microseconds_for_a_small_image(tmp_path: Path) -> None:
    pack = make_pack(tmp_path / "pack", pictures([(28, 28)] * 512, 1))
    renderer, out = Renderer(pack, Recipe(pack.folder, "light", 1)), np.empty((256, 28, 28, 1), np.uint8)
    seconds = []
    for epoch in range(15):
        start = time.thread_time()
        renderer(np.arange(256), epoch, out)
        seconds.append(time.thread_time() - start)
    assert min(seconds) / 256 < 12e-6


def test_medical_never_mirrors_and_moves_little(tmp_path: Path) -> None:
    image = np.zeros((160, 160, 3), np.uint8)
    image[:, :80] = (200, 40, 40)
    image[60:100, 20:60] = 255
    pack = make_pack(tmp_path / "pack", [image] * 64, image_size=160)
    for picture in render(pack, "medical", np.arange(64), 160):
        assert picture[40:120, :50, 0].mean() > picture[40:120, 110:, 0].mean() + 100, "left is left"
        bright = np.argwhere(picture.min(axis=2) > 180)
        assert np.abs(bright.mean(axis=0) - (79.5, 39.5)).max() < 160 * 0.05 + 12
        colours = picture[picture[..., 0] > picture[..., 1].astype(int) + 60]
        assert np.abs(colours[:, 1].astype(int) - colours[:, 2]).max() <= 1, "no channel changes by itself"


def test_moving_by_nothing_changes_nothing_and_quarter_turns_are_turns() -> None:
    [image] = pictures([(40, 40)])
    still, turned = image.copy(), image.copy()
    move(still, 0.0, (0.0, 0.0), 1.0)
    assert (still == image).all()
    move(turned, 90.0, (0.0, 0.0), 1.0)
    assert np.abs(turned.astype(int) - np.rot90(image, -1)).max() <= 1
    move(still, 0.0, (0.1, -0.05), 1.0)
    assert (still[:-2, 4:] == image[2:, :-4]).all()
    assert (still[:-2, 0] == image[2:, 0]).all(), "the border is repeated"


def test_colours_stay_within_their_bounds() -> None:
    images = np.full((400, 4, 4, 3), 100, np.uint8)
    colour(images, Bits(DRAWS, 0, 0), 8, Preset(brightness=0.2, contrast=0.2, cast=0.05))
    values = images[:, 0, 0].astype(float)
    lowest, highest = 128 * 0.8 - 28 * 1.2 * 1.05, 128 * 1.2 - 28 * 0.8 * 0.95
    assert lowest - 1 <= values.min() < lowest + 8
    assert highest + 1 >= values.max() > highest - 8
    assert len(np.unique(values[:, 0] - values[:, 1])) > 2, "channels differ"


def test_every_operation_of_trivial_augment_comes_and_keeps_the_shape() -> None:
    for channels in (1, 3):
        images = np.stack(pictures([(32, 32)] * 400, channels))
        changed = images.copy()
        trivial(changed, Bits(DRAWS, 0, 0), 24)
        assert set(Bits(DRAWS, 0, 0).below(24, len(OPERATIONS))) == set(range(14))
        assert (changed != images).any(axis=(1, 2, 3)).mean() > 0.7


def test_erasing_greys_the_wanted_part() -> None:
    images = np.zeros((400, 50, 60, 3), np.uint8)
    erase(images, Bits(DRAWS, 0, 0), 32, 0.25)
    areas = (images == 128).all(axis=3).mean(axis=(1, 2))
    assert 0.17 < (areas > 0).mean() < 0.33
    assert areas[areas > 0].min() > 0.01
    assert areas.max() < 0.36


def batch_of(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, 16, 16).clone()
    return images.contiguous(memory_format=torch.channels_last), torch.arange(count)


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_images_are_their_labels_in_their_shares(alphas: tuple[float, float]) -> None:
    mixing = Mixing(*alphas, seed=5, batch_size=12)
    shares = set()
    for step in range(40):
        mixed = mix(*batch_of(12), mixing, step=step)
        assert mixed.others is not None
        expected = mixed.share * mixed.labels + (1 - mixed.share) * mixed.others
        assert mixed.images.mean(dim=(1, 2, 3)).tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        assert (mixed.labels != mixed.others).all()
        again = mix(*batch_of(12), mixing, step=step)
        assert torch.equal(mixed.images, again.images), "follows from seed and step"
        shares.add(round(mixed.share, 6))
    assert len(shares) > 20


def test_the_loss_of_mixed_images_is_that_of_soft_labels() -> None:
    logits = torch.randn(12, 12)
    mixed = mix(*batch_of(12), Mixing(mixup=1.0, batch_size=12), step=3)
    assert mixed.others is not None
    soft = mixed.share * functional.one_hot(mixed.labels, 12) + (1 - mixed.share) * functional.one_hot(mixed.others, 12)
    loss = mixed.loss(lambda labels: functional.cross_entropy(logits, labels))
    assert loss.item() == pytest.approx(functional.cross_entropy(logits, soft).item(), rel=1e-5)


def test_without_mixing_images_and_loss_are_as_they_were() -> None:
    images, labels = batch_of(4)
    mixed = mix(images, labels, Mixing(), step=0)
    assert mixed.images is images
    assert mixed.loss(lambda truth: truth.sum()) == 6


@pytest.mark.parametrize(("batch_size", "world_size"), [(64, 2), (64, 8), (12, 2), (12, 4), (96, 16), (256, 8)])
def test_mixing_does_not_depend_on_the_number_of_ranks(batch_size: int, world_size: int) -> None:
    mixing = Mixing(mixup=0.4, cutmix=1.0, batch_size=batch_size)
    for step in range(4):
        images, labels = batch_of(batch_size)
        whole = mix(images.clone(), labels, mixing, step=step)
        for rank in range(world_size):
            mine = mix(
                images[rank::world_size].clone(), labels[rank::world_size], mixing, step=step, world_size=world_size
            )
            assert torch.equal(mine.images, whole.images[rank::world_size])


@pytest.mark.parametrize("batch_size", range(2, 40))
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_partners_are_others(batch_size: int, world_size: int) -> None:
    share_of_rank = -(-batch_size // world_size)
    assert partner_distance(batch_size, world_size) >= 1
    if share_of_rank > 1:
        assert partner_distance(batch_size, world_size) % share_of_rank != 0
