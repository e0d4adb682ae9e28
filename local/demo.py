"""`python -m local demo`: starts everything, trains one real job through the HTTP API, shows it, stops everything."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys

from rich.console import Console

from local import server_home
from local.client import Client, Refused
from local.interruption import Interruption
from local.lock import AlreadyRuns, PidFile
from local.postgres import Missing
from local.processes import PR_SET_PDEATHSIG, Died, adopt_orphans, end_orphans
from local.result import print_failure, print_success
from local.screen import Screen
from local.service import HOW_TO_USE
from local.stack import ROOT, Stack
from local.story import Story

STATE = ROOT / ".trainyard" / "demo"
DATABASE = STATE / "databases" / "postgres"
EXAMPLE = ROOT / "examples" / "fashion-mnist.json"
EXIT_INTERRUPTED = 130
INTERRUPTED_PATIENCE_SECONDS = 2.0  # nobody will read the checkpoint that the worker would write now


def main() -> int:
    """The exit code: 0 trained, 1 failed, 130 interrupted. No process is left in any case."""
    interruption = Interruption()
    _end_with_our_parent()
    adopt_orphans()
    console = Console(highlight=False)
    stack: Stack | None = None
    screen = Screen(console)
    try:
        try:
            PidFile(STATE.with_suffix(".pid")).acquire()
            _forget_the_last_demo()
            stack = Stack(STATE, port=None, durable=False, say=screen.step)
            code = _run(stack, screen)
        finally:
            interruption.close(lambda: stack.kill() if stack else None)
    except KeyboardInterrupt:
        interruption.close(lambda: stack.kill() if stack else None)
        code = EXIT_INTERRUPTED
    except (Died, Missing, Refused, OSError) as problem:
        code = _complain(console, str(problem))
    except AlreadyRuns as other:
        return _complain(console, f"A demo already runs ({other}).")
    _stop(stack, console if code == EXIT_INTERRUPTED else None)
    return code


def _run(stack: Stack, screen: Screen) -> int:
    spec = json.loads(EXAMPLE.read_text())
    with screen:
        stack.start()
        screen.line(f"Databases, api, control and one worker are up at {stack.url}")
        with stack.client() as client:
            job_id = client.submit(spec)["id"]
            screen.line(f"POST /v1/jobs ({EXAMPLE.relative_to(ROOT)}) -> {job_id}")
            _follow(client, job_id, stack, screen)
            job = client.job(job_id)
            checkpoints = client.checkpoints(job_id)
    if job["status"] != "succeeded":
        print_failure(screen.console, job, stack.store)
        return 1
    best = next((one for one in checkpoints if one["id"] == (job["best"] or {}).get("checkpoint")), None)
    print_success(screen.console, job, best, stack.store)
    _print_next_steps(screen.console)
    return 0


def _follow(client: Client, job_id: str, stack: Stack, screen: Screen) -> None:
    story = Story()
    screen.show(story)
    for event, data in client.follow(job_id):
        if event == "idle":
            stack.check()
            continue
        for line in story.tell(event, data):
            screen.line(line)
        screen.show(story)


def _print_next_steps(console: Console) -> None:
    console.print("\n[bold]Next[/]  (the demo's services are being stopped; `make up` keeps them running)")
    console.print(
        "  make up                       the service at http://127.0.0.1:8000, every route at /docs\n"
        f"{HOW_TO_USE}"
        "  make down",
        markup=False,
        soft_wrap=True,
    )


def _forget_the_last_demo() -> None:
    server_home.remove(DATABASE)
    shutil.rmtree(STATE, ignore_errors=True)
    if STATE.exists():
        raise Missing(f"{STATE} holds files of another user; remove it and start again")


def _end_with_our_parent() -> None:
    """A `make` that is killed cannot tell us; the kernel does (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _stop(stack: Stack | None, console: Console | None) -> None:
    if console:
        console.print("Stopping …")
    if stack:
        stack.stop(patience_seconds=INTERRUPTED_PATIENCE_SECONDS if console else None)
        server_home.remove(DATABASE)  # the checkpoint and the logs stay until the next demo
    end_orphans()


def _complain(console: Console, problem: str) -> int:
    try:
        console.print("[bold red]The demo failed:[/] ", end="")
        console.print(problem, markup=False, soft_wrap=True)
    except BrokenPipeError:  # nobody reads any more, as in `make demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
