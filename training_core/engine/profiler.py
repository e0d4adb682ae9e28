"""A few steps under torch.profiler, when somebody asks: the trace and a summary go to the store."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from training_core.checkpoints.manifest import trial_folder
from training_core.contract.reports import ArtifactSaved
from training_core.engine.training import Training
from training_core.storage.store import open_store

STEPS = 3
TRACE, SUMMARY = "trace.json.gz", "summary.txt"
ROWS = 25


class Tracer:
    """Belongs to rank 0, and changes nothing that is computed. `run_dir.profile` is the request."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._profiler: Any = None
        self._first_step = 0

    def look(self) -> None:
        """Begin when asked to."""
        asked = self._training.ranks.first and self._training.run_dir.profile.exists()
        if self._profiler is not None or not asked:
            return
        activities = [ProfilerActivity.CPU]
        if self._training.ranks.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities, record_shapes=True, acc_events=True)
        self._first_step = self._training.state.step + 1
        self._profiler.start()

    @property
    def is_complete(self) -> bool:
        """The steps to trace are done, and `finish` is due."""
        return self._profiler is not None and self._training.state.step >= self._first_step + STEPS - 1

    def finish(self) -> None:
        """Store what was traced, report it, and take back the request. A store that refuses ends no training."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self._training.run_dir.profile.unlink(missing_ok=True)
        try:
            self._save(profiler)
        except OSError as problem:
            self._training.reports.alert(
                "trace_lost",
                f"the trace could not be stored ({problem.strerror}): free some space and ask again",
                step=self._first_step,
            )

    def _save(self, profiler: Any) -> None:
        run, last = self._training.materials.run, self._training.state.step
        folder = f"{trial_folder(run)}/attempt-{run.attempt}/traces/step-{self._first_step:08d}"
        key = "self_device_time_total" if self._training.ranks.device.type == "cuda" else "self_cpu_time_total"
        averages = profiler.key_averages()
        steps = f"steps {self._first_step} to {last} of rank 0"
        table = averages.table(sort_by=key, row_limit=ROWS, max_name_column_width=60)
        contents = {TRACE: _trace(profiler), SUMMARY: f"{steps}\n{table}\n".encode()}
        store = open_store(run)
        for name, content in contents.items():
            store.write(f"{folder}/{name}", content)
        top = sorted(averages, key=lambda one: -getattr(one, key))[:10]
        self._training.reports.say(
            ArtifactSaved(
                path=folder,
                artifact="trace",
                format="chrome",
                step=self._first_step,
                size_bytes=sum(len(content) for content in contents.values()),
                files={name: len(content) for name, content in contents.items()},
                sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
                about={
                    "steps": last - self._first_step + 1,
                    "top_operators": [
                        {"name": one.key, "calls": one.count, "self_seconds": round(getattr(one, key) * 1e-6, 6)}
                        for one in top
                    ],
                    "torch": torch.__version__,
                },
            )
        )


def _trace(profiler: Any) -> bytes:
    """As chrome://tracing and Perfetto read it."""
    with tempfile.TemporaryDirectory(prefix="trainyard-trace-") as folder:
        path = Path(folder) / TRACE
        profiler.export_chrome_trace(str(path))
        return path.read_bytes()
