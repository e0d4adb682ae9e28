"""`python docs/settings_reference.py` writes docs/settings.md from the classes that read the settings."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from api.settings import Settings as ControlPlane
from worker.settings import Settings as Worker

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Environment variables, read once when a process starts. A misspelt `TRAINYARD_…` variable or a bad value ends the
process with one line that names it. `python -m api.settings check` and `python -m worker.settings check` print what
would be used, without secrets. `make docs` writes this page from the code that reads them.
"""
PARTS = {"Control plane (api, control, migrations, keys)": ControlPlane, "Worker": Worker}


def page() -> str:
    tables = [
        f"## {title}\n\n| variable | default | what it is |\n|---|---|---|\n{_rows(kind)}"
        for title, kind in PARTS.items()
    ]
    return "\n".join([HEAD, *tables])


def _rows(kind: type[BaseSettings]) -> str:
    return "".join(
        f"| `TRAINYARD_{name.upper()}` | {_default(field)} | {_cell(field.description or '')} |\n"
        for name, field in kind.model_fields.items()
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None:
        return ""
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    return "" if shown is None or shown == "" else f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
