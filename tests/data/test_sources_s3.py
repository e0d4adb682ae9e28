"""S3: against moto over HTTP, and against a server that answers as an ill S3 does."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from tests.data.opening import check, contents, labels, open_uri, refused
from tests.data.servers import Site, serve
from tests.training.conftest import S3, SECRET, s3  # noqa: F401  a fixture
from training_core.contract.credentials import Credentials, OperatorEntry
from training_core.contract.errors import Failed
from training_core.data.samples import Unreadable
from training_core.data.sources import retry
from training_core.data.sources.s3 import read_page

NAMES = ("cats/1.png", "cats/ö + &.png", "dogs/1.png")


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    client = s3.client()
    client.create_bucket(Bucket="pets")
    for name in NAMES:
        client.put_object(Bucket="pets", Key=f"p/{name}", Body=name.encode())
    client.put_object(Bucket="pets", Key="p/", Body=b"")
    client.put_object(Bucket="pets", Key="p-secret/birds/1.png", Body=b"x")
    return client


def opened(tmp_path: Path, uri: str, s3: S3, dataset: dict[str, Any] | None = None) -> Any:  # noqa: F811
    spec = {"credentials": "pets", **(dataset or {})}
    return open_uri(tmp_path, uri, spec, credentials_file=s3.credentials_file)


@pytest.mark.parametrize("uri", ["s3://pets/p", "s3://pets/p/", "s3a://pets/p"])
def test_a_prefix_is_a_folder(tmp_path: Path, s3: S3, bucket: Any, uri: str) -> None:  # noqa: F811
    samples, reader = opened(tmp_path, uri, s3)
    assert contents(samples, reader) == {name: name.encode() for name in NAMES}
    assert samples.classes == ["cats", "dogs"]


@pytest.mark.long
def test_more_objects_than_a_page_and_a_large_one(tmp_path: Path, s3: S3, bucket: Any) -> None:  # noqa: F811
    for number in range(1100):
        bucket.put_object(Bucket="pets", Key=f"many/{number % 2}/{number:04}.png", Body=b"%d" % number)
    large = os.urandom(20 * 2**20)
    bucket.put_object(Bucket="pets", Key="many/1/large.png", Body=large)
    found = contents(*opened(tmp_path, "s3://pets/many", s3))
    assert len(found) == 1101
    assert list(found) == sorted(found)
    assert found["1/large.png"] == large
    assert found["1/1099.png"] == b"1099"


def test_a_manifest_names_objects_beside_it(tmp_path: Path, s3: S3, bucket: Any) -> None:  # noqa: F811
    lines = "path,label\n" + "".join(f"{name},{name[:4]}\n" for name in (*NAMES, "cats/none.png"))
    bucket.put_object(Bucket="pets", Key="p/list.csv", Body=lines.encode())
    found = contents(*opened(tmp_path, "s3://pets/p/list.csv", s3))
    assert found == {**{name: name.encode() for name in NAMES}, "cats/none.png": Unreadable("there is no such file")}


def test_shards_in_a_bucket(tmp_path: Path, s3: S3, bucket: Any) -> None:  # noqa: F811
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(50):
            for suffix, content in (("png", b"image %d" % number), ("cls", b"%d" % (number % 2))):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    bucket.put_object(Bucket="pets", Key="w/a-0.tar", Body=buffer.getvalue())
    found = contents(*opened(tmp_path, "s3://pets/w", s3))
    assert list(found.values()) == [b"image %d" % number for number in range(50)]


def test_objects_that_change_or_vanish_after_the_listing(tmp_path: Path, s3: S3, bucket: Any) -> None:  # noqa: F811
    samples, reader = opened(tmp_path, "s3://pets/p", s3)
    bucket.put_object(Bucket="pets", Key=f"p/{NAMES[0]}", Body=b"x" * len(NAMES[0]))
    bucket.delete_object(Bucket="pets", Key=f"p/{NAMES[2]}")
    found = contents(samples, reader)
    assert found[NAMES[0]] == Unreadable("it changed since it was listed")
    assert found[NAMES[1]] == NAMES[1].encode()
    assert found[NAMES[2]] == Unreadable("it vanished since it was listed")


def test_a_changed_object_changes_the_digest(tmp_path: Path, s3: S3, bucket: Any) -> None:  # noqa: F811
    before, _ = opened(tmp_path, "s3://pets/p", s3)
    again, _ = opened(tmp_path, "s3://pets/p", s3)
    assert again.digest == before.digest
    bucket.put_object(Bucket="pets", Key=f"p/{NAMES[0]}", Body=b"x" * len(NAMES[0]))
    after, _ = opened(tmp_path, "s3://pets/p", s3)
    assert after.digest != before.digest


@pytest.mark.parametrize(
    ("uri", "reason"), [("s3://none/x", "dataset_unreachable"), ("s3://pets/none", "dataset_empty")]
)
def test_what_is_not_there(tmp_path: Path, s3: S3, bucket: Any, uri: str, reason: str) -> None:  # noqa: F811
    spec = {"credentials": "pets"}
    refused(tmp_path, uri, reason, uri, dataset=spec, credentials_file=s3.credentials_file)


def page(*keys: str, token: str = "") -> bytes:
    found = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>5</Size><ETag>&quot;e&quot;</ETag></Contents>" for key in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return f"<?xml version='1.0'?><ListBucketResult>{found}{more}</ListBucketResult>".encode()


def test_a_page_is_read() -> None:
    assert read_page(page("a%20b/1+2.png", token="t/1=")) == ([("a b/1 2.png", 5, '"e"')], "t/1=")
    assert read_page(page()) == ([], None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>sign in</html>",
        b"<ListBucketResult><Contents>",
        b"<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><ListBucketResult>&b;</ListBucketResult>',
    ],
)
def test_a_page_that_is_none(body: bytes) -> None:
    with pytest.raises(OSError, match="the listing of the bucket"):
        read_page(body)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Two objects of five bytes, listed on two pages."""
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    first = "/pets/?encoding-type=url&list-type=2&max-keys=1000&prefix=p%2F"
    second = first.replace("encoding", "continuation-token=t&encoding")
    files = {first: page("p/a/1.png", token="t"), second: page("p/b/1.png"), "/pets/p/a/1.png": b"aaaaa"}
    with serve(Site({**files, "/pets/p/b/1.png": b"bbbbb"}, etag='"e"')) as running:
        entry = {"endpoint_url": running.url, "key": "k", "secret": SECRET}
        (tmp_path / "ill.json").write_text(json.dumps({"pets": entry}))
        running.asked.clear()
        yield running


