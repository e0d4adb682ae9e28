"""The forms of an exported model. Each is made, read back, and compared with the network it was made from."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training_core.contract.errors import Failed, Reason
from training_core.contract.model_card import FILES, Input
from training_core.contract.spec import ExportFormat
from training_core.export.checks import Compute, compare, judge, loss_of, milliseconds
from training_core.export.onnx_model import open_session, quantise, require_onnx, without_traces
from training_core.export.pictures import Pictures
from training_core.vision.network_of_card import PixelGraph, Trained


@dataclass(frozen=True)
class Made:
    """`content` of the model's file, what its graph takes, and the numbers of its check."""

    content: bytes
    input: Input
    check: dict[str, Any] = field(default_factory=dict)
    warning: str | None = None


class Forms:
    """Makes the forms of one model. Raises `Failed(unsupported)` for one that cannot be made or computes otherwise."""

    def __init__(self, trained: Trained, pictures: Pictures, metadata: dict[str, str]) -> None:
        self._trained, self._pictures, self._metadata = trained, pictures, metadata
        self._graph = PixelGraph(trained).eval()
        self._preprocessing = trained.preprocessing

    def make(self, form: ExportFormat) -> Made:
        makers: dict[ExportFormat, Callable[[], Made]] = {
            "safetensors": self._safetensors,
            "torch_export": self._torch_export,
            "onnx": self._onnx,
            "onnx_int8": self._onnx_int8,
        }
        with _quiet():
            return makers[form]()

    def _safetensors(self) -> Made:
        from safetensors.torch import load, save  # noqa: PLC0415

        state = {name: tensor.contiguous() for name, tensor in self._trained.network.state_dict().items()}
        content = save(state, self._metadata)
        same = all(torch.equal(tensor, state[name]) for name, tensor in load(content).items())
        side, channels = self._preprocessing.image_size, self._preprocessing.channels
        takes = Input(dtype="float32", layout="NCHW", shape=["batch", channels, side, side])
        return Made(content, takes, {"tensors": len(state), "identical": same})

    def _torch_export(self) -> Made:
        file = io.BytesIO()
        torch.export.save(self._program, file, extra_files={"model.json": json.dumps(self._metadata)})
        module = torch.export.load(io.BytesIO(file.getvalue())).module()
        return Made(
            file.getvalue(),
            self._pixels,
            self._compared(lambda images: np.asarray(module(torch.from_numpy(images)).detach())),
        )

    def _onnx(self) -> Made:
        session = open_session(self._onnx_content, threads=torch.get_num_threads())
        return Made(self._onnx_content, self._pixels, self._compared(session.run))

    def _onnx_int8(self) -> Made:
        if not self._pictures.real:
            raise Failed(
                Reason.UNSUPPORTED,
                "int8 needs real images to find the range of every layer",
                "name a folder of images: --images FOLDER",
            )
        before = open_session(self._onnx_content, threads=1)
        with tempfile.TemporaryDirectory() as folder:
            content = quantise(self._onnx_content, self._pictures.calibration, Path(folder))
        after = open_session(content, threads=1)
        check = {
            "method": "static QDQ, per channel, ranges from training images",
            "calibration_images": len(self._pictures.calibration),
            "size_bytes_before": len(self._onnx_content),
            "size_bytes_after": len(content),
            "milliseconds_before": milliseconds(before, self._pictures.judged[:1]),
            "milliseconds_after": milliseconds(after, self._pictures.judged[:1]),
        }
        check |= judge(before, after, self._pictures)
        return Made(content, self._pixels, check, loss_of(check))

    def _compared(self, compute: Compute) -> dict[str, Any]:
        with torch.no_grad():
            return compare(lambda images: self._graph(torch.from_numpy(images)).numpy(), compute, self._pictures)

    @property
    def _pixels(self) -> Input:
        side, channels = self._preprocessing.image_size, self._preprocessing.channels
        return Input(dtype="uint8", layout="NHWC", shape=["batch", side, side, channels])

    @property
    def _example(self) -> torch.Tensor:
        return torch.zeros((2, *self._pictures.judged.shape[1:]), dtype=torch.uint8)

    @cached_property
    def _program(self) -> torch.export.ExportedProgram:
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        program = torch.export.export(self._graph, (self._example,), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # lines of code on the machine that trained it
        return program

    @cached_property
    def _onnx_content(self) -> bytes:
        require_onnx()
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        program = torch.onnx.export(
            self._graph, (self._example,), dynamo=True, verbose=False, dynamic_shapes=shapes,
            input_names=["images"], output_names=["logits"],
        )  # fmt: skip
        return without_traces(program.model_proto, self._metadata)  # type: ignore[union-attr]


def file_of(form: ExportFormat) -> str:
    return FILES[form]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own inner life; what concerns the model is an error, or shows in the comparison."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
