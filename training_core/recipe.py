"""The default recipe: what `auto` stands for in the training part of a spec, each with its reason. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from training_core.spec import JobSpec, Model

SMALL_IMAGE_PIXELS = 96
FEW_EPOCHS = 20
MANY_EPOCHS = 60
# What the last layer of each network is given.
FEATURES = {
    "small_cnn": 64,
    "resnet18": 512,
    "resnet50": 2048,
    "mobilenet_v3_small": 1024,
    "mobilenet_v3_large": 1280,
}


@dataclass(frozen=True)
class DataFacts:
    """What the choices depend on: training images, classes, channels, and the side of the prepared square images."""

    train_images: int
    classes: int
    channels: int
    image_size: int
    image_size_reason: str


def auto_model(spec: JobSpec, image_size: int, device: str, weights_model: str | None) -> tuple[str, str]:
    """The network that `auto` stands for, and why."""
    if spec.model.pretrained:
        return model_to_fetch(spec, device), "the cheapest network with published weights that suits the device"
    if weights_model is not None:
        return weights_model, "the network of model.weights"
    if image_size <= SMALL_IMAGE_PIXELS:
        return "small_cnn", f"images of {image_size} px are small"
    if device == "cpu":
        return "mobilenet_v3_small", f"images of {image_size} px on a CPU: the cheapest torchvision model"
    return "resnet18", f"images of {image_size} px on a GPU"


def model_to_fetch(spec: JobSpec, device: str) -> str:
    """The network whose published weights `spec` asks for; `auto` picks the cheapest that suits the device."""
    if spec.model.name != "auto":
        return spec.model.name
    return "mobilenet_v3_small" if device == "cpu" else "resnet18"


def auto_batch(images: int) -> tuple[int, str]:
    for fewer_than, batch in ((1000, 32), (20_000, 64), (100_000, 128)):
        if images < fewer_than:
            return batch, f"fewer than {fewer_than:,} training images"
    return 256, f"{images:,} training images"


def auto_learning_rate(optimizer: str, model: str, batch: int, origin: Model) -> tuple[float, str]:
    if origin.trainable == "head":
        width = FEATURES[model]
        rate = 0.1 if optimizer == "sgd" else 5 / width
        return rate, f"{optimizer} on the last layer alone: a step moves the sum over {width} features"
    trained = origin.pretrained or origin.weights is not None
    if optimizer == "sgd" and trained:
        return 0.01 * batch / 256, "from trained weights, a tenth of what SGD takes from scratch"
    if optimizer == "sgd":
        return 0.1 * batch / 256, "0.1 for each 256 images of the batch (Goyal et al. 2017)"
    rate, network = (6e-3, "a small network") if model == "small_cnn" else (1e-3, "a torchvision network")
    if trained:
        return rate / 2, f"{optimizer} on {network} from trained weights, half of what it takes from scratch"
    return rate, f"{optimizer} on {network} trained from scratch"


def auto_weight_decay(optimizer: str) -> tuple[float, str]:
    decay = {"sgd": 5e-4, "adam": 0.0, "adamw": 0.05}[optimizer]
    return decay, f"usual with {optimizer}; norms and biases are never decayed"


def auto_warmup(total_steps: int, steps_per_epoch: int) -> tuple[float, str]:
    return min(1.0, 0.05 * total_steps / steps_per_epoch), "5 % of the steps, one epoch at most"


def auto_augmentation(data: DataFacts, epochs: int, origin: Model) -> tuple[str, str]:
    if origin.trainable == "head":
        return "none", "the frozen trunk sees each image once"
    images = data.train_images
    if images >= 200_000:
        return "none", f"{images:,} training images are enough without"
    if epochs < FEW_EPOCHS:
        return "none", f"{epochs} epochs are too few for crops and flips to pay"
    if epochs < MANY_EPOCHS or images >= 50_000:
        return "light", f"{images:,} training images over {epochs} epochs: crops and flips delay overfitting"
    if data.channels == 1:
        return "light", f"{images:,} grey images over {epochs} epochs: brightness may be all they differ in"
    return "standard", f"{images:,} training images are seen {epochs} times: they should not look the same"


def auto_epochs(data: DataFacts) -> tuple[int, str]:
    return 10, f"{data.train_images:,} training images"
