"""What a worker may read, and what it must not be talked into reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.opening import check, open_uri, refused, touch
from training_core.contract.errors import Failed
from training_core.data.sources.places import check_allowed


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://pets/cats", ()),
        ("gs://pets/cats", ()),
        ("s3://pets/cats", ("s3://pets",)),
        ("s3://pets/cats", ("s3://pets/",)),
        ("s3://pets/cats/x.png", ("s3://dogs", "s3://pets/cats/")),
        ("s3a://pets/cats", ("s3://pets/cats",)),
        ("S3://pets/cats", ("s3://pets",)),
        ("s3://pets/cats", ("s3://",)),
        ("https://Example.org/a/b.zip", ("https://example.org/a",)),
        ("https://example.org:443/a/b.zip?token=1", ("https://example.org/a",)),
        ("https://example.org/a%20b/c.zip", ("https://example.org/a b/",)),
        ("hf://datasets/user/pets", ("hf://datasets/user",)),
    ],
)
def test_places_that_are_allowed(uri: str, allowed: tuple[str, ...]) -> None:
    check_allowed(uri, allowed)


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("http://example.org/a", ()),
        ("https://169.254.169.254/latest/meta-data", ()),
        ("s3://pets-secret/x", ("s3://pets",)),
        ("s3://pets/cats-secret", ("s3://pets/cats",)),
        ("s3://pets", ("s3://pets/cats",)),
        ("s3://pets/cats/../secret", ("s3://pets/cats",)),
        ("s3://pets/secret/../cats", ("s3://pets/cats",)),
        ("s3://pets/cats/%2e%2e/secret", ("s3://pets/cats",)),
        ("s3://pets/cats/%252e%252e/secret", ("s3://pets/cats",)),
        ("s3://pets/cats\\..\\secret", ("s3://pets/cats",)),
        ("s3://pets/../secret", ("s3://pets",)),
        ("gs://pets/cats", ("s3://pets",)),
        ("http://example.org/a", ("https://example.org",)),
        ("https://example.org.evil.net/a", ("https://example.org",)),
        ("https://example.org:8443/a", ("https://example.org",)),
        ("https://user@example.org/a", ("https://user@example.org/a",)),
        ("https://example.org/a/%2e%2e/b", ("https://example.org/a",)),
        ("https://example.org/a%2fb", ("https://example.org/a%2fb",)),
        ("https://example.org/a/..;/b", ("https://example.org/a/x",)),
    ],
)
def test_places_that_are_not(uri: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(Failed) as failure:
        check_allowed(uri, allowed)
    check(failure.value, "dataset_forbidden")


def test_a_forbidden_address_is_told_without_its_query() -> None:
    with pytest.raises(Failed) as failure:
        check_allowed("https://example.org/a.zip?signature=secret", ())
    assert "secret" not in failure.value.message


@pytest.mark.parametrize("uri", ["s3://pets/x", "zip://::s3://pets/x.zip", "gs://pets/x", "https://example.org/x.csv"])
def test_the_list_is_asked_whatever_the_scheme(tmp_path: Path, uri: str) -> None:
    refused(tmp_path, uri, "dataset_forbidden", "TRAINYARD_ALLOWED_URIS", allowed_uris=["s3://dogs"])


@pytest.mark.parametrize(
    ("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs"), ("abfs", "adlfs"), ("hf", "huggingface_hub")]
)
def test_a_scheme_whose_package_is_not_installed(tmp_path: Path, scheme: str, package: str) -> None:
    refused(tmp_path, f"{scheme}://datasets/x", "unsupported", f"pip install {package}")


def test_dvc_is_asked_for_only_below_the_roots(tmp_path: Path) -> None:
    touch(tmp_path / "repo", ".dvc/config", "data.dvc")
    refused(tmp_path, f"dvc://{tmp_path}/repo/data", "unsupported", "pip install dvc")
    refused(tmp_path, "dvc:///etc/data", "dataset_forbidden")


@pytest.mark.parametrize("uri", ["file:///etc", "zip://::file:///etc/passwd", "file:///etc/passwd"])
def test_local_places_outside_the_roots(tmp_path: Path, uri: str) -> None:
    refused(tmp_path, uri, "dataset_forbidden")
    refused(tmp_path, uri, "dataset_forbidden", "allows no local folders", data_roots=[])


def test_a_root_whose_name_is_the_beginning_of_another(tmp_path: Path) -> None:
    touch(tmp_path / "data", "a/1.png", "b/1.png")
    touch(tmp_path / "data-secret", "a/1.png", "b/1.png")
    open_uri(tmp_path, "file://.", data_roots=[tmp_path / "data"])
    refused(tmp_path, f"file://{tmp_path}/data-secret", "dataset_forbidden", data_roots=[tmp_path / "data"])
