"""A child that works apart: what it says arrives, and how it ends harms nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BEGINNING = "import os, signal, sys, time\nfrom training_core.processes.forked_call import lines_from_child\n"


def printed(code: str) -> str:
    """In a process of its own: only one without other threads may fork."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout + done.stderr


def test_lines_arrive_whole_and_in_their_order() -> None:
    code = "lines = lines_from_child(lambda say: [say('x' * 100_000 + str(n)) for n in range(5)], 30)\n"
    assert printed(code + "print([(len(line), line[-1]) for line in lines])").strip() == str(
        [(100_001, str(number)) for number in range(5)]
    )


def test_a_child_that_dies_leaves_what_it_said() -> None:
    code = "def work(say):\n  say('one')\n  os.kill(os.getpid(), signal.SIGKILL)\n"
    assert printed(code + "print(lines_from_child(work, 30))").strip() == "['one']"


def test_a_child_that_never_ends_is_killed_in_time() -> None:
    code = "def work(say):\n  say('one')\n  say(str(os.getpid()))\n  signal.pause()\n"
    code += (
        "began = time.monotonic()\nlines = lines_from_child(work, 0.3)\nprint(lines[0], time.monotonic() - began < 5)\n"
    )
    code += "try:\n  os.kill(int(lines[1]), 0)\nexcept ProcessLookupError:\n  print('gone')"
    assert printed(code).split() == ["one", "True", "gone"]


def test_an_error_is_printed_and_ends_the_child_alone() -> None:
    said = printed("def work(say):\n  raise ValueError('too bad')\nprint(lines_from_child(work, 30))")
    assert "[]" in said
    assert "ValueError: too bad" in said


def test_nothing_is_forked_beside_a_thread() -> None:
    code = "import threading\ngate = threading.Event()\nthread = threading.Thread(target=gate.wait)\nthread.start()\n"
    code += "print(lines_from_child(lambda say: say('one'), 30))\ngate.set()"
    assert printed(code).strip() == "[]"
