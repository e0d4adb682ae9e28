"""`python -m api.keys create|ensure|list|rotate|revoke`: API keys for whoever reaches the database."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from api import auth
from api.book import audit, keys
from api.book.database import make_engine, make_sessions
from api.book.models import ApiKey, Project
from api.book.scopes import ROLES, Scope
from api.errors import Problem
from api.settings import Settings
from training_core.contract.settings import load


class Refused(Exception):
    """What was asked cannot be done; the text says why, and the way out."""


def create_key(
    session: Session, project_name: str, name: str, scopes: Collection[str] = ROLES["admin"],
    expires_at: datetime | None = None,
) -> str:  # fmt: skip
    """The text of a new key, whose project is made where there is none of that name; raises `keys.NameTaken`."""
    project = _project(session, project_name)
    key, text = keys.make(session, project.id, name, scopes, expires_at)
    audit.record(session, audit.CommandLine(project.id), "api_keys.create", key.id, {"scopes": sorted(scopes)})
    return text


def create(session: Session, asked: argparse.Namespace) -> str:
    try:
        return create_key(session, asked.project, asked.name, _scopes(asked), _expiry(asked))
    except keys.NameTaken:
        raise Refused(
            f"The project {asked.project} has a key named {asked.name}, and it stays as it is. `create --name` takes "
            "another name, `rotate` gives this one a new text with an overlap, `revoke` ends it, and `ensure --file` "
            "makes a key only where there is no valid one in that file"
        ) from None


def ensure(session: Session, asked: argparse.Namespace) -> str:
    """The key in the file while it is valid; else a new one, under the first free of `name`, `name-2`, `name-3` …"""
    text = asked.file.read_text().strip() if asked.file.exists() else ""
    if _valid(session, text):
        return text
    number, name = 1, asked.name
    while True:
        try:
            text = create_key(session, asked.project, name, _scopes(asked), _expiry(asked))
            break
        except keys.NameTaken:
            number += 1
            name = f"{asked.name}-{number}"
    unfinished = asked.file.with_name(f".{asked.file.name}.unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text + "\n")
    unfinished.replace(asked.file)
    return text


def list_all(session: Session, asked: argparse.Namespace) -> str:
    project, lines, after = _known_project(session, asked.project), [], None
    while page := keys.list_keys(session, project.id, after=after, limit=100):
        lines += [_line(key) for key in page[:100]]
        after = page[:100][-1].id
    return "\n".join(lines) or f"The project {project.name} has no keys"


def rotate(session: Session, asked: argparse.Namespace) -> str:
    key = _key(session, asked)
    until = datetime.now(UTC) + timedelta(hours=asked.overlap_hours)
    try:
        new, text = keys.rotate(session, key, until, _expiry(asked))
    except keys.NotInUse:
        raise Refused(f"The key {key.id} was revoked or replaced; rotate the one that has the name now") from None
    about = {"replaced_by": new.id, "valid_until": _time(key.expires_at)}
    audit.record(session, audit.CommandLine(key.project_id), "api_keys.rotate", key.id, about)
    return text


def revoke(session: Session, asked: argparse.Namespace) -> str:
    key = _key(session, asked)
    if keys.revoke(session, key):
        audit.record(session, audit.CommandLine(key.project_id), "api_keys.revoke", key.id)
    return f"{key.id} is revoked"


def _project(session: Session, name: str) -> Project:
    project = keys.project_named(session, name)
    if project is None:
        project = keys.make_project(session, name)
        audit.record(session, audit.CommandLine(project.id), "projects.create", project.id)
    return project


def _known_project(session: Session, name: str) -> Project:
    project = keys.project_named(session, name)
    if project is None:
        raise Refused(f"There is no project named {name}; `create --project {name}` makes it with its first key")
    return project


def _key(session: Session, asked: argparse.Namespace) -> ApiKey:
    project = _known_project(session, asked.project)
    key = keys.key_of(session, project.id, asked.key) or keys.key_named(session, project.id, asked.key)
    if key is None:
        raise Refused(f"The project {project.name} has no such key in use; `list` shows names and ids")
    return key


def _valid(session: Session, text: str) -> bool:
    try:
        key_id, secret = auth.parse(f"Bearer {text}")
    except Problem:
        return False
    key = auth.known(session, key_id)
    return auth.matches(key, secret) and key is not None and key.ended is None


def _scopes(asked: argparse.Namespace) -> Collection[str]:
    scopes: Collection[str] = asked.scopes or ROLES[asked.role]
    return scopes


def _expiry(asked: argparse.Namespace) -> datetime | None:
    return None if asked.expires_in_days is None else datetime.now(UTC) + timedelta(days=asked.expires_in_days)


def _line(key: ApiKey) -> str:
    ended = "revoked" if key.revoked_at else f"valid until {_time(key.expires_at)}"
    used = f"last used {_time(key.last_used_at)}" if key.last_used_at else "never used"
    return f"{key.id}  {key.name}  {','.join(key.scopes)}  {ended}  {used}"


def _time(moment: datetime | None) -> str:
    return "revoked" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def _list_of_scopes(text: str) -> list[Scope]:
    try:
        return [Scope(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"scopes are {', '.join(Scope)}, with commas between") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.keys", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, does: Callable[[Session, argparse.Namespace], str], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(does=does)
        added.add_argument("--project", default="default", help="its name")
        return added

    for name, does, about in (
        ("create", create, "print a new key, once; a name that exists is refused and nothing is revoked"),
        ("ensure", ensure, "print the key in --file, after making it where there is no valid one"),
    ):
        makes = command(name, does, about)
        makes.add_argument("--name", default="default")
        makes.add_argument("--role", choices=list(ROLES), default="admin")
        makes.add_argument("--scopes", type=_list_of_scopes, help="in place of a role, with commas between")
        makes.add_argument("--expires-in-days", type=float)
        if name == "ensure":
            makes.add_argument("--file", type=Path, required=True, help="only its owner may read it")
    command("list", list_all, "every key of a project, newest first")
    turns = command("rotate", rotate, "print a new key of the same name and scopes; the old one is valid for a while")
    turns.add_argument("key", help="its id or name")
    turns.add_argument("--overlap-hours", type=float, default=24.0, help="how long the old one is valid")
    turns.add_argument("--expires-in-days", type=float, help="of the new one")
    command("revoke", revoke, "end a key now, and the streams that run with it").add_argument("key", help="id or name")
    return parser


def main() -> None:
    asked = _parser().parse_args()
    engine = make_engine(load(Settings), "keys")
    try:
        with make_sessions(engine).begin() as session:
            said = asked.does(session, asked)
    except Refused as refused:
        sys.exit(str(refused))
    finally:
        engine.dispose()
    sys.stdout.write(said + "\n")


if __name__ == "__main__":
    main()
