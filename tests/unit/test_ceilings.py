"""Files and functions stay small: what grows over the ceiling is split by noun."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "training_core", "local")
FILE_LINES, USUAL_FILE_LINES, FUNCTION_LINES, FILES_AT_THE_ROOT = 400, 250, 60, 8


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_no_file_is_over_its_ceiling_and_nine_of_ten_are_far_below() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files()}
    assert {name: count for name, count in lines.items() if count > FILE_LINES} == {}
    assert sum(count <= USUAL_FILE_LINES for count in lines.values()) >= 0.9 * len(lines)


def test_no_function_is_over_its_ceiling() -> None:
    assert {name: count for path in files() for name, count in functions(path) if count > FUNCTION_LINES} == {}


@pytest.mark.parametrize("package", ["training_core"])
def test_few_files_lie_at_the_root_of_a_package_of_rooms(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= FILES_AT_THE_ROOT
