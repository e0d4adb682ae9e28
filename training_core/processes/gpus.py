"""The GPUs that this process may use, asked of the driver: CUDA itself must not be woken before ranks are forked."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict


class GpuFacts(BaseModel):
    """Of the first GPU; `nvlink` says whether it has such a link to another."""

    model_config = ConfigDict(frozen=True)

    name: str = ""
    memory_bytes: int = 0
    capability: tuple[int, int] | None = None
    nvlink: bool = False


def look_at_gpus() -> GpuFacts:
    """Raises `pynvml.NVMLError` where there is no driver."""
    import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415  no CPU needs it

    pynvml.nvmlInit()
    try:
        gpu = _handle(pynvml, visible(os.environ.get("CUDA_VISIBLE_DEVICES", "0")))
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
        return GpuFacts(
            name=pynvml.nvmlDeviceGetName(gpu),
            memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(gpu).total,
            capability=(major, minor),
            nvlink=_has_nvlink(pynvml, gpu),
        )
    finally:
        pynvml.nvmlShutdown()


def visible(devices: str) -> str:
    """The first of `CUDA_VISIBLE_DEVICES`: a number, or the UUID of a GPU or a slice of one."""
    return devices.split(",", maxsplit=1)[0].strip() or "0"


def _handle(nvml: Any, device: str) -> Any:
    if device.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(device))
    return nvml.nvmlDeviceGetHandleByUUID(device)


def _has_nvlink(nvml: Any, gpu: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetNvLinkState(gpu, 0))
    except nvml.NVMLError:
        return False  # a GPU without such links says that it cannot answer
