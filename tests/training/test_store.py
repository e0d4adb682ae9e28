"""The store of checkpoints: what a deletion that is cut short leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import JobSpec
from training_core.storage.store import open_store

SPEC = JobSpec.model_validate({"task": "image-classification", "dataset": {"uri": "file://x"}})


def test_a_deletion_that_is_cut_short_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(RunSpec(spec=SPEC, store=f"file://{tmp_path}", cache_dir=tmp_path))
    for name in ("a-weights", "manifest.json", "z-weights"):
        store.write(f"step-1/{name}", b"x")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        store.delete("step-1", "manifest.json")
    assert store.find("", "manifest.json") == []
    assert store.read("step-1/z-weights") == b"x"
    monkeypatch.undo()
    store.delete("step-1", "manifest.json")
    store.delete("step-1", "manifest.json")
    assert not (tmp_path / "step-1").exists()
