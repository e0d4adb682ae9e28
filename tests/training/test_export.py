"""Exports of a real job: complete, described, and the same model as the one that was trained."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.running import ROOT, Run, make_run
from training_core.contract.errors import Failed, Reason
from training_core.contract.model_card import CARD_FILE, Card
from training_core.export.__main__ import main
from training_core.predict import load
from training_core.vision.dataset_view import Chosen
from training_core.vision.transforms import Recipe, Renderer

FORMS = ("safetensors", "torch_export", "onnx", "onnx_int8")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, original_images: Path) -> Run:
    folder = tmp_path_factory.mktemp("exported")
    run = with_exports(
        make_run(
            folder, f"file://{original_images}", training={"epochs": 15}, data_roots=[original_images.parent],
            job_id="exported",
        ),
        *FORMS,
    )  # fmt: skip
    assert run.finish() == 0, run.log()
    return run


def with_exports(run: Run, *forms: str) -> Run:
    spec = run.spec.spec.model_copy(update={"exports": list(forms)})
    changed = run.spec.model_copy(update={"spec": spec})
    run.dir.write_spec(changed)
    return Run(run.dir, changed)


def folder_of(job: Run, form: str) -> Path:
    return job.file(f"jobs/exported/trial-0/exports/{form}")


def best_of(job: Run) -> Path:
    return job.file(job.of_kind("summary")[0].best_checkpoint)


@pytest.fixture
def export(job: Run, tmp_path: Path) -> Path:
    """The ONNX export, yours to spoil."""
    return Path(shutil.copytree(folder_of(job, "onnx"), tmp_path / "export"))


def validation(job: Run, original_images: Path) -> tuple[Chosen, list[Path], list[str]]:
    data = Chosen(job.dir.read_prepared())
    rows = data.splits["validation"]
    paths = [original_images / path for path in data.items.paths(rows)]
    return data, paths, [data.meta.classes[label] for label in data.labels[rows]]


def test_every_form_is_an_artifact_that_is_what_it_says(job: Run) -> None:
    saved = {one.format: one for one in job.of_kind("artifact_saved")}
    assert set(saved) == set(FORMS)
    assert job.of_kind("alert_raised") == []
    for form, report in saved.items():
        contents = {path.name: path.read_bytes() for path in job.file(report.path).iterdir()}
        assert {name: len(content) for name, content in contents.items()} == report.files
        assert {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} == report.sha256
        card = Card.model_validate_json(contents[CARD_FILE])
        assert (card.export, card.classes) == (form, ["class-0", "class-1", "class-2"])
        assert (card.preprocessing.image_size, card.preprocessing.channels) == (16, 1)
        assert card.checkpoint == job.of_kind("summary")[0].best_checkpoint
        assert card.metrics["validation/accuracy"] == job.of_kind("summary")[0].metrics["validation/accuracy"]


def test_the_check_is_on_the_validation_images(job: Run) -> None:
    checks: dict[str, Any] = {one.format: one.about["check"] for one in job.of_kind("artifact_saved")}
    accuracy = job.of_kind("summary")[0].metrics["validation/accuracy"]
    assert checks["torch_export"]["largest_difference"] == 0
    assert checks["onnx"]["largest_difference"] < 1e-4
    for form in ("torch_export", "onnx"):
        assert (checks[form]["images"], checks[form]["real_images"], checks[form]["equal_top1"]) == (18, True, 1.0)
        assert checks[form]["accuracy"] == accuracy
    small = checks["onnx_int8"]
    assert small["accuracy_before"] == accuracy
    assert small["size_bytes_after"] < 0.4 * small["size_bytes_before"]
    assert small["milliseconds_after"] > 0


def test_no_file_tells_of_the_machine_that_made_it(job: Run) -> None:
    for form in FORMS:
        for path in folder_of(job, form).iterdir():
            content = path.read_bytes()
            assert str(ROOT).encode() not in content, path
            assert b"site-packages" not in content, path


@pytest.mark.parametrize("form", ["checkpoint", *FORMS])
def test_a_loaded_model_is_as_good_as_the_training_said(job: Run, original_images: Path, form: str) -> None:
    model = load(best_of(job) if form == "checkpoint" else folder_of(job, form))
    data, paths, labels = validation(job, original_images)
    predictions = model.predict(paths)
    right = [one.label == label for one, label in zip(predictions, labels, strict=True)]
    assert np.mean(right) == job.of_kind("summary")[0].metrics["validation/accuracy"]
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in predictions)
    assert all(max(one.probabilities, key=one.probabilities.__getitem__) == one.label for one in predictions)
    seen = np.empty((len(paths), 16, 16, 1), np.uint8)
    Renderer(data.pack, Recipe(data.pack.folder))(data.splits["validation"], 0, seen)
    assert np.array_equal(np.stack([model.picture(path) for path in paths]), seen)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None  # importing them raises ImportError
from training_core.predict import load
print(load(sys.argv[1]).predict(sys.argv[2:])[0].probability)
"""


