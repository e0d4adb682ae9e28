"""What each project may read on this host: the worker's own settings for all, or what the operator's file says.

[projects.vision]                      # TOML, or the same as JSON
data_roots = ["/data/vision"]          # in place of TRAINYARD_DATA_ROOTS
allowed_uris = ["s3://vision/"]        # in place of TRAINYARD_ALLOWED_URIS; an empty list allows none
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.settings import Settings

NO_URIS = ["file://"]  # the list is about all schemes but this one: roots say what it may read


class ProjectAccess(BaseModel):
    """What is left out is as for all."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    data_roots: list[Path] | None = None
    allowed_uris: list[str] | None = None

    @field_validator("data_roots")
    @classmethod
    def _absolute(cls, roots: list[Path] | None) -> list[Path] | None:
        if roots is not None and not all(root.is_absolute() for root in roots):
            raise ValueError("a root is an absolute path")
        return roots


class AccessFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    projects: dict[str, ProjectAccess] = Field(default_factory=dict)


class Access:
    """Read once, when the worker starts."""

    def __init__(self, settings: Settings) -> None:
        """Ends the process with one line where the file cannot be used."""
        self._roots, self._uris = settings.data_roots, settings.allowed_uris
        self._projects = _load(settings.access_file).projects if settings.access_file is not None else {}

    def data_roots(self, project: str) -> list[Path]:
        own = self._projects.get(project)
        return self._roots if own is None or own.data_roots is None else own.data_roots

    def allowed_uris(self, project: str) -> list[str]:
        own = self._projects.get(project)
        return self._uris if own is None or own.allowed_uris is None else own.allowed_uris or NO_URIS

    def readable(self) -> dict[str, list[str]]:
        """The roots, by the names of the projects that have their own, and by `*` for all others."""
        own = {name: project.data_roots for name, project in self._projects.items() if project.data_roots is not None}
        return {name: [os.path.abspath(root) for root in roots] for name, roots in {"*": self._roots, **own}.items()}

    def is_own(self, project: str) -> bool:
        """Whether the project reads by rules of its own, so that what it prepared is nobody else's."""
        return project in self._projects


def _load(file: Path) -> AccessFile:
    try:
        content = file.read_text()
        document = tomllib.loads(content) if file.suffix == ".toml" else json.loads(content)
        return AccessFile.model_validate(document)
    except OSError as problem:
        raise SystemExit(f"TRAINYARD_ACCESS_FILE: {file} cannot be read: {problem.strerror}") from None
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SystemExit(f"TRAINYARD_ACCESS_FILE: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    except ValueError:
        raise SystemExit("TRAINYARD_ACCESS_FILE: it is neither TOML (by its name, *.toml) nor JSON") from None
