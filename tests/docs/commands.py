"""The commands of a page, as a reader would paste them: fenced blocks of a language that can be run, in their order."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = {"bash", "sh"}
PROGRAMS = {"python": "python -", "javascript": "node --input-type=module -"}
CURL = 'curl() { command curl --fail-with-body "$@"; }'  # an error status is a failure here


class Command(NamedTuple):
    """`text` is shell, whatever the language of its block was."""

    language: str
    text: str


def of_page(markdown: str) -> list[Command]:
    return [command for language, body in FENCE.findall(markdown) for command in _of_block(language, body)]


def _of_block(language: str, body: str) -> Iterator[Command]:
    if language == "console":
        yield from (Command(language, text) for text in _prompts(body))
    elif language in SHELL:
        yield Command(language, body)
    elif language in PROGRAMS:
        yield Command(language, f"{PROGRAMS[language]} <<'END-OF-BLOCK'\n{body}END-OF-BLOCK")


def _prompts(body: str) -> Iterator[str]:
    """What follows each `$ `, with the lines that bash needs to see it complete; the others are output."""
    pending = ""
    for line in body.splitlines():
        if not pending and not line.startswith("$ "):
            continue
        pending += (line[2:] if not pending else line) + "\n"
        if not pending.rstrip("\n").endswith("\\") and _complete(pending):
            yield pending
            pending = ""
    assert not pending, f"a command without an end: {pending}"


def _complete(text: str) -> bool:
    return subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).returncode == 0


def script(commands: list[Command]) -> str:
    """One shell for all of them, which ends at the first that fails and names it."""
    lines = ["set -eEuo pipefail", CURL, "trap 'echo \"FAILED: $BASH_COMMAND\" >&2' ERR"]
    for number, command in enumerate(commands):
        lines += [f"echo '--- command {number}: {_title(command)}'", command.text]
    return "\n".join(lines) + "\n"


def _title(command: Command) -> str:
    return re.sub(r"[^\w ./:=-]+", " ", command.text.strip().splitlines()[0])[:100]
