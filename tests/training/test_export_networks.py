"""Every network can be exported to every form; serving makes the pictures that training makes."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
import torch

from tests.data.packs import pictures
from training_core.contract.errors import Failed
from training_core.export.checks import Logits, compare, loss_of
from training_core.export.forms import Forms
from training_core.export.pictures import Images, Pictures
from training_core.vision.augment.crops import centre_boxes
from training_core.vision.convert import Converter, Packed
from training_core.vision.network_of_card import Trained, rebuild
from training_core.vision.networks import make_model
from training_core.vision.packing import Packing
from training_core.vision.serving_transform import picture, square
from training_core.vision.transforms import resize_into

CLASSES = ["a", "b", "c"]


def trained(name: str, channels: int, side: int) -> Trained:
    torch.manual_seed(0)
    network = make_model(name, channels=channels, classes=len(CLASSES))
    preprocessing = {"image_size": side, "channels": channels}
    preprocessing |= {"mean": [120.0] * channels, "standard_deviation": [60.0] * channels}
    return rebuild(network.state_dict(), {"model": name, "classes": CLASSES, "preprocessing": preprocessing}, "here")


def some(side: int, channels: int) -> Pictures:
    images = np.stack(pictures([(side, side)] * 8, channels))
    return Pictures(images, images, np.arange(8) % 3)


@pytest.mark.long  # up to ten seconds each; `small_cnn` is what the job of `test_export` exports
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_every_network_in_every_form(name: str) -> None:
    made = Forms(trained(name, 3, 32), some(32, 3), {}).make
    assert made("safetensors").check["identical"]
    for form in ("torch_export", "onnx"):
        assert made(form).check["equal_top1"] == 1.0
    assert made("onnx_int8").check["size_bytes_after"] > 0


def test_a_graph_that_computes_something_else_is_no_export() -> None:
    def logits(images: Images) -> Logits:
        return images.reshape(len(images), -1)[:, :3].astype(np.float32)

    assert compare(logits, lambda images: logits(images) + 1e-6, some(16, 1))["equal_top1"] == 1.0
    for wrong in (1.0, np.nan):
        with pytest.raises(Failed, match="computes something else"):
            compare(logits, lambda images, wrong=wrong: logits(images) + wrong, some(16, 1))


def test_a_notable_loss_by_int8_is_told() -> None:
    check = {"accuracy_before": 0.9, "accuracy_after": 0.87, "images": 100}
    assert "87.0%" in (loss_of(check) or "")
    assert loss_of(check | {"accuracy_after": 0.885}) is None
    assert loss_of({"images": 100}) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_the_square_is_that_of_the_evaluation_to_the_last_bit(channels: int) -> None:
    random = np.random.default_rng(1)
    for height, width, side in random.integers([3, 3, 4], [300, 300, 160], (40, 3)).tolist():
        pixels = random.integers(0, 256, (height, width, channels), dtype=np.uint8)
        boxes = centre_boxes(np.array([height]), np.array([width]), (side, side))
        [[top, left, tall, wide]] = boxes.tolist()
        expected = np.empty((1, side, side, channels), np.uint8)
        resize_into(torch.from_numpy(expected).permute(0, 3, 1, 2), pixels[top : top + tall, left : left + wide])
        assert np.array_equal(square(pixels, side), expected[0]), (height, width, side)


@pytest.mark.parametrize(("height", "width"), [(700, 500), (90, 64), (40, 52)])
def test_a_picture_is_what_a_raw_pack_holds(height: int, width: int) -> None:
    [pixels] = pictures([(height, width)])
    content = simplejpeg.encode_jpeg(pixels, 90, "RGB", "420")
    packing = Packing(image_size=64, image_size_reason="", channels=3, encoding="raw", expected_bytes=0)
    [packed] = Converter(packing).several([(0, content)])
    assert isinstance(packed, Packed)
    stored = np.asarray(packed.payload).reshape(packed.packed_height, packed.packed_width, 3)
    assert np.array_equal(picture(content, 64, 3), square(stored, 64))
