"""Where a secret could be found after it was used: everything that the service wrote, sent or said."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

ENCODED = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
MOST_ENCODED_BYTES = 2**16  # longer ones are pictures and weights


def found_in(name: str, content: bytes, canaries: Mapping[str, str]) -> list[str]:
    """Each canary that stands in `content`, as it is, or as hexadecimal, or in base64, as messages of a queue are."""
    forms = [content]
    if len(content) < MOST_ENCODED_BYTES:
        forms += _decoded(content)
    return [
        f"{what} is in {name}"
        for what, value in canaries.items()
        if any(value.encode() in form or value.encode().hex().encode() in form for form in forms)
    ]


def _decoded(content: bytes) -> Iterator[bytes]:
    for part in ENCODED.findall(content):
        try:
            yield base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_" if b"-" in part else None)
        except binascii.Error:
            continue


def of_database(url: str) -> Iterator[tuple[str, bytes]]:
    """Every row of every table as text; bytes are hexadecimal there."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        names = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
        for (table,) in connection.execute(f"{names} WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"):
            rows = connection.execute(f"SELECT one::text FROM {table} AS one").fetchall()  # type: ignore[arg-type]
            yield f"the table {table}", "\n".join(row[0] for row in rows).encode()


def of_files(*folders: Path, without: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and not any(path.is_relative_to(one) for one in without):
                yield str(path), str(path).encode() + path.read_bytes()


def of_processes(processes: list[psutil.Process]) -> Iterator[tuple[str, bytes]]:
    for process in processes:
        for file in ("environ", "cmdline"):
            yield f"{file} of {process.pid}", Path(f"/proc/{process.pid}/{file}").read_bytes()


def of_memory(process: psutil.Process) -> Iterator[tuple[str, bytes]]:
    """Whatever the process could write to."""
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(one, 16) for one in span.split("-"))
                try:
                    memory.seek(start)
                    content = memory.read(end - start)
                except OSError:
                    continue
                yield f"memory of {process.pid} at {span} ({line.split()[-1]})", content


class Overheard:
    """Every command that Redis takes while the block runs: what was there only for a moment counts as well."""

    def __init__(self, url: str) -> None:
        self.commands: list[bytes] = []
        self._client = redis.Redis.from_url(url)
        self._ready, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._ready.set()
            for command in monitor.listen():
                self.commands.append(str(command["command"]).encode())
                if self._stopping and b"the last one" in self.commands[-1]:
                    return

    def __enter__(self) -> Overheard:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stopping = True
        self._client.echo("the last one")
        self._thread.join(10)
        self._client.close()
