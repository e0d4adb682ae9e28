"""Every route and verb against every kind of key, generated from the application's routes: none is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from sqlalchemy import update

from api.app import create_app
from api.book import keys as book_keys
from api.book.database import Sessions
from api.book.models import ApiKey
from api.book.scopes import ROLES, Scope, granted
from api.settings import Settings
from tests.integration.access_objects import Ids, World
from tests.integration.access_table import ANY_KEY, HOW_TO_ADD, PUBLIC, TABLE, Row

# Pages and their files, which are the same for everybody.
PUBLIC_FOLDERS = {"/docs"}
GARBAGE = ("", "Bearer", "Basic dXNlcjpwYXNz", "Bearer ty_x", f"Bearer ty_{'0' * 26}_{'a' * 43}")


@dataclass(frozen=True)
class Route:
    verb: str
    path: str

    @property
    def row(self) -> Row:
        return TABLE[self.name]

    @property
    def name(self) -> str:
        return f"{'GET' if self.verb == 'HEAD' else self.verb} {self.path}"

    @property
    def changes(self) -> bool:
        return self.verb not in ("GET", "HEAD")


@pytest.fixture(scope="module")
def routes() -> list[Route]:
    """Of an application that has no database to ask."""
    nowhere = Settings(database_url=SecretStr("postgresql+psycopg://a:b@127.0.0.1:1/c"))
    found = []
    for one in iter_route_contexts(create_app(nowhere).routes):
        methods = getattr(one, "methods", None)
        assert methods or one.path in PUBLIC_FOLDERS, f"{one.path} is neither a route with verbs nor a public folder"
        found += [Route(verb, one.path) for verb in sorted(methods or ()) if verb != "OPTIONS"]
    return found


def test_every_route_has_its_row(routes: list[Route]) -> None:
    known = {route.name for route in routes}
    missing, stale = sorted(known - set(TABLE)), sorted(set(TABLE) - known)
    assert not missing, f"no row says who may use {', '.join(missing)}.\n{HOW_TO_ADD}"
    assert not stale, f"there is no such route any more: {', '.join(stale)}"
    assert len(known) > 40


def test_openapi_says_the_scope_of_every_route(routes: list[Route]) -> None:
    document = create_app(Settings(database_url=SecretStr("postgresql+psycopg://a:b@127.0.0.1:1/c"))).openapi()
    for route in routes:
        if route.verb == "HEAD" or route.path in ("/openapi.json", "/docs"):
            continue
        security = document["paths"][route.path][route.verb.lower()].get("security", ())
        asked = [list(one.values()) for one in security if "StreamToken" not in one]  # which stands for a key
        scope = route.row.scope
        assert asked == {PUBLIC: [], ANY_KEY: [[[]]]}.get(scope, [[[scope]]]), f"{route.name} asks {scope} in {asked}"


@dataclass
class Doors:
    """Tries routes, and collects what a key was answered that it should not have been."""

    client: httpx2.Client
    world: World
    faults: list[str] = field(default_factory=list)
    kept: dict[Callable[[World], Ids], Ids] = field(default_factory=dict)

    def ask(self, route: Route, authorization: str | None, *, fresh: bool) -> httpx2.Response:
        row = route.row
        ids = row.object(self.world) if row.object is not None and fresh else self._ids(row.object)
        body = row.body(self.world) if callable(row.body) else row.body
        headers = {} if authorization is None else {"Authorization": authorization}
        return self.client.request(route.verb, route.path.format(**ids) + row.query, json=body, headers=headers)

    def expect(self, route: Route, who: str, authorization: str | None, *answers: int) -> httpx2.Response:
        """One of these statuses; and the audit log has what was done, or nothing where nothing was."""
        before = self.world.changes()
        response = self.ask(route, authorization, fresh=route.changes and min(answers) < 400)
        if response.status_code not in answers:
            self.faults.append(f"{route.verb} {route.path} with {who}: {response.status_code}, not {answers}")
        changes = self.world.changes()[len(before) :]
        done = route.row.audit if response.status_code < 400 and route.changes else None
        actions = {action for action, _, _ in changes}
        if (done not in actions) if done is not None else actions:
            self.faults.append(f"{route.verb} {route.path} with {who}: the audit log has {changes}, not {done}")
        if any(address != "127.0.0.1" or key is None for _, key, address in changes):
            self.faults.append(f"{route.verb} {route.path} with {who}: no key or address in {changes}")
        return response

    def _ids(self, make: Callable[[World], Ids] | None) -> Ids:
        """Of an object that nobody changes."""
        if make is None:
            return {}
        if make not in self.kept:
            self.kept[make] = make(self.world)
        return self.kept[make]

    def show(self) -> None:
        if self.faults:
            pytest.fail("\n".join(self.faults))


@pytest.fixture
def doors(api_url: str, sessions: Sessions, keys: Callable[..., str], tmp_path: Path) -> Iterator[Doors]:
    keys("default")
    with sessions() as session:
        project = book_keys.project_named(session, "default")
        assert project is not None
    with httpx2.Client(base_url=api_url, timeout=20) as client:
        yield Doors(client, World(sessions, tmp_path, project.id))


def guarded(routes: list[Route]) -> list[Route]:
    return [route for route in routes if route.row.scope != PUBLIC]


def ended(sessions: Sessions, text: str, **how: datetime) -> str:
    with sessions.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == f"key_{text.split('_')[1]}").values(**how))
    return text


def test_nobody_comes_in_without_a_valid_key(
    doors: Doors, routes: list[Route], keys: Callable[..., str], sessions: Sessions
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    everything = list(Scope)
    strangers = {"an expired key": f"Bearer {ended(sessions, keys('default', everything), expires_at=past)}"}
    strangers["a revoked key"] = f"Bearer {ended(sessions, keys('default', everything), revoked_at=past)}"
    strangers |= {f"garbage ({text[:14]})": text for text in GARBAGE}
    for route in guarded(routes):
        for who, authorization in {"no key": None, **strangers}.items():
            response = doors.expect(route, who, authorization, 401)
            assert "www-authenticate" in response.headers
    doors.show()


def test_a_key_without_the_scope_is_told_which_one(doors: Doors, routes: list[Route], keys: Callable[..., str]) -> None:
    without: dict[str, str] = {}
    for route in guarded(routes):
        scope = route.row.scope
        if scope == ANY_KEY:
            continue
        others = [one for one in Scope if one not in (scope, Scope.ADMIN)]
        key = without.setdefault(scope, f"Bearer {keys('default', others)}")
        response = doors.expect(route, f"every scope but {scope}", key, 403)
        if response.status_code == 403 and route.verb != "HEAD":
            problem = response.json()
            assert (problem["code"], problem["required_scope"]) == ("forbidden_scope", scope)
    doors.show()


def test_another_projects_objects_do_not_exist(doors: Doors, routes: list[Route], keys: Callable[..., str]) -> None:
    key = f"Bearer {keys('neighbours', list(Scope))}"
    for route in guarded(routes):
        if route.row.object is not None and not route.row.each_its_own:
            doors.expect(route, "another project's key", key, 404)
            continue
        response = doors.expect(route, "another project's key", key, *route.row.answers)
        seen = sorted(one for one in doors.world.made if one in response.text)
        assert not seen, f"{route.name} shows another project {seen}"
    doors.show()


def test_a_role_opens_what_its_scopes_say(doors: Doors, routes: list[Route], keys: Callable[..., str]) -> None:
    for role, scopes in ROLES.items():
        key, allowed = f"Bearer {keys('default', scopes)}", granted(scopes)
        for route in guarded(routes):
            may = route.row.scope == ANY_KEY or route.row.scope in allowed
            doors.expect(route, f"the role {role}", key, *(route.row.answers if may else (403,)))
    doors.show()


def test_what_is_public_needs_no_key(doors: Doors, routes: list[Route]) -> None:
    for route in routes:
        if route.row.scope == PUBLIC:
            doors.expect(route, "no key", None, 200, 307)
    doors.show()
