"""The default recipe: what `auto` stands for in the training part of a spec, each with its reason. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training_core.contract.spec import JobSpec, Model, Resizing

SMALL_IMAGE_PIXELS = 96
LEAST_EPOCHS_TO_FLIP, FEW_EPOCHS, MANY_EPOCHS = 8, 20, 60
# Fewer images are too few for the means and deviations that a batch norm takes of each batch.
LEAST_BATCH_FOR_BATCH_NORM = 16
# From here on the published recipes for ImageNet (1.28 million images) are nearer than those for small data.
MANY_IMAGES = 100_000
# The averaged weights remember this fraction of the steps; shorter trainings have nothing to average.
EMA_FRACTION, LEAST_EMA_STEPS = 0.1, 100
LEAST_PIXELS_TO_GROW, LEAST_EPOCHS_TO_GROW = 128, 10
LEAST_IMAGES_TO_REGULARISE, LEAST_EPOCHS_TO_REGULARISE = 20_000, 10
# Before a training that brings no new best is stopped: evaluations, and the steps that they hold at least.
PATIENCE, PATIENCE_STEPS = 5, 200
SMALL_NETWORKS = ("small_cnn", "small_resnet")
# The range test of the learning rate: never more of the planned steps, and no use with fewer.
RATE_TEST_FRACTION, LEAST_RATE_TEST_STEPS = 0.03, 40
# What the last layer of each network is given.
FEATURES = {
    "small_cnn": 64,
    "small_resnet": 96,
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


@dataclass(frozen=True)
class TrainingFacts:
    """What the algorithm's choices depend on, once network, batch size and epochs are known."""

    data: DataFacts
    origin: Model
    model: str
    batch_size: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        return self.data.train_images // self.batch_size

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def from_trained_weights(self) -> bool:
        return _is_trained(self.origin)

    @property
    def small(self) -> bool:
        return self.model in SMALL_NETWORKS

    @property
    def overfits(self) -> bool:
        """small_resnet on 60,000 grey images: without more regularisation ten epochs are no better than eight."""
        many = self.data.train_images >= LEAST_IMAGES_TO_REGULARISE and self.epochs >= LEAST_EPOCHS_TO_REGULARISE
        return self.model == "small_resnet" and not self.from_trained_weights and many

    @property
    def large_from_scratch(self) -> bool:
        """A torchvision network that learns all from as many images as the published recipes are for."""
        return not self.small and not self.from_trained_weights and self.data.train_images >= MANY_IMAGES


def _is_trained(origin: Model) -> bool:
    return origin.pretrained or origin.weights is not None


def auto_model(spec: JobSpec, image_size: int, device: str, weights_model: str | None) -> tuple[str, str]:
    """The network that `auto` stands for, and why."""
    if spec.model.pretrained:
        return model_to_fetch(spec, device), "the cheapest network with published weights that suits the device"
    if weights_model is not None:
        return weights_model, "the network of model.weights"
    if image_size <= SMALL_IMAGE_PIXELS:
        batch = spec.training.batch_size
        if batch != "auto" and batch < LEAST_BATCH_FOR_BATCH_NORM:
            return "small_cnn", f"images of {image_size} px are small, batches of {batch} too small for a batch norm"
        return "small_resnet", f"images of {image_size} px are small"
    if device == "cpu":
        return "mobilenet_v3_small", f"images of {image_size} px on a CPU: the cheapest torchvision model"
    return "resnet18", f"images of {image_size} px on a GPU"


def model_to_fetch(spec: JobSpec, device: str) -> str:
    """The network whose published weights `spec` asks for; `auto` picks the cheapest that suits the device."""
    if spec.model.name != "auto":
        return spec.model.name
    return "mobilenet_v3_small" if device == "cpu" else "resnet18"


def auto_batch(images: int) -> tuple[int, str]:
    for fewer_than, batch in ((1000, 32), (20_000, 64)):
        if images < fewer_than:
            return batch, f"fewer than {fewer_than:,} training images"
    return 256, f"{images:,} training images"


