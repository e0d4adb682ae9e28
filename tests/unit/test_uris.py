"""What a URI may say: one grammar for every field, and words that never repeat the value."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from training_core.contract.redaction import shown
from training_core.contract.spec import JobSpec
from training_core.contract.uris import Refused, check_endpoint, parse
from training_core.contract.uris.prefixes import check_prefix
from training_core.outgoing import Networks
from training_core.outgoing.addresses import is_public
from training_core.storage.credentials import Credentials

READ = {
    "file:///data/my%20pets": ("file", "", "/data/my pets"),
    "file:///data/my pets": ("file", "", "/data/my pets"),
    "file:///data/100%": ("file", "", "/data/100%"),
    "file:///data/100%25": ("file", "", "/data/100%"),
    "file:///data/a%23b%3Fc": ("file", "", "/data/a#b?c"),
    "file:///data/%E7%8A%AC": ("file", "", "/data/犬"),
    "file://.": ("file", "", "."),
    "s3://pets/p/x y.zip": ("s3", "pets", "p/x y.zip"),
    "S3A://my.pets-1": ("s3", "my.pets-1", ""),
    "gs://my_pets/x": ("gs", "my_pets", "x"),
    "abfs://pets/x": ("az", "pets", "x"),
    "hf://datasets/user/pets@main/x": ("hf", "datasets", "user/pets@main/x"),
    "https://Example.ORG./a%20b.zip": ("https", "example.org", "a%20b.zip"),
    "https://example.org:443/a": ("https", "example.org", "a"),
    "http://\uff11\uff12\uff17\u30020.0.1/a": ("http", "127.0.0.1", "a"),
    "https://ⓔxample.org/a": ("https", "example.org", "a"),
    "https://bücher.example/a": ("https", "xn--bcher-kva.example", "a"),
    "http://[::FFFF:127.0.0.1]/a": ("http", "[::ffff:7f00:1]", "a"),
    "zip://in::http://[::1]:80/x.zip": ("http", "[::1]", "x.zip"),
}
REFUSED = [
    "", "pets", "://", "ftp://example.org/x", "memory://x", "javascript:alert(1)", "zip://x", "s3:/pets/x",
    "s3://localhost:9443#/p", "s3://localhost:9443?/p", "s3://localhost:9443/p", "s3://localhost\\x/p",
    "s3://127.0.0.1/p", "s3://a/x", "s3://Pets/x", "s3://pets..a/x", "s3://-pets/x", "s3://pets./x",
    "s3://p%61ts/x", "s3://k:s@pets/x", "s3://k@pets/x", "s3://[::1]/x", "s3:///x", "s3://pets/../x",
    "s3://pets/%2e%2e/x", "s3://pets/%252e%252e/x", "s3://pets/a%2fb", "s3://pets/a%252fb", "s3://pets/%00",
    "s3://pets/a%5cb", "s3://pets/x?versionId=1", "s3://pets/\x00", "http://2130706433/", "http://0x7f000001/",
    "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.1/", "http://1.2.3.4.5/",
    "http://256.1.1.1/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/", "http://::1/",
    "http://[127.0.0.1]/", "http://user@example.org/", "http://user:pw@example.org/",
    "http://example.org@evil.org/", "http://example.org:0/", "http://example.org:99999/", "http://example.org:/",
    "http://example.org:8o/", "http://exa mple.org/", "http://example.org\\@evil.org/", "http://example.org/#x",
    "http://example..org/", "http:///x", "https://%65xample.org/", "http://example.org/a/%2e%2e/b",
    "http://example.org/a/..;x/b", "http://example.org/a%2fb", "http://example.org/a b", "http://example.org/%zz",
    "http://example.org/%0d%0aHost:x", "http://xn--/", "http://-a.org/",
    "https://b.s3.amazonaws.com/x?X-Amz-Signature=abc", "https://a.blob.core.windows.net/x?sv=1&sig=abc%3D",
    "https://example.org/x?token=abc", "https://example.org/x?a=1&access_token=abc",
    "https://example.org/x?apikey=abc", "https://example.org/eyJhbGciOi.eyJzdWIiOi.abc",
    "s3://pets/AKIAIOSFODNN7EXAMPLE/x", "file:///ty_01ARZ3NDEKTSV4RRFFQ69G5FAV_abc", "file://", "file:///a/../b",
    "file:///a/%2e%2e/b", "file:///a%2fb", "file:///a%00b", "file:///a%5cb", "file:///a%0ab", "file:///a?b",
    "file:///a#b", "file:///%ff", "file:///a\tb", "file:///a\u2028b", "file:///a\u202eb", " file:///a",
    "file:///a\ud800", "file://user@host/a", "zip://a::zip://b::zip://c::file://x.zip", "s3://pets::file://b",
    "zip://../a::file://x.zip", "zip://a?b::file://x.zip", "file://x.zip::zip://a", "zip://a::", "::",
    "az://a--b/x", "az://x@acc.dfs.core.windows.net/y", "hf://../x", "gs://../x", "dvc:///a/../b",
    "http://example.org/" + "a" * 2048,
]  # fmt: skip


@pytest.mark.parametrize("uri", READ)
def test_what_is_read(uri: str) -> None:
    place = parse(uri)[-1]
    assert (place.scheme, place.host, place.path) == READ[uri]


@pytest.mark.parametrize("uri", REFUSED)
def test_what_is_refused_everywhere_and_never_repeated(uri: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(uri)
    told = str(refused.value)
    assert len(uri) < 6 or uri not in told
    for body in ({"dataset": {"uri": uri}}, {"dataset": {"uri": "file:///x"}, "model": {"weights": uri}}):
        if "weights" in str(body) and "://" not in uri and "::" not in uri:
            continue  # a name in the store, or none
        with pytest.raises(ValidationError) as fault:
            JobSpec.model_validate({"task": "image-classification", **body})
        (first,) = fault.value.errors()
        assert first["loc"] in {("dataset", "uri"), ("model", "weights")}


def test_a_folder_of_any_name_is_named_by_its_uri(tmp_path: Path) -> None:
    for name in ("my pets", "100%", "a#b", "what?", "犬", "a%20b", "semi;colon", "[x]", "a@b", "a::b"[:1] + "=b"):
        assert parse((tmp_path / name).as_uri())[-1].path == str(tmp_path / name)


def test_endpoints() -> None:
    for url in ("http://minio:9000", "https://s3.example.org/tenant", "http://127.0.0.1:9", "http://[::1]:9/"):
        check_endpoint(url)
    for url in (
        "minio:9000", "s3://x", "http://k:s@minio", "http://minio#", "http://minio?x", "http://minio\\x", "http:///x",
        "http://minio/../x", "http://0x7f.1", "file:///x", "",
    ):  # fmt: skip
        with pytest.raises(Refused):
            check_endpoint(url)


def test_the_endpoint_of_a_secret_is_checked() -> None:
    with pytest.raises(ValidationError) as fault:
        Credentials.model_validate({"endpoint_url": "http://k:hunter2@minio"})
    assert "hunter2" not in str(fault.value)


def test_entries_of_the_operators_lists() -> None:
    for prefix in ("s3://", "s3://pets/", "https://images.example.org/a b/", "hf://datasets/user"):
        check_prefix(prefix)
    for prefix in ("pets/", "https://u:p@example.org/", "s3://pets/../x"):
        with pytest.raises(ValueError, match="beginning of a URI"):
            check_prefix(prefix)
    with pytest.raises(ValueError, match="no network"):
        Networks.of(["10.0.0.0/99"])


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "192.0.0.192", "192.0.2.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::127.0.0.1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::",
        "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
        "2606:4700::5efe:10.0.0.1", "100::1", "4000::1",
    ],
)  # fmt: skip
def test_addresses_that_are_nobodys_business(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not Networks().allow("name.example", 443, ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::", "2606:4700::1111"]
)
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("entries", "host", "port", "address", "allowed"),
    [
        (["10.0.0.0/8"], "x", 443, "10.1.1.1", True),
        (["10.0.0.0/8"], "x", 443, "::ffff:10.1.1.1", True),
        (["10.0.0.0/8"], "x", 443, "11.1.1.1", True),
        (["10.0.0.0/8"], "x", 443, "192.168.1.1", False),
        (["fd00::/8"], "x", 443, "fd00::1", True),
        (["minio"], "minio", 9000, "172.18.0.3", True),
        (["minio:9000"], "minio", 9000, "172.18.0.3", True),
        (["minio:9000"], "minio", 9001, "172.18.0.3", False),
        (["minio:9000"], "other", 9000, "172.18.0.3", False),
        (["127.0.0.1:9000"], "127.0.0.1", 9000, "127.0.0.1", True),
        (["[::1]:9000"], "[::1]", 9000, "::1", True),
    ],
)
def test_what_the_operator_allows(entries: list[str], host: str, port: int, address: str, allowed: Any) -> None:
    assert Networks.of(entries).allow(host, port, ip_address(address)) is allowed


def test_an_address_is_shown_without_its_query_and_secrets() -> None:
    assert shown("https://example.org/a.zip?x=secret") == "https://example.org/a.zip"
    assert "hunter2" not in shown("s3://me:hunter2@pets/a")
