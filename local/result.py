"""What a person reads when the job is over."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local.story import data_line, duration, percent

JsonObject = dict[str, Any]

# What the time before each moment was spent on.
SPENT = {
    "dispatched": "waiting in the queue",
    "data_ready": "reading and preparing the data",
    "processes_up": "starting the training process",
    "first_step": "up to the first optimizer step",
    "finished": "training, evaluation, checkpoints",
}


def print_success(console: Console, job: JsonObject, checkpoint: JsonObject | None, store: Path) -> None:
    result = job["result"] or {}
    metrics = {name: float(value) for name, value in (result.get("metrics") or {}).items()}
    accuracy = next((metrics[name] for name in ("test/accuracy", "validation/accuracy") if name in metrics), None)
    headline = f"{percent(accuracy)} accuracy" if accuracy is not None else "done"
    of = "on the test images" if "test/accuracy" in metrics else "on the validation images"
    early = " (stopped early: no further gain)" if job["reason"] == "early_stopped" else ""
    console.print(f"\n[bold green]{headline}[/] {of if accuracy is not None else ''}{early}", highlight=False)

    facts = [", ".join(_metric(name, value) for name, value in sorted(metrics.items()) if name != "test/accuracy")]
    if result.get("images_per_second"):
        facts.append(f"{result['images_per_second']:,.0f} images/s over the whole training")
    facts += account_lines(job)
    if checkpoint:
        size = f"{_size(checkpoint['size_bytes'])}, step {checkpoint['step']:,}"
        facts.append(f"checkpoint {_short(_checkpoint_folder(store, job['id'], checkpoint['step']))} ({size})")
    if job.get("data"):
        facts.insert(0, data_line(job["data"], job.get("data_report")))
    if job.get("data_report"):
        facts.append(_report_file(job, store))
    for line in facts:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(_time_table(job), highlight=False)


def account_lines(job: JsonObject) -> list[str]:
    """What held the training back, and what was predicted of it; nothing where the job has no account."""
    account = job.get("efficiency") or {}
    lines = []
    if account.get("verdict"):
        ratio = account.get("ratio_to_bound")
        of_bound = f", at {ratio:.0%} of what this model reaches with all batches at hand" if ratio is not None else ""
        lines.append(f"{account['verdict'].replace('_', ' ')}{of_bound}")
    predicted, measured = (job.get("plan") or {}).get("prediction"), account.get("measured")
    if predicted and measured and measured.get("images_per_second"):
        lines.append(
            f"predicted {predicted['images_per_second']:,.0f} images/s and {duration(predicted['hours'] * 3600)},"
            f" measured {measured['images_per_second']:,.0f} and {duration(measured['hours'] * 3600)}"
        )
    return lines


def print_failure(console: Console, job: JsonObject, store: Path) -> None:
    error = job.get("error") or {}
    console.print(f"\n[bold red]The job ended as {job['status']}[/]: {escape(str(job['reason']))}", highlight=False)
    for part in ("message", "hint", "log_excerpt"):
        if error.get(part):
            console.print(f"{part.replace('_', ' ')}: {error[part]}", markup=False, highlight=False)
    if job.get("data_report"):
        console.print(_report_file(job, store), markup=False, highlight=False, soft_wrap=True)


def _checkpoint_folder(store: Path, job_id: str, step: int) -> Path:
    """Where it lies in the demo's own store; answers of the service name no paths."""
    folders = (store / "jobs" / job_id).glob("trial-*/attempt-*/step-*")
    return next(folder for folder in sorted(folders, reverse=True) if int(folder.name.removeprefix("step-")) == step)


def _report_file(job: JsonObject, store: Path) -> str:
    reports = sorted((store / "jobs" / job["id"]).rglob("data_report.json"))
    return f"data report {_short(reports[-1])}" if reports else "a data report (GET …/data_report)"


def _time_table(job: JsonObject) -> Table:
    """From the POST to the end, and below it what the training process itself counted."""
    table = Table(box=None, padding=(0, 2, 0, 0), title="Where the time went", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("")
    rows = _phases(job["phases"])
    total = sum(seconds for _, seconds in rows) or 1.0
    for name, seconds in rows:
        table.add_row(name, f"{seconds:.2f}", _bar(seconds / total))
    table.add_row("[bold]POST to the end[/]", f"[bold]{total:.2f}[/]", "")
    inner = {name: float(value) for name, value in ((job["result"] or {}).get("seconds") or {}).items()}
    inner.pop("total", None)  # it overlaps with all the others
    for name, seconds in sorted(inner.items(), key=lambda item: -item[1]):
        words = escape(name.replace("_", " "))
        table.add_row(f"[dim]  in the training process: {words}[/]", f"[dim]{seconds:.2f}[/]", "")
    return table


def _phases(phases: dict[str, str | None]) -> list[tuple[str, float]]:
    """Seconds between one moment and the next, in the order in which they came."""
    moments = sorted((datetime.fromisoformat(text), name) for name, text in phases.items() if text)
    rows = []
    for (before, _), (after, name) in pairwise(moments):
        rows.append((SPENT.get(name, name), (after - before).total_seconds()))
    return rows


def _bar(share: float, width: int = 24) -> str:
    return "█" * round(share * width)


def _metric(name: str, value: float) -> str:
    return f"{name} {percent(value)}" if name.endswith("accuracy") else f"{name} {value:.4f}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