def test_an_onnx_model_needs_no_torch(export: Path, original_images: Path) -> None:
    image = original_images / "class-1" / "000.png"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(export), str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(load(export).predict([image])[0].probability)


def test_content_and_pixels_are_taken_too(export: Path, original_images: Path) -> None:
    model, path = load(export), original_images / "class-2" / "003.png"
    pixels = model.picture(path)
    [by_path, by_content, by_pixels] = model.predict([str(path), path.read_bytes(), pixels])
    assert by_path == by_content == by_pixels
    with pytest.raises(Failed, match="float64"):
        model.predict([pixels.astype(float)])


def bomb() -> bytes:
    """A PNG of one and a half thousand million pixels, in 67 bytes."""
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (40_000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    return header + b"\0" * 30


@pytest.mark.parametrize(
    ("content", "words"),
    [(bomb(), "more than"), (b"", "empty"), (b"%PDF-1.7 ...", "a PDF document"), (None, "ends before|truncated|ends")],
)
def test_hostile_files_are_named_with_what_is_wrong(
    export: Path, original_images: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    whole = (original_images / "class-0" / "000.png").read_bytes()
    (tmp_path / "bad.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(Failed, match=rf"bad\.png cannot be used: .*({words})") as raised:
        load(export).predict([tmp_path / "bad.png"])
    assert raised.value.reason == Reason.IMAGE_CORRUPT


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_seen(job: Run, export: Path, tmp_path: Path) -> None:
    flipped(export / "model.onnx")
    with pytest.raises(Failed, match=r"export/model.onnx is not what model.json says"):
        load(export)
    (export / CARD_FILE).write_text('{"version": 1}')
    with pytest.raises(Failed, match="describes no exported model"):
        load(export)
    checkpoint = Path(shutil.copytree(best_of(job), tmp_path / "checkpoint"))
    flipped(checkpoint / "model.safetensors")
    with pytest.raises(Failed, match="checkpoint cannot be used"):
        load(checkpoint)
    with pytest.raises(FileNotFoundError, match="neither"):
        load(tmp_path)


def test_a_card_reaches_no_other_folder(export: Path) -> None:
    card = json.loads((export / CARD_FILE).read_text()) | {"file": "../secret"}
    (export / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(Failed, match="outside of its folder"):
        load(export)


def test_a_form_that_cannot_be_made_costs_nothing_but_itself(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "onnxscript.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{ROOT}")
    run = make_run(tmp_path, f"file://{images}", training={"epochs": 1})
    run = with_exports(run, "onnx", "safetensors")
    assert run.finish() == 0, run.log()
    assert run.outcome.result == "completed"
    [alert] = [one for one in run.of_kind("alert_raised") if one.alert == "export_failed"]
    assert alert.data == {"format": "onnx"}
    assert "onnxscript" in alert.message
    assert [one.format for one in run.of_kind("artifact_saved")] == ["safetensors"]


def by_hand(job: Run, to: Path, form: str, *more: str, store: str | None = None) -> int:
    checkpoint = job.of_kind("summary")[0].best_checkpoint
    return main([store or job.spec.store, checkpoint, "--format", form, "--to", str(to), *more])


def test_a_checkpoint_is_exported_by_hand(
    job: Run, tmp_path: Path, original_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_hand(job, tmp_path / "there", "onnx_int8", "--images", str(original_images)) == 0
    check = json.loads(capsys.readouterr().out)["check"]
    assert (check["images"], check["calibration_images"]) == (72, 72)
    assert check["accuracy_after"] > 0.5
    image = original_images / "class-1" / "001.png"
    [small], [full] = (load(folder).predict([image]) for folder in (tmp_path / "there", best_of(job)))
    assert small.probability == pytest.approx(full.probability, abs=0.1)


def test_by_hand_says_what_is_missing(job: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "to"
    assert by_hand(job, to, "onnx_int8") == 1
    assert "--images FOLDER" in capsys.readouterr().err
    assert by_hand(job, to, "safetensors", store=str(tmp_path / "elsewhere")) == 1
    assert "there is no checkpoint" in capsys.readouterr().err
    assert by_hand(job, to, "safetensors", "--images", str(tmp_path)) == 1
    assert "holds no images" in capsys.readouterr().err
    assert not to.exists()


def snippets() -> list[str]:
    parts = (ROOT / "docs" / "export.md").read_text().split("```python\n")[1:]
    return [part.split("```")[0] for part in parts]


def test_what_the_documentation_shows_without_our_code_agrees_with_it(
    export: Path, original_images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [snippet] = snippets()
    monkeypatch.chdir(export.parent)
    for label in ("class-0", "class-1", "class-2"):
        shutil.copy(original_images / label / "002.png", "boot.png")
        exec(compile(snippet, "docs/export.md", "exec"), {})
        assert capsys.readouterr().out.strip() == load(export).predict(["boot.png"])[0].label