def auto_optimizer(facts: TrainingFacts) -> tuple[str, str]:
    if facts.large_from_scratch and facts.model.startswith("resnet"):
        return "sgd", f"residual networks on {facts.data.train_images:,} images (published: Goyal et al. 2017)"
    return "adamw", "robust without tuning"


# Where an optimizer begins without tuning, for the whole network from scratch: torch's own values, the papers' where
# torch follows them (Zeiler 2012, Duchi et al. 2011), and AdamW's for Muon, whose steps are scaled to it.
_RATES = {
    "nadam": 2e-3, "radam": 1e-3, "adamax": 2e-3, "adagrad": 1e-2, "adadelta": 1.0, "rmsprop": 1e-3,
    "adafactor": 1e-2,
}  # fmt: skip


def auto_learning_rate(facts: TrainingFacts, optimizer: str) -> tuple[float, str]:
    if facts.origin.trainable == "head":
        width = FEATURES[facts.model]
        rate = 0.1 if optimizer == "sgd" else 5 / width
        return rate, f"{optimizer} on the last layer alone: a step moves the sum over {width} features"
    trained, batch = facts.from_trained_weights, facts.batch_size
    if optimizer == "sgd" and trained:
        return 0.01 * batch / 256, "from trained weights, a tenth of what SGD takes from scratch"
    if optimizer == "sgd":
        return 0.1 * batch / 256, "0.1 for each 256 images of the batch (Goyal et al. 2017)"
    if optimizer in _RATES:
        share, words = (0.5, ", halved for trained weights") if trained else (1.0, "")
        return _RATES[optimizer] * share, f"what {optimizer} usually begins with{words}"
    rate, network = (6e-3, "a small network") if facts.small else (1e-3, "a torchvision network")
    if trained:
        return rate / 2, f"{optimizer} on {network} from trained weights, half of what it takes from scratch"
    return rate, f"{optimizer} on {network} trained from scratch"


def auto_learning_rate_test(facts: TrainingFacts, optimizer: str) -> tuple[bool, str]:
    """Whether the range test pays: where no rate is known, and it takes less than `RATE_TEST_FRACTION` of the steps."""
    if facts.origin.trainable == "head" or optimizer not in _RATES:
        return False, f"the rate of {optimizer} is known for this network"
    if facts.total_steps * RATE_TEST_FRACTION < LEAST_RATE_TEST_STEPS:
        return False, f"{facts.total_steps:,} steps are too few to spend {LEAST_RATE_TEST_STEPS} on it"
    return True, f"no rate is known for {optimizer} on {facts.model}"


def auto_weight_decay(facts: TrainingFacts, optimizer: str) -> tuple[float, str]:
    """Decoupled decay (Loshchilov & Hutter 2019) for those that have it; the others add it to the gradient."""
    if facts.large_from_scratch and optimizer == "sgd":
        return 5e-5, "for many images and few epochs (published: FFCV); norms and biases are never decayed"
    if facts.overfits and optimizer == "adamw":
        return 0.15, f"{facts.model} begins to overfit within {facts.epochs} epochs; norms and biases are never decayed"
    if optimizer in {"adamw", "nadam", "radam", "muon"}:
        decay = 0.05
    else:
        decay = 5e-4 if optimizer in {"sgd", "rmsprop"} else 0.0
    return decay, f"usual with {optimizer}; norms and biases are never decayed"


def auto_schedule(facts: TrainingFacts) -> tuple[str, str]:
    return "cosine", f"falls to nothing by the end of {facts.epochs} epochs"


def auto_warmup(facts: TrainingFacts, schedule: str) -> tuple[float, str]:
    """In epochs."""
    total, each = facts.total_steps, facts.steps_per_epoch
    if schedule == "one_cycle":
        return 0.3 * total / each, "one_cycle rises for 30 % of the steps (Smith & Topin 2018)"
    return min(1.0, 0.05 * total / each), "5 % of the steps, one epoch at most"


def auto_label_smoothing(facts: TrainingFacts) -> tuple[float, str]:
    if facts.large_from_scratch:
        return 0.1, "many images from scratch (published: Szegedy et al. 2016, torchvision's recipes)"
    if facts.overfits:
        return 0.1, f"{facts.model} begins to overfit within {facts.epochs} epochs"
    return 0.0, "probabilities stay true to the labels"


