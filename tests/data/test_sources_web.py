"""Web servers, well and ill: retries, cuts, silence, redirects."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.opening import check, contents, open_uri, refused
from tests.data.servers import Site, serve
from training_core.contract.errors import Failed
from training_core.data.samples import Unreadable
from training_core.data.sources import http, retry
from training_core.data.sources.errors import HttpStatus

NAMES = ("cats/1.png", "cats/2.png", "dogs/1.png")
CSV = "path,label\n" + "".join(f"{name},{name[:4]}\n" for name in NAMES)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Images with a manifest, and the same images in a zip; pauses between attempts are short."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in NAMES:
            archive.writestr(name, name.encode() * 100)
    files = {f"/pets/{name}": name.encode() * 100 for name in NAMES}
    files |= {"/pets/list.csv": CSV.encode(), "/pets.zip": (tmp_path / "pets.zip").read_bytes()}
    with serve(Site(files)) as running:
        yield running


def opened(tmp_path: Path, site: Site, path: str, **changes: Any) -> dict[str, Any]:
    return contents(*open_uri(tmp_path, f"{site.url}{path}", allowed_uris=[site.url], **changes))


EVERYTHING = {name: name.encode() * 100 for name in NAMES}


@pytest.mark.parametrize("path", ["/pets/list.csv", "/pets.zip"])
def test_a_manifest_and_an_archive(tmp_path: Path, site: Site, path: str) -> None:
    assert opened(tmp_path, site, path) == EVERYTHING


def test_an_archive_of_a_server_without_ranges(tmp_path: Path, site: Site) -> None:
    site.ills["/pets.zip"] = "no ranges"
    assert opened(tmp_path, site, "/pets.zip") == EVERYTHING


def test_an_address_that_is_good_for_get_alone(tmp_path: Path, site: Site) -> None:
    site.files["/pets.zip?version=3"] = site.files["/pets.zip"]
    site.ills["/pets.zip?version=3"] = "no head"
    assert opened(tmp_path, site, "/pets.zip?version=3") == EVERYTHING


@pytest.mark.parametrize("ills", [[503, 503], ["cut", "reset"], [429], [500, "cut", 502, "reset", 504]])
def test_what_passes_is_tried_again(tmp_path: Path, site: Site, ills: list[object]) -> None:
    for path in ("/pets/list.csv", "/pets/cats/2.png"):
        site.ills[path] = [None, *ills]
    site.ills["/pets/list.csv"] = [None, None, *ills]
    assert opened(tmp_path, site, "/pets/list.csv") == EVERYTHING
    assert site.asked["GET /pets/cats/2.png"] == 1 + len(ills)


@pytest.mark.parametrize(
    ("ill", "reason", "asked"),
    [
        (403, "dataset_forbidden", 1),
        (401, "dataset_forbidden", 1),
        (503, "dataset_unreachable", retry.ATTEMPTS),
        ("cut", "dataset_unreachable", retry.ATTEMPTS),
        ("reset", "dataset_unreachable", retry.ATTEMPTS),
        (400, "dataset_unreachable", 1),
    ],
)
def test_what_lasts_ends_the_reading_with_a_reason(
    tmp_path: Path, site: Site, ill: object, reason: str, asked: int
) -> None:
    samples, reader = open_uri(tmp_path, f"{site.url}/pets/list.csv", allowed_uris=[site.url])
    site.ills["/pets/cats/2.png"] = ill
    with pytest.raises(Failed) as failure:
        contents(samples, reader)
    check(failure.value, reason, "list.csv")
    assert site.asked["GET /pets/cats/2.png"] == asked


def test_a_server_that_falls_silent(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_SECONDS", 0.05)
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    site.ills["/pets.zip"] = "silent"
    refused(tmp_path, f"{site.url}/pets.zip", "dataset_unreachable", "TimeoutError", allowed_uris=[site.url])
    assert site.asked["HEAD /pets.zip"] == 2


def test_a_server_that_sends_a_byte_now_and_then(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reader = open_uri(tmp_path, f"{site.url}/pets/list.csv", allowed_uris=[site.url])
    monkeypatch.setattr(http, "READ_SECONDS", 0.1)
    monkeypatch.setattr(http, "SLOWEST_BYTES_PER_SECOND", 10**6)
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    site.ills["/pets/cats/2.png"] = "drip"
    with pytest.raises(Failed) as failure:
        contents(samples, reader)
    check(failure.value, "dataset_unreachable", "TimeoutError")


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    url = "http://127.0.0.1:9/pets.zip"
    refused(tmp_path, url, "dataset_unreachable", url, allowed_uris=["http://127.0.0.1:9"])


def test_a_file_that_is_not_there(tmp_path: Path, site: Site) -> None:
    refused(tmp_path, f"{site.url}/none.zip", "dataset_unreachable", "there is nothing at", allowed_uris=[site.url])
    del site.files["/pets/cats/1.png"]
    found = opened(tmp_path, site, "/pets/list.csv")
    assert found["cats/1.png"] == Unreadable("there is no such file")


def test_files_that_change_or_vanish_while_they_are_read(tmp_path: Path, site: Site) -> None:
    samples, reader = open_uri(tmp_path, f"{site.url}/pets/list.csv", allowed_uris=[site.url])
    site.files["/pets/cats/1.png"] = b"other" * 200
    site.files["/pets/cats/2.png"] = b"longer" * 20_000
    del site.files["/pets/dogs/1.png"]
    found = contents(samples, reader)
    assert found["cats/1.png"] == found["cats/2.png"] == Unreadable("it changed since it was listed")
    assert found["dogs/1.png"] == Unreadable("it vanished since it was listed")


def test_an_archive_that_changes_while_it_is_read(tmp_path: Path, site: Site) -> None:
    samples, reader = open_uri(tmp_path, f"{site.url}/pets.zip", allowed_uris=[site.url])
    site.files["/pets.zip"] = b"x" + site.files["/pets.zip"]
    assert set(contents(samples, reader).values()) == {Unreadable("it changed since it was listed")}


def test_redirects_are_followed_within_the_allowed_places_alone(tmp_path: Path, site: Site) -> None:
    site.moved["/old.zip"] = "/pets.zip"
    assert opened(tmp_path, site, "/old.zip") == EVERYTHING
    with serve(Site({"/pets.zip": site.files["/pets.zip"]})) as elsewhere:
        site.moved["/old.zip"] = f"{elsewhere.url}/pets.zip"
        uri = f"{site.url}/old.zip"
        refused(tmp_path, uri, "dataset_forbidden", elsewhere.host, allowed_uris=[site.url])
        assert not elsewhere.asked
    site.moved["/old.zip"] = f"{site.url}/secret/pets.zip"
    refused(tmp_path, uri, "dataset_forbidden", "secret", allowed_uris=[f"{site.url}/old.zip"])
    for address in ("file:///etc/passwd", "s3://pets/x", "//169.254.169.254/latest", ""):
        site.moved["/old.zip"] = address
        with pytest.raises(Failed):
            opened(tmp_path, site, "/old.zip")


def test_a_redirect_that_never_ends(tmp_path: Path, site: Site) -> None:
    site.moved["/old.zip"] = "/old.zip"
    refused(tmp_path, f"{site.url}/old.zip", "dataset_unreachable", allowed_uris=[site.url])
    assert site.asked["HEAD /old.zip"] < 10


def test_a_large_file_is_read_in_ranges_at_once(tmp_path: Path, site: Site) -> None:
    site.files["/pets/cats/1.png"] = bytes(range(256)) * (40 * 4096)
    found = opened(tmp_path, site, "/pets/list.csv")
    assert found["cats/1.png"] == site.files["/pets/cats/1.png"]
    assert site.asked["GET /pets/cats/1.png"] == 5


def test_the_pause_grows_is_bounded_and_heeds_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def failing() -> None:
        raise HttpStatus(503, retry_after=3.0 if len(pauses) == 0 else 0.0)

    with pytest.raises(HttpStatus):
        retry.retried(failing, pause=pauses.append)
    assert len(pauses) == retry.ATTEMPTS - 1
    assert pauses[0] == 3.0
    assert all(
        retry.FIRST_PAUSE_SECONDS * 2**n / 2 <= pause <= retry.FIRST_PAUSE_SECONDS * 2**n
        for n, pause in enumerate(pauses)
        if n
    )
