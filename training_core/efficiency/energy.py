"""Energy and state of the devices, where a counter exists: NVML for GPUs, RAPL for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml  # type: ignore[import-untyped]
import torch

from training_core.efficiency.model import Energy, Gpu

POWERCAP = Path("/sys/class/powercap")
NO_NVML = "NVML is not there"


class Gpus:
    """The GPUs of this host's ranks. `missing_because` says why there is nothing to read."""

    def __init__(self, count: int) -> None:
        self._handles: list[Any] = []
        self._samples, self._utilisation, self._watts = 0, 0.0, 0.0
        self._last: Gpu | None = None
        self.missing_because: str | None = None
        try:
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByUUID(_uuid(index)) for index in range(count)]
        except pynvml.NVMLError as problem:
            self.missing_because = f"{NO_NVML}: {problem}"

    def sample(self) -> dict[str, float]:
        """Read all devices, and give the sums and means as gauges; nothing where NVML is not there."""
        if not self._handles:
            return {}
        used = sum(pynvml.nvmlDeviceGetMemoryInfo(one).used for one in self._handles)
        rates = [pynvml.nvmlDeviceGetUtilizationRates(one).gpu / 100 for one in self._handles]
        watts = _all(lambda one: pynvml.nvmlDeviceGetPowerUsage(one) / 1000, self._handles)
        heat = _all(lambda one: pynvml.nvmlDeviceGetTemperature(one, pynvml.NVML_TEMPERATURE_GPU), self._handles)
        self._samples += 1
        self._utilisation += sum(rates) / len(rates)
        self._watts += sum(watts) if watts else 0.0
        self._last = Gpu(
            devices=len(self._handles),
            utilisation=round(self._utilisation / self._samples, 4),
            memory_used_bytes=used,
            power_watts=round(self._watts / self._samples, 1) if watts else None,
            temperature_celsius=max(heat) if heat else None,
        )
        values = {"gauge/gpu_utilisation": sum(rates) / len(rates), "gauge/gpu_memory_bytes": float(used)}
        if watts:
            values["gauge/gpu_power_watts"] = sum(watts)
        if heat:
            values["gauge/gpu_temperature_celsius"] = max(heat)
        return values

    def seen(self) -> Gpu | None:
        return self._last

    def joules(self) -> float | None:
        """Since the driver was loaded; None where a device does not count (before Volta)."""
        counted = _all(lambda one: pynvml.nvmlDeviceGetTotalEnergyConsumption(one) / 1000, self._handles)
        return sum(counted) if counted else None


def _uuid(index: int) -> str:
    """NVML counts all devices of the host, torch those that it may see."""
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def _all(read: Callable[[Any], float], handles: list[Any]) -> list[float]:
    """Of each device; empty where one of them has no such counter."""
    try:
        return [float(read(one)) for one in handles]
    except pynvml.NVMLError_NotSupported:
        return []


class Rapl:
    """The packages of this host. Their counters wrap, so they are read again and again."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._zones: dict[Path, int] = {}
        self._microjoules = 0
        self.missing_because: str | None = None
        # `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it; AMD's are called the same.
        for zone in sorted(powercap.glob("intel-rapl:*")) if powercap.exists() else []:
            if zone.name.count(":") == 1:
                try:
                    self._zones[zone] = _number(zone / "energy_uj")
                except PermissionError:
                    self.missing_because = "the RAPL counters of this host may not be read"
        if not self._zones and self.missing_because is None:
            self.missing_because = "this host shows no RAPL counter"

    def joules(self) -> float | None:
        """Since this object was made."""
        if not self._zones:
            return None
        for zone, before in self._zones.items():
            now = _number(zone / "energy_uj")
            wrapped = now < before
            self._microjoules += now - before + (_number(zone / "max_energy_range_uj") if wrapped else 0)
            self._zones[zone] = now
        return self._microjoules * 1e-6


def _number(path: Path) -> int:
    return int(path.read_text())


class EnergyMeter:
    """Joules since the ranks started: of the GPUs where they train, of the CPU packages elsewhere."""

    def __init__(self, gpus: Gpus | None, rapl: Rapl) -> None:
        self._gpus, self._rapl = gpus, rapl
        self._start = gpus.joules() if gpus is not None else None

    def read(self) -> Energy:
        if self._gpus is None:
            return _energy(self._rapl.joules(), "rapl", self._rapl.missing_because)
        now = self._gpus.joules()
        used = now - self._start if now is not None and self._start is not None else None
        return _energy(used, "nvml", self._gpus.missing_because or "these GPUs count no energy")


def _energy(joules: float | None, source: Any, missing_because: str | None) -> Energy:
    if joules is None:
        return Energy(missing_because=missing_because)
    return Energy(joules=round(joules, 1), source=source)
