"""Starts a network from trained weights: matched by name and shape, the last layer new where the classes are others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from training_core.checkpoints import checkpoint
from training_core.checkpoints.manifest import Damaged
from training_core.checkpoints.references import gone, place_of
from training_core.contract.errors import Failed, Reason
from training_core.contract.redaction import shown
from training_core.contract.run_dir import RunSpec
from training_core.contract.spec.references import WEIGHTS
from training_core.data.meta import read_meta
from training_core.distributed.tensors import Tensors
from training_core.optimisation.layers import first_convolution, head
from training_core.outgoing import Networks
from training_core.planner.recipe import auto_model, model_to_fetch
from training_core.storage.store import open_store
from training_core.tasks.image_classification.origin import UNAVAILABLE_HINT, damaged, is_uri, model_of
from training_core.vision import published_weights
from training_core.vision.networks import make_model

NAMED_TENSORS = 3
LONGEST_HEADER_BYTES = 16 * 2**20  # of JSON, which takes some ten times as much once it is read


@dataclass(frozen=True)
class Origin:
    """Trained weights. `mean` and `deviation` by channel, in units of 0-255, are what they were trained with.

    `model`, `classes` and the statistics are None where nobody says.
    """

    title: str
    tensors: Tensors
    model: str | None = None
    classes: list[str] | None = None
    mean: list[float] | None = None
    deviation: list[float] | None = None

    def statistics(self, channels: int) -> tuple[list[float], list[float]] | None:
        """Mean and deviation for images of `channels`; grey images take the average over the colours."""
        if self.mean is None or self.deviation is None:
            return None
        if len(self.mean) == channels:
            return self.mean, self.deviation
        if channels == 1:
            return [sum(self.mean) / len(self.mean)], [sum(self.deviation) / len(self.deviation)]
        return self.mean * channels, self.deviation * channels


def read_origin(run: RunSpec, weights: Path | None = None) -> Origin | None:
    """The weights that the spec names, verified; None for a network that starts from nothing.

    `weights` is the copy of the file that it names by a URI.

    Raises `Failed(weights_unavailable)`, `Failed(checkpoint_invalid)` and what the sources raise.
    """
    model = run.spec.model
    if model.pretrained:
        return _read_published(model_to_fetch(run.spec, run.device), Networks.of(run.allowed_networks))
    if model.weights is None:
        return None
    return _read_file(model.weights, weights) if is_uri(model.weights) else _read_checkpoint(run, model.weights)


def check_fit(run: RunSpec, folder: Path, weights: Path | None) -> None:
    """Match the weights against the network that will be trained on the data in `folder`, without making it.

    Raises what `read_origin` and `match` raise.
    """
    if run.resume_from is not None:
        return
    origin, meta = read_origin(run, weights), read_meta(folder)
    if origin is None:
        return
    name: str = run.spec.model.name
    if name == "auto":
        name, _ = auto_model(run.spec, meta.image_size, run.device, origin.model)
    with torch.device("meta"):
        network = make_model(name, channels=meta.channels, classes=len(meta.classes))
    match(origin, network, meta.classes)


def _read_published(name: str, networks: Networks) -> Origin:
    file = published_weights.published_file(name, networks)
    version = published_weights.PUBLISHED[name].version
    try:
        # A pickle, of which torch lets tensors through and nothing that runs; and it is the published one by its hash.
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:
        raise published_weights.unavailable(
            published_weights.PUBLISHED[name], f"{file} cannot be read: {problem}", file
        ) from problem
    return Origin(
        f"torchvision's {name} {version}", tensors, name, None, published_weights.MEAN, published_weights.DEVIATION
    )


def _read_checkpoint(run: RunSpec, reference: str) -> Origin:
    try:
        tensors, about = checkpoint.read_model(open_store(run), place_of(run, reference, WEIGHTS))
    except FileNotFoundError as problem:
        raise gone(WEIGHTS, reference, UNAVAILABLE_HINT) from problem
    except Damaged as problem:
        raise damaged(reference, problem) from problem
    preprocessing = about.get("preprocessing", {})
    mean, deviation = numbers(preprocessing, "mean"), numbers(preprocessing, "standard_deviation")
    return Origin(reference, tensors, model_of(about), about.get("classes"), mean, deviation)


def numbers(preprocessing: dict[str, Any], name: str) -> list[float] | None:
    values = preprocessing.get(name)
    return [float(value) for value in values] if isinstance(values, list) and len(values) in {1, 3} else None


def _read_file(uri: str, copy: Path | None) -> Origin:
    """A file that comes with no description: the network must be named, and the data's own statistics are taken."""
    if copy is None:
        message = f"model.weights: {shown(uri)} was not there any more when the training went on"
        raise Failed(Reason.WEIGHTS_UNAVAILABLE, message, UNAVAILABLE_HINT)
    try:
        content = copy.read_bytes()
        if int.from_bytes(content[:8], "little") > LONGEST_HEADER_BYTES:
            raise SafetensorError("its header is longer than any network needs")
        return Origin(shown(uri), load(content))
    except SafetensorError as problem:
        raise Failed(
            Reason.CHECKPOINT_INVALID,
            f"model.weights: {shown(uri)} is not a safetensors file: {problem}",
            "save the state dict with safetensors.torch.save_file",
        ) from problem


