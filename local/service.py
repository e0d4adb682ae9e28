"""`python -m local up` and `down`: the same services in the background, until they are told to stop.

`up` starts a keeper, which starts and watches the services; its lines come through a pipe until it closes that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from local.client import Refused
from local.interruption import Interruption
from local.lock import AlreadyRuns, PidFile
from local.ports import free_port, is_free
from local.postgres import Missing
from local.processes import Died, adopt_orphans, end_orphans
from local.stack import ROOT, Stack, data_roots

STATE = ROOT / ".trainyard" / "up"
PID_FILE = PidFile(STATE / "pid")
KEEPER_LOG = STATE / "keeper.log"
URL_FILE = STATE / "url"
ROOTS_FILE = STATE / "data_roots"
PORT = 8000
READY_LINE = "ready"
WATCH_SECONDS = 0.5
STOP_SECONDS = 60.0


HOW_TO_USE = (
    "  source .trainyard/up/env      sets $URL and $KEY\n"
    '  curl -s -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\\n'
    "       -d @examples/fashion-mnist.json $URL/v1/jobs\n"
    '  curl -s -H "Authorization: Bearer $KEY" $URL/v1/jobs\n'
    '  curl -sN -H "Authorization: Bearer $KEY" $URL/v1/jobs/JOB_ID/stream\n'
)


def up() -> int:
    """Returns when the service is ready, 0, or could not be started, 1."""
    try:
        roots = data_roots()
    except Missing as problem:
        print(problem)
        return 1
    if holder := PID_FILE.holder():
        return _already_runs(holder, roots)
    interruption = Interruption()
    STATE.mkdir(mode=0o711, parents=True, exist_ok=True)
    with KEEPER_LOG.open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "local", "keep"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        if _echo_until_ready(keeper):
            _print_how_to_use()
            return 0
        interruption.close(keeper.kill)
        keeper.wait()
        print(f"Trainyard did not start; see {KEEPER_LOG}")
        return 1
    except KeyboardInterrupt:
        interruption.close(keeper.terminate)
        keeper.terminate()
        keeper.wait()
        return 130


def _already_runs(holder: int, roots: str) -> int:
    """Whoever asks for folders that the running worker may not read has to start it anew: 1."""
    print(f"Trainyard already runs (process {holder}).")
    known = ROOTS_FILE.read_text().split(os.pathsep) if ROOTS_FILE.exists() else []
    if missing := [folder for folder in roots.split(os.pathsep) if folder not in known]:
        print(f"Its worker may not read {', '.join(missing)}: `make down`, then the same command again.")
        return 1
    _print_how_to_use()
    return 0


def down() -> int:
    holder = PID_FILE.holder()
    if holder is None:
        print("Trainyard does not run.")
        return 0
    os.kill(holder, signal.SIGTERM)
    if not PID_FILE.wait_until_free(STOP_SECONDS):
        os.kill(holder, signal.SIGKILL)  # takes everything it started along
        PID_FILE.wait_until_free(STOP_SECONDS)
    print("Trainyard is stopped. Jobs, metrics and checkpoints stay in .trainyard/up.")
    return 0


def keep() -> int:
    """The keeper: starts the services, watches them, and stops all when told to or when one dies."""
    interruption = Interruption()
    adopt_orphans()
    try:
        PID_FILE.acquire()
    except AlreadyRuns as other:
        print(f"Trainyard already runs ({other}).", flush=True)
        return 1
    stack = Stack(STATE, port=_port(), durable=True, say=lambda text: print(f"starting: {text}", flush=True))
    code = 0
    try:
        try:
            stack.start()
            URL_FILE.write_text(stack.url + "\n")
            ROOTS_FILE.write_text(data_roots())
            print(READY_LINE, flush=True)
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            while True:
                time.sleep(WATCH_SECONDS)
                stack.check()
        finally:
            interruption.close(stack.kill)
    except KeyboardInterrupt:
        interruption.close(stack.kill)
    except (Died, Missing, Refused, OSError) as problem:
        print(problem, flush=True)
        code = 1
    stack.stop()
    end_orphans()
    URL_FILE.unlink(missing_ok=True)
    return code


def _echo_until_ready(keeper: subprocess.Popen[str]) -> bool:
    assert keeper.stdout is not None
    for line in keeper.stdout:
        if line.strip() == READY_LINE:
            return True
        print(line, end="", flush=True)
    return False


def _port() -> int:
    """The wish in TRAINYARD_PORT, else 8000, else any that is free."""
    if wish := os.environ.get("TRAINYARD_PORT"):
        return int(wish)
    return PORT if is_free(PORT) else free_port()


def _print_how_to_use() -> None:
    url = URL_FILE.read_text().strip() if URL_FILE.exists() else "(not ready yet)"
    print(
        f"\nTrainyard is at {url}   (routes: {url}/docs)\n"
        f"{HOW_TO_USE}"
        "  make up DATA=/my/pictures     after `make down`: lets jobs read that folder, too\n"
        "  make down"
    )
