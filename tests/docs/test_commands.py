"""Every command of README and docs runs, from the text itself, in order, in a fresh copy of the checkout.

One service (`make up`, from the README) serves all pages; a page that needs it says `source .trainyard/up/env`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ports import free_port
from tests.docs.commands import Command, of_page, script

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
PAGE_SECONDS = 150
LEFT_OUT = {
    "make test": "this test is part of it",
    "docker": "tests/e2e/test_compose.py runs the containers where there is a Docker",
    "export KEY=$(docker": "the same",
    "VALKEY_BIND": "needs a second host",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What `git clone` of this state would give, with the environment that is there already."""
    folder = tmp_path_factory.mktemp("newcomer") / "trainyard"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    (folder / ".venv").unlink(missing_ok=True)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    yield folder
    subprocess.run(["make", "down"], cwd=folder, env=_environment(0), capture_output=True, check=True, timeout=90)


def _environment(port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINYARD_", "MAKE", "MFLAGS"))}
    path = f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "TRAINYARD_PORT": str(port)}


@pytest.mark.timeout(PAGE_SECONDS + 30)
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_in_order(page: str, checkout: Path) -> None:
    commands = [command for command in of_page((ROOT / page).read_text()) if _runs_here(command)]
    if not commands:
        pytest.skip("no commands on this page")
    done = subprocess.run(
        ["bash", "-s"], input=script(commands), cwd=checkout, env=_environment(free_port()),
        capture_output=True, text=True, check=False, timeout=PAGE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"


def _runs_here(command: Command) -> bool:
    if command.language == "javascript" and shutil.which("node") is None:
        return False
    return not any(command.text.lstrip().startswith(beginning) for beginning in LEFT_OUT)
