"""What the Dockerfiles copy is enough for the processes that the images start, the API's without torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTED = {
    "Dockerfile.api": ["api.app", "api.control.__main__", "api.control.health", "api.keys"],
    "Dockerfile.worker": [
        "worker.__main__",
        "worker.health",
        "training_core.runtime.launch",
        "training_core.runtime.launcher",
    ],
}


def copied(dockerfile: str, folder: Path) -> None:
    for sources, target in re.findall(r"^COPY (.+) (\S+)$", (ROOT / dockerfile).read_text(), re.MULTILINE):
        for source in sources.split():
            place = folder / target / (Path(source).name if target.endswith("/") else "")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)


@pytest.mark.parametrize("dockerfile", STARTED)
def test_an_image_holds_all_that_its_processes_import(dockerfile: str, tmp_path: Path) -> None:
    copied(dockerfile, tmp_path)
    without = "sys.modules['torch'] = None; " if dockerfile == "Dockerfile.api" else ""
    lines = f"import sys, importlib; {without}[importlib.import_module(name) for name in {STARTED[dockerfile]!r}]"
    where = "; print(sys.modules['training_core'].__file__)"
    done = subprocess.run(
        [sys.executable, "-c", lines + where], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "training_core/__init__.py"
