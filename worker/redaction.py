"""What a client may not read of this host: its own folders. Each report passes here on its way to the book.

A path below one of them is told from the folder on: `<cache>/v1/pixels-0.bin`. What stands in the client's own spec is
left as it is: an error about `file:///data/pets` should name it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from training_core.contract.spec import JobSpec
from worker.settings import Settings

METRIC, BEFORE_KIND = b'"kind":"metric"', 80
LEAST_CHARACTERS = 4  # "/", "/a": nothing that tells of a host, and part of many a word


def places_of(settings: Settings) -> dict[str, str]:
    """The folders of this host and the word that stands for each, under every name that they have."""
    named: list[tuple[str, Path | str | None]] = [
        ("store", settings.store), ("store", settings.store.removeprefix("file://")), ("cache", settings.cache_dir),
        ("work", settings.work_dir), ("credentials", settings.credentials_file),
        *(("data", root) for root in settings.data_roots),
        ("trainyard", Path(__file__).parents[1]), ("weights", os.environ.get("TORCH_HOME")),
        *(("python", path) for path in (sys.prefix, sys.base_prefix, *map(sysconfig.get_path, ("stdlib", "purelib")))),
        ("home", Path.home()), ("tmp", tempfile.gettempdir()), ("folder", Path.cwd()),
    ]  # fmt: skip
    found: dict[str, str] = {}
    for word, place in named:
        for name in _names(place):
            found.setdefault(name, f"<{word}>")
    return found


def _names(place: Path | str | None) -> Iterator[str]:
    """As it was given, absolute, and without links; an address of an object store has one name."""
    if place is None:
        return
    text = str(place).rstrip("/")
    names = {text} if "://" in text else {text, str(Path(text).absolute()), str(Path(text).resolve())}
    yield from (name for name in names if len(name) >= LEAST_CHARACTERS and ("://" in name or name.startswith("/")))


class Redaction:
    """Of the reports of one attempt; `spec` is what the client said itself."""

    def __init__(self, places: Mapping[str, str], spec: JobSpec) -> None:
        own = {path: path for path in _paths_in(spec.model_dump(mode="json"))}
        words = {_in_json(name): _in_json(word) for name, word in {**places, **own}.items()}
        self._words, self._hidden = words, [_in_json(name) for name in places]
        longest_first = sorted(words, key=len, reverse=True)
        self._pattern = re.compile(rb"(?<![\w.-])(?:" + b"|".join(map(re.escape, longest_first)) + rb")(?![\w.-])")

    def __call__(self, line: bytes) -> bytes:
        """One report, a line of JSON; most are numbers or name no folder, and cost a look."""
        if METRIC in line[:BEFORE_KIND] or not any(name in line for name in self._hidden):
            return line
        return self._pattern.sub(lambda found: self._words[found[0]], line)


def _in_json(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def _paths_in(value: Any) -> Iterable[str]:
    """The absolute paths that a spec names, bare or in an address (`zip://::file:///data/pets.zip`)."""
    if isinstance(value, dict):
        return [path for one in value.values() for path in _paths_in(one)]
    if isinstance(value, list):
        return [path for one in value for path in _paths_in(one)]
    if not isinstance(value, str):
        return []
    bare = [part.partition("://")[2] if "://" in part else part for part in value.split("::")]
    return [path.rstrip("/") for path in bare if path.startswith("/") and len(path) >= LEAST_CHARACTERS]
