"""What is known of a running job, gathered from the messages of its stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]

# Events that a person should see as a line of their own; the others move the bar.
TOLD = {
    "plan.chosen",
    "job.requeued",
    "job.early_stopped",
    "alert.raised",
    "oom.recovered",
    "job.paused",
    "job.resumed",
    "budget.warning",
    "budget.exhausted",
    "worker.lost",
}

STATUSES = {
    "job.preparing": "preparing",
    "job.started": "running",
    "job.requeued": "queued",
    "job.paused": "paused",
    "job.resumed": "queued",
}

PLANNED = {
    "model": "model.name",
    "batch size": "training.batch_size",
    "optimizer": "training.optimizer.name",
    "learning rate": "training.optimizer.learning_rate",
    "precision": "compute.precision",
}


@dataclass
class Story:
    """`tell` takes one message of the stream and returns the lines it is worth, often none."""

    status: str = "queued"
    fraction: float = 0.0
    epoch: float = 0.0
    total_epochs: int | None = None
    step: int = 0
    total_steps: int | None = None
    eta_seconds: float | None = None
    images_per_second: float | None = None
    data_report: JsonObject | None = None
    latest: dict[str, float] = field(default_factory=dict)

    def tell(self, event: str, data: JsonObject) -> list[str]:
        if event == "progress":
            self._progress(data)
            return []
        if event == "metrics":
            return self._metrics(data)
        status = STATUSES.get(event)
        self.status = status or self.status
        details = data.get("data") or {}
        if event == "plan.chosen":
            self.total_steps, self.total_epochs = details.get("total_steps"), details.get("total_epochs")
            return [_plan(data["message"], details)]
        if event == "data.report":
            self.data_report = details
            # The first inspection is told together with what is left to train on; one after the training stands alone.
            return [str(data["message"])] if self.status == "running" else []
        if event == "data.ready":
            return [data_line(details, self.data_report)]
        return [str(data["message"])] if event in TOLD else []

    def _progress(self, data: JsonObject) -> None:
        self.fraction, self.epoch, self.step = data["fraction"], data["epoch"], data["step"]
        self.eta_seconds, self.images_per_second = data["eta_seconds"], data["samples_per_second"]

    def _metrics(self, data: JsonObject) -> list[str]:
        """A line for every evaluation; of the points of a training series only the last one counts here."""
        lines = []
        series = {one["name"]: one for one in data["series"] if one["values"]}
        for name, one in series.items():
            self.latest[name] = float(one["values"][-1])  # NaN and infinities come as strings, which float() reads
        accuracies = series.get("validation/accuracy")
        if accuracies:
            losses = series.get("validation/loss", {"values": []})["values"]
            for index, accuracy in enumerate(accuracies["values"]):
                loss = f", loss {float(losses[index]):.4f}" if index < len(losses) else ""
                epoch = accuracies["epochs"][index]
                lines.append(f"epoch {epoch:g}: validation accuracy {percent(float(accuracy))}{loss}")
        return lines

    def facts(self) -> str:
        """The numbers behind the bar, short enough for one line."""
        parts = []
        if self.total_epochs:
            parts.append(f"epoch {min(int(self.epoch) + 1, self.total_epochs)}/{self.total_epochs}")
        if self.step:
            parts.append(f"step {self.step:,}" + (f"/{self.total_steps:,}" if self.total_steps else ""))
        if (loss := self.latest.get("train/loss")) is not None:
            parts.append(f"loss {loss:.3f}")
        if (accuracy := self.latest.get("validation/accuracy")) is not None:
            parts.append(f"accuracy {percent(accuracy)}")
        if self.images_per_second:
            parts.append(f"{self.images_per_second:,.0f} images/s")
        if self.eta_seconds is not None and self.status == "running":
            parts.append(f"{duration(self.eta_seconds)} left")
        return "  ".join(parts)


def data_line(data: JsonObject, report: JsonObject | None) -> str:
    """For example `6,998 images of 10 classes ready; 2 exact duplicates removed; 31 blurred flagged (data_report)`."""
    line = f"{sum(data['images'].values()):,} images of {len(data['classes'])} classes ready"
    if report is None:
        return line
    removed = {name: count for name, count in report["removed"].items() if count}
    flagged = {name: count - removed.get(name, 0) for name, count in report["findings"].items()}
    parts = [f"{_counted(removed)} removed"] if removed else []
    parts += [f"{_counted(flagged)} flagged"] if any(flagged.values()) else []
    return "; ".join([line, *(parts or ["nothing found"])]) + " (data_report)"


def _counted(findings: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {_words(name, count)}" for name, count in findings.items() if count)


def _words(finding: str, count: int) -> str:
    words = finding.replace("_", " ")
    return words.removesuffix("s") if count == 1 else words


def _plan(message: str, details: JsonObject) -> str:
    resolved = details.get("resolved") or {}
    choices = ", ".join(f"{word} {resolved[path]}" for word, path in PLANNED.items() if path in resolved)
    return f"{message}: {choices}" if choices else message


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """12.3 s, 4:05, 1:02:03."""
    if not math.isfinite(seconds):
        return "unknown time"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
