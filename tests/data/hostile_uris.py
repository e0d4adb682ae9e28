"""Hostile URIs by the thousand, the same for a seed: each with its field, and whether it is a URI at all."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

FIELDS = ("dataset.uri", "model.weights", "search.space")

# What our own resolver says of names; the counter watches the addresses.
NAMES = {
    "loopback.example": ["127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "private.example": ["10.1.2.3"],
    "mixed.example": ["8.8.8.8", "127.0.0.1"],
    "six.example": ["::1"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "unique-local.example": ["fd00:ec2::254"],
    "nat64.example": ["64:ff9b::a9fe:a9fe"],
    "xn--bcher-kva.example": ["192.168.0.1"],
}
PUBLIC = ("public.example", "8.8.8.8", "[2606:4700::1111]", "PUBLIC.example.")
# Hosts in a form that is read, and leads to an address that is none of the client's business.
DENIED = (
    *NAMES, "localhost", "localhost.", "127.0.0.1", "127.0.0.1.", "127.0.0.2", "169.254.169.254", "10.0.0.1",
    "172.16.0.1", "192.168.1.1", "0.0.0.0", "100.100.100.200", "168.63.129.16", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[fd00:ec2::254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]",
    "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
    "\uff11\uff12\uff17.0.0.1", "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", "b\u00fccher.example",
)  # fmt: skip
# Hosts that are no hosts: other readers would take them for addresses, or stop reading elsewhere.
BROKEN = (
    "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "017700000001", "0x7f.0x0.0x0.0x1",
    "1.2.3.4.5", "256.256.256.256", "[::1", "::1", "[127.0.0.1]", "[fe80::1%25lo]", "[fe80::1%lo]", "127.0.0.1%00",
    "127.0.0.1%20", "user@127.0.0.1", "user:pass@127.0.0.1", "public.example@127.0.0.1",
    "public.example:80@127.0.0.1", "127.0.0.1\\@public.example", "public.example\\@127.0.0.1",
    "127.0.0.1#@public.example", "public.example#@127.0.0.1", "127.0.0.1:80:80", "127.0.0.1:", "127.0.0.1:+80",
    "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:8\uff10a", "%31%32%37.0.0.1", "127.0.0.1\t", "127.0.0.1\n",
    "127.0.0.1\r\nHost: x", "127.0.0.1\x00.public.example", " 127.0.0.1", "-127.0.0.1", "..127.0.0.1", "", ".",
    "127.0.0.1;", "127.0.0.1,public.example", "loc\u00adal host",
)  # fmt: skip
BUCKETS = (
    "localhost:9443#", "localhost:9443?", "localhost:9443\\", "localhost:9443", "127.0.0.1", "127.0.0.1:80",
    "user:pw@pets", "Pets", "a", "pets..x", "[::1]", "pets#@127.0.0.1", "..", "%2e%2e", "pets%00", "pets\x00",
    "-pets", "pets-", "pets.", "p" * 64, "", "pe ts", "p\u00e9ts", "0177.0.0.1",
)  # fmt: skip
READ_BUCKETS = ("pets", "localhost", "2130706433", "0x7f000001", "metadata.google.internal", "169-254-169-254")
BROKEN_PATHS = (
    "a/../b", "../b", "%2e%2e/b", "a/%2E%2e/b", "%252e%252e/b", "a%2fb", "a%5cb", "a\\b", "a#b", "a%00b", "a%0d%0ab",
    "a\x00b", "a\nb", "a%252fb", "..;x/b", "a?token=abcdef", "a?X-Amz-Signature=abcdef", "a?sig=abcdef",
    "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOi.eyJzdWIiOi.abc",
)  # fmt: skip
READ_PATHS = ("a.csv", "a/b.zip", "a%20b.csv", "%E7%8A%AC.csv", "model.safetensors", "a.tar", "~a/b.csv")
PORTS = ("", ":80", ":9", ":443", ":9000")
WRAPPERS = ("", "zip://::", "tar://::", "zip://inside::", "zip::", "zip://a::tar://::")
BROKEN_WRAPPERS = (
    "zip://a::zip://b::tar://::", "s3://pets::", "file:///x::", "::", "zip://../x::", "zip://a?b::", "gopher://x::",
    "http://a::",
)  # fmt: skip
OTHERS = (
    "javascript:alert(1)", "data:,x", "gopher://127.0.0.1:70/_x", "ftp://127.0.0.1/x", "memory://x",
    "ldap://127.0.0.1/", "dict://127.0.0.1:11211/", "jar:http://127.0.0.1!/x", "//127.0.0.1/x", "http:127.0.0.1",
    "http:/127.0.0.1/x", "http:\\\\127.0.0.1\\x", "s3:/127.0.0.1/x", "unix:///run/x", "file://127.0.0.1@x/y",
    "file:///etc/passwd\x00", "file:///a/../../etc/passwd", "file:///%2e%2e/etc/passwd", "github://x",
    "simplecache::memory://x", "filecache::http://127.0.0.1/x.csv", "blockcache::file:///etc/passwd",
    "reference://::http://127.0.0.1", "ssh://127.0.0.1/x", "local:///etc/passwd",
)  # fmt: skip


class Hostile(NamedTuple):
    uri: str
    field: str
    is_uri: bool


def hostile_uris(seed: int, count: int) -> Iterator[Hostile]:
    """`count` of them, no two alike, over every field; a third or so are URIs, and lead where nobody may go."""
    random = Random(seed)
    seen: set[tuple[str, str]] = set()
    while len(seen) < count:
        uri, is_uri = _uri(random)
        field = random.choice(FIELDS)
        if (uri, field) not in seen:
            seen.add((uri, field))
            yield Hostile(uri, field, is_uri)


def _uri(random: Random) -> tuple[str, bool]:
    kind = random.random()
    if kind < 0.08:
        return random.choice(WRAPPERS) + random.choice(OTHERS), False
    is_web = kind < 0.75
    host, good_host = _host(random) if is_web else _bucket(random)
    path, good_path = (
        (random.choice(READ_PATHS), True) if random.random() < 0.8 else (random.choice(BROKEN_PATHS), False)
    )
    wrapper, good_wrapper = (
        (random.choice(WRAPPERS), True) if random.random() < 0.9 else (random.choice(BROKEN_WRAPPERS), False)
    )
    scheme = random.choice(("http", "https", "HTTP", "hTTps") if is_web else ("s3", "S3", "s3a"))
    port = random.choice(PORTS) if is_web and good_host else ""
    return f"{wrapper}{scheme}://{host}{port}/{path}", good_host and good_path and good_wrapper


def _one_of(random: Random, read: tuple[str, ...], broken: tuple[str, ...], share: float) -> tuple[str, bool]:
    good = random.random() < share
    return random.choice(read if good else broken), good


def _host(random: Random) -> tuple[str, bool]:
    kind = random.random()
    if kind < 0.1:
        return random.choice(PUBLIC), True
    return (random.choice(DENIED), True) if kind < 0.6 else (random.choice(BROKEN), False)


def _bucket(random: Random) -> tuple[str, bool]:
    return _one_of(random, READ_BUCKETS, BUCKETS, 0.4)
