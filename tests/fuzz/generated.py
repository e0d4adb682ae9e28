"""What schemathesis makes of the OpenAPI document: positive, negative, and stateful along inferred links."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.service import Target

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "allow_header_conformance", "unsupported_method",
)  # fmt: skip
# An endless answer, and two that would end the key by which all of this is asked.
LEFT_OUT = ("events.stream", "api_keys.revoke", "api_keys.rotate")


class Generated(NamedTuple):
    cases: int
    failed: bool
    text: str


def run(target: Target, examples: int, seed: int, seconds: int) -> Generated:
    """At most so many `examples` an operation and phase, and so many seconds in all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run",
            f"{target.url}/openapi.json", "--header", f"Authorization: Bearer {target.key}",
            "--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--checks", ",".join(CHECKS),
            "--max-examples", str(examples), "--seed", str(seed), "--request-timeout", "10", "--max-time", str(seconds),
            "--workers", "1", "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off",
            "--no-color",
            *(part for one in LEFT_OUT for part in ("--exclude-operation-id", one)),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=Path(folder), capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    counted = re.search(r"([\d,]+) generated", text)
    return Generated(int(counted[1].replace(",", "")) if counted else 0, done.returncode != 0, text)