def auto_ema_decay(facts: TrainingFacts) -> tuple[float | None, str]:
    """Over a fixed number of steps an average would be too old for a short training and forget most of a long one."""
    if facts.origin.trainable == "head":
        return None, "the last layer alone needs no averaging"
    if facts.total_steps < LEAST_EMA_STEPS:
        return None, f"{facts.total_steps:,} steps are too few to average"
    decay = round(1 - 1 / (EMA_FRACTION * facts.total_steps), 6)
    return decay, "averaged weights, over a tenth of the steps, are ahead of the newest from the first epoch on"


def auto_patience(facts: TrainingFacts) -> tuple[int, str]:
    """In evaluations, of which there is one an epoch."""
    needed = math.ceil(PATIENCE_STEPS / facts.steps_per_epoch)
    if needed <= PATIENCE:
        return PATIENCE, f"{PATIENCE} evaluations, {PATIENCE * facts.steps_per_epoch:,} steps apart"
    return needed, f"{PATIENCE_STEPS} steps, in epochs of {facts.steps_per_epoch}: too few to judge a network by"


def auto_gradient_clipping(facts: TrainingFacts) -> tuple[float | None, str]:
    return None, f"{facts.model} has norms, which keep its gradients small"


def auto_resizing(facts: TrainingFacts) -> tuple[Resizing | None, str]:
    size = facts.data.image_size
    if facts.small or size < LEAST_PIXELS_TO_GROW:
        return None, f"images of {size} px are small: a network that grew up with less is lost at their full size"
    if facts.from_trained_weights:
        return None, "trained weights know the full size"
    if facts.epochs < LEAST_EPOCHS_TO_GROW:
        return None, f"{facts.epochs} epochs are too few to grow in"
    return Resizing(start=0.75, until=0.7), "small pictures teach as much for less (published: FFCV, 160 to 192 px)"


def auto_augmentation(facts: TrainingFacts) -> tuple[str, str]:
    images = facts.data.train_images
    if facts.origin.trainable == "head":
        return "none", "the frozen trunk sees each image once"
    if facts.large_from_scratch:
        return "light", f"{images:,} images from scratch: crops and flips (published: torchvision's recipes, FFCV)"
    if images >= 200_000:
        return "none", f"{images:,} training images are enough without"
    return _augmentation_by_epochs(facts)


def _augmentation_by_epochs(facts: TrainingFacts) -> tuple[str, str]:
    """The more often an image is seen, the more it should change."""
    epochs, images = facts.epochs, facts.data.train_images
    # small_cnn is slow to learn: in 8 epochs of the sample flips cost it two points, and give small_resnet one.
    if epochs < (FEW_EPOCHS if facts.model == "small_cnn" else LEAST_EPOCHS_TO_FLIP):
        return "none", f"{epochs} epochs are too few for crops and flips to pay"
    if epochs < FEW_EPOCHS:
        return "flip", f"{epochs} epochs are too few for crops to pay; flips do, where a mirrored image means the same"
    if epochs < MANY_EPOCHS or images >= 50_000:
        return "light", f"{images:,} training images over {epochs} epochs: crops and flips delay overfitting"
    if facts.data.channels == 1:
        return "light", f"{images:,} grey images over {epochs} epochs: brightness may be all they differ in"
    return "standard", f"{images:,} training images are seen {epochs} times: they should not look the same"


def auto_epochs(data: DataFacts, model: str, origin: Model) -> tuple[int, str]:
    images = data.train_images
    if origin.trainable == "head":
        return 20, "the last layer alone, whose features are made once"
    if _is_trained(origin):
        return 10, "trained weights need few"
    if model in SMALL_NETWORKS:
        return _by_images(images, ((1_000, 40), (20_000, 20), (None, 12)))
    return _by_images(images, ((10_000, 60), (MANY_IMAGES, 30), (None, 16)))


def _by_images(images: int, table: tuple[tuple[int | None, int], ...]) -> tuple[int, str]:
    """The first row whose limit is above `images`; the last has none."""
    return next((epochs, f"{images:,} training images") for limit, epochs in table if limit is None or images < limit)