def from_site(tmp_path: Path) -> Any:
    return open_uri(tmp_path, "s3://pets/p", {"credentials": "pets"}, credentials_file=tmp_path / "ill.json")


def test_pages_and_objects_that_fail_at_first(tmp_path: Path, site: Site) -> None:
    for path in site.files:
        site.ills[path] = [503, "cut", "reset"]
    assert contents(*from_site(tmp_path)) == {"a/1.png": b"aaaaa", "b/1.png": b"bbbbb"}
    assert site.asked["GET /pets/p/a/1.png"] == 4


@pytest.mark.parametrize(
    ("ill", "reason"), [(403, "dataset_forbidden"), (404, "dataset_unreachable"), (503, "dataset_unreachable")]
)
def test_a_listing_that_fails(tmp_path: Path, site: Site, ill: int, reason: str) -> None:
    for path in site.files:
        site.ills[path] = ill
    refused(
        tmp_path,
        "s3://pets/p",
        reason,
        "s3://pets/p",
        dataset={"credentials": "pets"},
        credentials_file=tmp_path / "ill.json",
    )


@pytest.mark.parametrize(
    ("ill", "reason"), [(403, "dataset_forbidden"), (503, "dataset_unreachable"), ("cut", "dataset_unreachable")]
)
def test_an_object_that_fails(tmp_path: Path, site: Site, ill: object, reason: str) -> None:
    samples, reader = from_site(tmp_path)
    site.ills["/pets/p/b/1.png"] = ill
    with pytest.raises(Failed) as failure:
        contents(samples, reader)
    check(failure.value, reason, "s3://pets/p")
    assert SECRET not in f"{failure.value.message} {failure.value.hint}"


def test_keys_that_would_be_resolved_to_other_objects_are_not_asked_for(tmp_path: Path, site: Site) -> None:
    path = next(path for path in site.files if "continuation" in path)
    site.files[path] = page("p/b/1.png", "p/b/../../../secret/x.png")
    found = contents(*from_site(tmp_path))
    assert found["b/../../../secret/x.png"] == Unreadable("it vanished since it was listed")
    assert not any("secret" in asked for asked in site.asked)


def test_the_region_is_learnt(tmp_path: Path, site: Site) -> None:
    site.ills["/pets/?encoding-type=url&list-type=2&max-keys=1000&prefix=p%2F"] = [301]
    site.region = "eu-west-1"
    assert labels(from_site(tmp_path)[0]) == {"a/1.png": "a", "b/1.png": "b"}


def test_an_endpoint_of_a_project_is_no_door_to_the_workers_network(tmp_path: Path, site: Site) -> None:
    """One of the operator's own entries is; what a project stores is like any URI of its."""
    with pytest.raises(Failed):
        open_uri(tmp_path, "s3://pets/p", secret=Credentials(endpoint_url=site.url), allowed_networks=[])
    assert not site.asked
    open_uri(tmp_path, "s3://pets/p", secret=OperatorEntry(endpoint_url=site.url), allowed_networks=[])
    assert site.asked
