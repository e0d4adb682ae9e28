"""Writes safetensors piece by piece, from memory that exists already: the format's own library builds a second copy.

Format: 8 bytes with the length of the header, little-endian; the header, JSON that gives type, shape and place of
every tensor; then the tensors (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from training_core.distributed.tensors import Tensors

TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
# Types of the same width that numpy knows: what it is told to copy are bytes.
_WIDTHS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ALIGNMENT = 8


def pieces(tensors: Tensors) -> Iterator[bytes | memoryview]:
    """The bytes of the file, one tensor at a time; the tensors are on the host, in any memory layout."""
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    yield _head(tensors, order)
    for name in order:
        if tensors[name].numel() > 0:
            yield _as_numpy(tensors[name]).reshape(-1).view(np.uint8).data


def size_bytes(tensors: Tensors) -> int:
    """Without the header."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _head(tensors: Tensors, order: list[str]) -> bytes:
    records: dict[str, object] = {}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += math.prod(tensor.shape) * tensor.element_size()
        records[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    content = json.dumps(records, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _ALIGNMENT)
    return len(content).to_bytes(8, "little") + content


def _as_numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """In plain layout. By numpy: torch would bring a pool of threads of its own into the thread that writes."""
    return np.ascontiguousarray(tensor.detach().view(_WIDTHS[tensor.element_size()]).numpy())


def all_finite(tensors: Tensors) -> bool:
    """Whether every float is a number."""
    with np.errstate(all="ignore"):
        return all(_finite(tensor) for tensor in tensors.values() if tensor.is_floating_point())


def _finite(tensor: torch.Tensor) -> bool:
    plain = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
    # A sum needs no memory beside the tensor, and in float64 it cannot overflow.
    return bool(np.isfinite(np.add.reduce(plain.numpy(), axis=None, dtype=np.float64)))
