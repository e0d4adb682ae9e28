"""What the host's counters say: this job's use of the cores, that of others, and the memory. Linux tells most of it."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

BUSY = ("user", "nice", "system", "irq", "softirq")
SELF_TASKS = Path("/proc/self/task")
CGROUP_THROTTLED = (Path("/sys/fs/cgroup/cpu.stat"), "throttled_usec", 1e-6)


@dataclass(frozen=True)
class CpuReading:
    """Seconds since some moment in the past. `used` of this process and its children, `busy` of everything on the
    cores allowed, `delayed` in which threads of this process wanted a core; None: no counter here."""

    at: float
    used: float
    busy: float | None
    stolen: float | None
    delayed: float | None
    throttled: float | None

    def since(self, before: CpuReading) -> CpuReading:
        """What went by between two readings."""
        return CpuReading(
            at=self.at - before.at,
            used=self.used - before.used,
            busy=_less(self.busy, before.busy),
            stolen=_less(self.stolen, before.stolen),
            delayed=_less(self.delayed, before.delayed),
            throttled=_less(self.throttled, before.throttled),
        )


def _less(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else max(0.0, now - before)


class Host:
    """Counters of this process and of this host."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._delays: dict[str, float] = {}
        self._ended_delays = 0.0
        self.cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

    def cpu(self) -> CpuReading:
        busy, stolen = self._cores()
        return CpuReading(
            time.perf_counter(), self._used(), busy, stolen, self._delayed(), _throttled(*CGROUP_THROTTLED)
        )

    def _used(self) -> float:
        """Of this process and of its loader process."""
        seconds = time.process_time()
        for child in _children():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended since
                times = psutil.Process(child).cpu_times()
                seconds += times.user + times.system
        return seconds

    def _cores(self) -> tuple[float | None, float | None]:
        times = psutil.cpu_times(percpu=True)
        if not self.cores or self.cores[-1] >= len(times):
            return None, None
        mine = [times[core] for core in self.cores]
        busy = sum(sum(getattr(one, name, 0.0) for name in BUSY) for one in mine)
        return busy, sum(getattr(one, "steal", 0.0) for one in mine)

    def _delayed(self) -> float | None:
        """Of all threads, those that have ended since included."""
        if not SELF_TASKS.exists():
            return None
        now: dict[str, float] = {}
        for task in SELF_TASKS.iterdir():
            with suppress(OSError):  # the thread has ended, or the kernel keeps no such statistics
                now[task.name] = int((task / "schedstat").read_text().split()[1]) * 1e-9
        self._ended_delays += sum(delay for name, delay in self._delays.items() if name not in now)
        self._delays = now
        return self._ended_delays + sum(now.values()) if now else None

    def gauges(self) -> dict[str, float]:
        """As metrics; rates are left to who draws them: bytes count since the host started."""
        disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
        values = {
            "gauge/cpu_load": psutil.getloadavg()[0],
            "gauge/memory_process_bytes": float(self._process.memory_info().rss),
            "gauge/memory_available_bytes": float(psutil.virtual_memory().available),
        }
        if disk is not None:
            values |= {
                "gauge/disk_read_bytes": float(disk.read_bytes),
                "gauge/disk_write_bytes": float(disk.write_bytes),
            }
        if net is not None:
            values |= {
                "gauge/network_received_bytes": float(net.bytes_recv),
                "gauge/network_sent_bytes": float(net.bytes_sent),
            }
        return values


def _children() -> list[int]:
    """Process ids. As this process knows them: psutil looks through all processes of the host, 3 ms for a hundred."""
    files = [task / "children" for task in SELF_TASKS.iterdir()] if SELF_TASKS.exists() else []
    if not all(file.exists() for file in files) or not files:  # a kernel that does not tell
        return [child.pid for child in psutil.Process().children()]
    return [int(child) for file in files for child in _text(file).split()]


def _text(file: Path) -> str:
    """Nothing of a thread that has ended."""
    try:
        return file.read_text()
    except OSError:
        return ""


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _throttled(path: Path, key: str, unit: float) -> float | None:
    """Seconds in which the cgroup's quota was used up; None without a quota."""
    if not path.exists():
        return None
    values = dict(line.split() for line in path.read_text().splitlines())
    return int(values[key]) * unit if key in values else None
