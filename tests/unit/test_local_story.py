"""What a person sees of a job, from the messages of its stream to the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.result import print_failure, print_success
from local.screen import Screen
from local.story import Story, data_line, duration


def metrics(**series: list[Any]) -> dict[str, Any]:
    names = {name.replace("__", "/"): values for name, values in series.items()}
    return {
        "series": [
            {"name": name, "values": values, "epochs": [float(n + 1) for n in range(len(values))]}
            for name, values in names.items()
        ]
    }


def test_a_story_follows_the_job() -> None:
    story = Story()
    assert story.tell("job.preparing", {"message": "…", "data": {}}) == []
    assert story.status == "preparing"
    plan = {"total_steps": 1200, "total_epochs": 3, "resolved": {"model.name": "small_cnn", "training.batch_size": 64}}
    lines = story.tell("plan.chosen", {"message": "1200 steps planned", "data": plan})
    assert lines == ["1200 steps planned: model small_cnn, batch size 64"]
    story.tell("job.started", {"message": "…", "data": {}})
    progress = {"fraction": 0.5, "epoch": 1.5, "step": 600, "eta_seconds": 75.0, "samples_per_second": 12345.6}
    assert story.tell("progress", progress) == []
    story.tell("metrics", metrics(train__loss=[0.9, 0.5]))
    assert story.facts() == "epoch 2/3  step 600/1,200  loss 0.500  12,346 images/s  1:15 left"


def test_the_data_is_worth_one_line_in_plain_words() -> None:
    story = Story()
    found = {"exact_duplicates": 2, "leakage": 0, "blurred": 31, "dark": 1}
    assert (
        story.tell("data.report", {"message": "…", "data": {"findings": found, "removed": {"exact_duplicates": 2}}})
        == []
    )
    ready = {"classes": [str(index) for index in range(10)], "images": {"train": 5998, "validation": 1000, "test": 0}}
    expected = "6,998 images of 10 classes ready; 2 exact duplicates removed; 31 blurred, 1 dark flagged (data_report)"
    assert story.tell("data.ready", {"message": "…", "data": ready}) == [expected]
    story.tell("job.started", {"message": "…", "data": {}})
    second = {
        "message": "100 images inspected: 7 label errors",
        "data": {"findings": {"label_errors": 7}, "removed": {}},
    }
    assert story.tell("data.report", second) == ["100 images inspected: 7 label errors"]
    one = {"findings": {"exact_duplicates": 1}, "removed": {"exact_duplicates": 1}}
    assert data_line(ready, one) == "6,998 images of 10 classes ready; 1 exact duplicate removed (data_report)"
    clean = {"findings": {"blurred": 0}, "removed": {}}
    assert data_line(ready, clean) == "6,998 images of 10 classes ready; nothing found (data_report)"
    assert data_line(ready, None) == "6,998 images of 10 classes ready"


def test_every_evaluation_is_worth_a_line() -> None:
    batch = metrics(validation__accuracy=[0.5, 0.625], validation__loss=[1.5, "NaN"])
    assert Story().tell("metrics", batch) == [
        "epoch 1: validation accuracy 50.00 %, loss 1.5000",
        "epoch 2: validation accuracy 62.50 %, loss nan",
    ]


def test_events_that_nobody_needs_to_see_are_silent_and_unknown_ones_harmless() -> None:
    story = Story()
    assert story.tell("checkpoint.saved", {"message": "Checkpoint of step 5 saved", "data": {}}) == []
    assert story.tell("job.paused", {"message": "Paused", "data": {}}) == ["Paused"]
    assert (story.status, story.tell("job.resumed", {"message": "Resumed", "data": {}})) == ("paused", ["Resumed"])
    assert story.status == "queued"
    assert story.tell("some.day", {"message": "new", "data": {}}) == []
    assert story.tell("alert.raised", {"message": "The loss is NaN", "data": {}}) == ["The loss is NaN"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (75, "1:15"), (3723, "1:02:03"), (float("inf"), "unknown time")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def stored(store: Path) -> tuple[Path, Path]:
    """A checkpoint and a data report of job j, where the service puts them."""
    folder = store / "jobs" / "j" / "trial-0" / "attempt-1" / "step-00000007"
    report = store / "jobs" / "j" / "data_report" / "data_report.json"
    folder.mkdir(parents=True)
    report.parent.mkdir()
    report.touch()
    return folder, report


def test_the_result_names_accuracy_checkpoint_and_every_phase(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    moments = ["queued", "dispatched", "data_ready", "processes_up", "first_step", "finished"]
    job = {
        "id": "j",
        "reason": "completed",
        "phases": {name: f"2026-01-01T00:00:0{second}Z" for second, name in enumerate(moments)},
        "result": {
            "metrics": {"test/accuracy": 0.9123, "validation/loss": 0.25},
            "seconds": {"train": 3.5, "total": 9.0},
            "images_per_second": 1234.0,
        },
        "plan": {"prediction": {"images_per_second": 2000.0, "hours": 0.001}},
        "efficiency": {
            "verdict": "compute_bound",
            "ratio_to_bound": 0.973,
            "measured": {"images_per_second": 1800.0, "hours": 0.0012},
        },
        "data": {"classes": ["a", "b"], "images": {"train": 70, "validation": 8}},
        "data_report": {
            "findings": {"exact_duplicates": 2},
            "removed": {"exact_duplicates": 2},
        },
    }
    folder, report = stored(tmp_path)
    print_success(Console(width=200), job, {"step": 7, "size_bytes": 2_900_000}, tmp_path)
    shown = capsys.readouterr().out
    assert "91.23 % accuracy on the test images" in shown
    assert f"{folder} (2.9 MB, step 7)" in shown
    assert "78 images of 2 classes ready; 2 exact duplicates removed (data_report)" in shown
    assert str(report) in shown
    assert "compute bound, at 97% of what this model reaches with all batches at hand" in shown
    assert "predicted 2,000 images/s and 3.6 s, measured 1,800 and 4.3 s" in shown
    assert shown.count("1.00") == 5
    assert "in the training process: train" in shown
    assert "total" not in shown


def test_a_failure_shows_reason_message_and_hint_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"message": "No such bucket [red]", "hint": "Check the name"}
    job = {"status": "failed", "reason": "dataset_unreachable", "error": error}
    print_failure(Console(width=100), job, Path("/store"))
    shown = capsys.readouterr().out
    assert "dataset_unreachable" in shown
    assert "No such bucket [red]" in shown
    assert "Check the name" in shown


def test_a_job_that_failed_on_its_data_shows_where_the_report_lies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, report = stored(tmp_path)
    job = {"id": "j", "status": "failed", "reason": "image_corrupt", "data_report": {"findings": {}}}
    print_failure(Console(width=200), job, tmp_path)
    assert f"data report {report}" in capsys.readouterr().out


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(Console(width=200, force_terminal=False)) as screen:
        screen.step("PostgreSQL")
        story = Story(status="running", fraction=0.25, step=10)
        screen.show(story)
        screen.show(story)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" s  ", 1)[1] for line in lines if line.strip()] == ["starting: PostgreSQL", "25.00 %  step 10"]
