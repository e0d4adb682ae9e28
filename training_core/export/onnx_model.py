"""ONNX files: run, made small, and freed of what they tell about the machine that made them. Torch-free."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training_core.contract.errors import Failed, Reason

Images = NDArray[np.uint8]

CALIBRATION_TOGETHER = 32
# What has kernels for int8 on all of onnxruntime's processors; the normalisation of pixels stays as it is.
QUANTISED = ["Conv", "Gemm", "MatMul", "MaxPool", "GlobalAveragePool", "ReduceMean", "Relu", "Clip"]


class Session:
    """One graph from `images` to `logits` on the CPU."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, images: Images) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(["logits"], {"images": images})[0]
        return logits


def open_session(content: bytes, *, threads: int = 0) -> Session:
    """`threads` 0 leaves their number to onnxruntime. Raises `Failed(unsupported)` without onnxruntime."""
    try:
        import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415  optional
    except ImportError as problem:
        raise _missing("onnxruntime") from problem
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return Session(onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))


def require_onnx() -> None:
    """Raises `Failed(unsupported)` where one of the optional packages is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as problem:
            raise _missing(name) from problem


def _missing(name: str) -> Failed:
    return Failed(
        Reason.UNSUPPORTED,
        f"ONNX needs the package {name}, which is not installed here",
        f"install it (pip install {name}), or take the form safetensors or torch_export",
    )


def without_traces(model: Any, metadata: dict[str, str]) -> bytes:
    """The file's content; the exporter leaves the lines of code of each node in it, with their paths."""
    graph = model.graph
    for one in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, *model.functions]:
        one.ClearField("metadata_props")
        one.ClearField("doc_string")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    graph.ClearField("metadata_props")
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def quantise(content: bytes, calibration: Images, folder: Path) -> bytes:
    """Weights and activations in int8, by the ranges that `calibration` shows.

    Static, since dynamic quantisation has slow convolutions: three to ten times slower than fp32 on x86, where static
    ones are up to five times faster (figures in docs/export.md).
    """
    require_onnx()
    from onnxruntime.quantization import (  # type: ignore[import-untyped]  # noqa: PLC0415  optional
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]  # noqa: PLC0415

    plain, ready, small = (folder / name for name in ("plain.onnx", "ready.onnx", "small.onnx"))
    plain.write_bytes(content)
    with _silent_root():
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, small, _Calibration(calibration), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=QUANTISED, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    return small.read_bytes()


class _Calibration:
    """What onnxruntime calls a data reader."""

    def __init__(self, images: Images) -> None:
        starts = range(0, len(images), CALIBRATION_TOGETHER)
        self._batches = iter([images[start : start + CALIBRATION_TOGETHER] for start in starts])

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


@contextmanager
def _silent_root() -> Iterator[None]:
    """The quantiser remarks on every tensor that it leaves alone, through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
