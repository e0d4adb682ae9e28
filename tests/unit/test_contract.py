"""The contract that api, worker and training share: spec, reports, run dir; and the map from reason to status."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.book.status import REASONS, TERMINAL, Status, actions
from training_core.contract import reports
from training_core.contract.errors import Reason
from training_core.contract.outcome import Outcome
from training_core.contract.run_dir import EventsFile, RunDir, complete_lines
from training_core.contract.spec import JobSpec, is_better

MINIMAL = {"task": "image-classification", "dataset": {"uri": "file:///data/x"}}


def test_every_reason_has_a_status_and_retries_lead_to_the_queue() -> None:
    assert set(REASONS) == set(Reason)
    for reason, verdict in REASONS.items():
        assert (verdict.status == Status.QUEUED) == (
            verdict.retry != "never" or reason in {Reason.SUBMITTED, Reason.RESUMED_BY_CLIENT, Reason.PROMOTED}
        )


def test_terminal_jobs_offer_no_action_and_a_wish_leaves_only_what_goes_further() -> None:
    for status in Status:
        assert bool(actions(status)) == (status not in TERMINAL)
        assert actions(status, cancelling=True) == []
        assert set(actions(status, "check")) <= {"cancel"}
    assert actions(Status.RUNNING, pausing=True) == actions(Status.PAUSED) == ["resume", "cancel"]


def test_a_spec_survives_its_stored_form() -> None:
    spec = JobSpec.model_validate({**MINIMAL, "training": {"batch_size": 64, "early_stopping": None}})
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "pets",
        "s3://key:secret@bucket/x",
        "zip://a::s3://k:s@b/x.zip",
        "file:///a\tb",
        "s3://b/\n",
        "file:///x\u0000",
    ],
)
def test_uris_without_scheme_with_credentials_or_with_control_characters_are_refused(uri: str) -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate({**MINIMAL, "dataset": {"uri": uri}})


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_metrics_keep_every_number_on_the_wire(value: float) -> None:
    line = reports.encode(reports.Metric(step=1, epoch=0.5, values={"x": value}))
    read = reports.decode(line)
    assert isinstance(read, reports.Metric)
    assert read.values["x"] == value or (math.isnan(value) and math.isnan(read.values["x"]))


def test_better_means_lower_loss_and_higher_accuracy_and_never_nan() -> None:
    assert is_better(0.4, 0.5, "validation/loss")
    assert not is_better(0.45, 0.5, "validation/loss", min_delta=0.1)
    assert is_better(0.6, 0.5, "validation/accuracy")
    assert not is_better(math.nan, None, "validation/loss")
    assert is_better(0.5, math.nan, "validation/loss")


def test_the_events_file_mends_what_a_killed_writer_left(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventsFile(path) as events:
        events.append(reports.Started())
        events.append(reports.FirstStep(step=1))
    with path.open("ab") as file:
        file.write(b'{"seq": 3, "kind": "metr')
    assert len(list(complete_lines(path, 0))) == 2
    with EventsFile(path) as events:
        assert events.append(reports.FirstStep(step=2)).seq == 3
    assert [reports.decode(line).seq for line, _ in complete_lines(path, 0)] == [1, 2, 3]


def test_the_first_outcome_stays(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.read_outcome() is None
    run_dir.write_outcome(Outcome(result="failed", reason=Reason.NO_SPACE, phase="running"))
    run_dir.write_outcome(Outcome(result="failed", reason=Reason.TRAINING_ERROR, phase="running"))
    assert (run_dir.read_outcome() or Outcome(result="stopped", phase="running")).reason == Reason.NO_SPACE


@pytest.mark.parametrize("module", ["api.app", "api.control.__main__"])
def test_the_control_plane_needs_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'worker') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
