"""How a process of ours treats others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

YIELD = """
import os
from pathlib import Path
from training_core.processes.process import yield_to_others
yield_to_others(5)
session = Path("/proc/self/autogroup")
group = session.read_text().split() if session.exists() else []  # empty: a process that no session has ever grouped
print(os.nice(0), group[-1] if group else "none")
"""


def test_niceness_reaches_beyond_a_session_of_its_own() -> None:
    before = os.nice(0)
    done = subprocess.run(
        [sys.executable, "-c", YIELD], start_new_session=True, capture_output=True, text=True, check=True
    )
    niceness, group = done.stdout.split()
    assert niceness == str(min(19, before + 5))
    assert group == ("5" if Path("/proc/self/autogroup").exists() else "none")


def test_the_session_of_who_called_us_stays_as_it_is() -> None:
    session = Path("/proc/self/autogroup")
    before = session.read_text() if session.exists() else ""
    subprocess.run([sys.executable, "-c", YIELD], capture_output=True, check=True)
    assert (session.read_text() if session.exists() else "") == before


THREADS = """
import os, threading
from pathlib import Path
from training_core.processes.process import yield_to_others
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
yield_to_others(5)
print(*{os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path("/proc/self/task").iterdir()})
end.set()
"""


def test_threads_that_run_already_yield_too() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(min(19, os.nice(0) + 5))]
