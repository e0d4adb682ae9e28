"""A process that was handed credentials keeps them to itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from training_core.processes.handover import DESCRIPTOR, held_out

CANARY = {"key": "AKIACANARY", "secret": "canary-secret", "options": {"token": "{\n  canary-in-lines\n}"}}
PROGRAM = """
import ctypes, os, resource, sys, traceback
from training_core.contract.errors import Failed
from training_core.contract.outcome import outcome_of
from training_core.processes.hiding import handed_over, hiding
from training_core.processes.handover import DESCRIPTOR, taken
from training_core.contract.messages import Reason
credentials = handed_over()
assert credentials.secret == "canary-secret"
assert taken() is None and DESCRIPTOR not in os.environ
assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0, "PR_GET_DUMPABLE"
print("a library says", credentials.secret)
try:
    raise Failed(Reason.DATASET_FORBIDDEN, "refused: AKIACANARY", "not canary-secret")
except Failed as failed:
    traceback.print_exception(failed)
    print(hiding(outcome_of(failed, phase="preparing", step=0, rank=None), credentials).model_dump_json())
print("  canary-in-lines", file=sys.stderr)
"""


def test_neither_its_memory_nor_its_words_show_them() -> None:
    with held_out(json.dumps(CANARY).encode()) as descriptor:
        assert descriptor is not None
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, DESCRIPTOR: str(descriptor)}, pass_fds=[descriptor],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "canary" not in said.lower().replace("credentials.secret", "")
    assert "a library says ***" in said
    assert '"message":"refused: ***","hint":"not ***"' in said