def start_from(origin: Origin, model: nn.Module, classes: list[str]) -> str:
    """Put the weights into `model`; the result says what was taken.

    Raises `Failed(checkpoint_invalid)` that names the first tensors which do not match.
    """
    tensors, words = match(origin, model, classes)
    model.load_state_dict(tensors)
    return words


def match(origin: Origin, model: nn.Module, classes: list[str]) -> tuple[Tensors, str]:
    """The complete state of `model` with all that fits taken from `origin`, and what that is."""
    notes: list[str] = []
    wanted, last = model.state_dict(), head(model)[0]
    given = _with_channels(origin, first_convolution(model)[0], wanted, notes)
    given, taken = _with_head(origin, classes, last=last, wanted=wanted, given=given, notes=notes)
    _check_all_match(origin, wanted, given)
    return given, "; ".join([f"{taken} of {len(wanted)} tensors of {origin.title}", *notes])


def _with_channels(origin: Origin, convolution: str, wanted: Tensors, notes: list[str]) -> Tensors:
    """Grey images in a colour network: its filters see the same value three times, so they are summed; and back."""
    name = f"{convolution}.weight"
    given, have, want = dict(origin.tensors), origin.tensors.get(name), wanted[name]
    if have is None or have.ndim != 4 or have.shape[1] == want.shape[1]:
        return given
    if want.shape[1] == 1:
        given[name] = have.sum(dim=1, keepdim=True)
        notes.append(f"the {have.shape[1]} input channels of {name} are summed for grey images")
    elif have.shape[1] == 1:
        given[name] = have.expand(-1, want.shape[1], -1, -1) / want.shape[1]
        notes.append(f"the one input channel of {name} is spread over {want.shape[1]}")
    return given


def _with_head(
    origin: Origin, classes: list[str], *, last: str, wanted: Tensors, given: Tensors, notes: list[str]
) -> tuple[Tensors, int]:
    """The last layer stays as initialised unless it told these very classes apart; and the number of tensors taken."""
    names = [name for name in wanted if name.startswith(f"{last}.")]
    fits = all(name in given and given[name].shape == wanted[name].shape for name in names)
    if fits and origin.classes in (None, classes):
        return given, len(wanted)
    notes.append(f"the last layer ({last}) is new: {len(classes)} classes of this dataset")
    return given | {name: wanted[name] for name in names}, len(wanted) - len(names)


def _check_all_match(origin: Origin, wanted: Tensors, given: Tensors) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is unknown here" for name in given if name not in wanted]
    problems += [
        f"{name} {problem}" for name in wanted if name in given and (problem := _problem(given[name], wanted[name]))
    ]
    if problems:
        more = f" and {len(problems) - NAMED_TENSORS} more" if len(problems) > NAMED_TENSORS else ""
        raise Failed(
            Reason.CHECKPOINT_INVALID,
            f"model.weights: {origin.title} does not fit the network: {', '.join(problems[:NAMED_TENSORS])}{more}",
            "name the network of the weights in model.name",
        )


def _problem(have: torch.Tensor, want: torch.Tensor) -> str:
    if have.shape != want.shape:
        return f"is {tuple(have.shape)} and should be {tuple(want.shape)}"
    if have.is_floating_point() != want.is_floating_point():
        return f"is {have.dtype} and should be {want.dtype}"
    # The meta device has shapes and no values: there only what is new stands in for itself.
    if have.is_floating_point() and not have.is_meta and not bool(torch.isfinite(have).all()):
        return "holds values that are no numbers"
    return ""
