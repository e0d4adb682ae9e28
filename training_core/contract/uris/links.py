"""The grammar of each scheme, and of archives over a place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from training_core.contract.redaction import holds_secret
from training_core.contract.uploads import is_upload
from training_core.contract.uris.hosts import authority
from training_core.contract.uris.text import ESCAPE, Refused, check_characters, check_escapes, check_segments, decoded

MOST_LINKS = 3
WEB = ("http", "https")
LOCAL = ("file", "dvc")
CONTAINERS = ("zip", "tar")
UPLOAD = "upload"  # of an id alone: there is no upload://
ALIASES = {"gcs": "gs", "abfs": "az", "abfss": "az", "s3a": "s3", "s3n": "s3"}
DEFAULT_PORTS = {"http": 80, "https": 443}
FORMS = (
    "file://folder, s3://bucket/folder, gs://, az://, hf://, https://host/file, or an archive over one of them, "
    "as in zip://::s3://bucket/all.zip"
)

# docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html, and those of the others.
_S3 = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_GOOGLE = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_AZURE = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_HUGGING_FACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
BUCKETS = {
    "s3": (_S3, "a bucket's name has 3 to 63 lower-case letters, digits, hyphens and dots, and is no address"),
    "gs": (_GOOGLE, "a bucket's name has 3 to 222 lower-case letters, digits, hyphens, underscores and dots"),
    "az": (_AZURE, "a container's name has 3 to 63 lower-case letters, digits and hyphens; the secret has its account"),
    "hf": (_HUGGING_FACE, "write hf://datasets/user/name"),
}  # fmt: skip
PLACES = (*LOCAL, *WEB, *BUCKETS)


@dataclass(frozen=True, slots=True)
class Link:
    """One part of a URI. `host` is the bucket, the container or the web's host and is empty for files and archives.

    `path` of a file or an archive's inside is the name on the disk; of a bucket the key to the letter; of the web it
    stays escaped. `query` is the web's alone.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    query: str = ""

    @property
    def address(self) -> str:
        """Scheme, host, port and path again, in the one form."""
        port = f":{self.port}" if self.port is not None else ""
        slash = "/" if self.host and self.path else ""
        return f"{self.scheme}://{self.host}{port}{slash}{self.path}"


def parse(uri: str, *, uploads: bool = False) -> list[Link]:
    """The links from the outside in: archives first, the place last. Raises `Refused`.

    With `uploads` the place may be the id of one (`dataset_…`): scheme `UPLOAD`, the id as its path.
    """
    check_characters(uri)
    links = [parse_link(link, uploads=uploads) for link in re.split(r"::(?![^\[\]/]*\])", uri)]
    if holds_secret(uri):
        raise Refused(
            "a URI holds no signature, token or key, since it is stored and shown; "
            "name a secret in dataset.credentials instead"
        )
    *archives, place = links
    if len(links) > MOST_LINKS:
        raise Refused("a URI has at most two archives over its place")
    if place.scheme in CONTAINERS or any(link.scheme not in CONTAINERS for link in archives):
        raise Refused(f"a URI is one of {FORMS}")
    return links


def parse_link(link: str, *, uploads: bool = False) -> Link:
    """One link; an archive may stand without `://`. Raises `Refused`."""
    if uploads and is_upload(link):
        return Link(UPLOAD, path=link)
    written, separator, rest = link.partition("://")
    scheme = ALIASES.get(written.lower(), written.lower())
    if scheme in CONTAINERS:
        return Link(scheme, path=_inside(rest))
    if not separator or scheme not in PLACES:
        near = get_close_matches(scheme[:16], (*PLACES, *CONTAINERS), n=1) if separator else []
        raise Refused(f"a URI is one of {FORMS}", near[0] if near else None)
    if "@" in rest.partition("/")[0]:
        raise Refused("a URI holds no user or password; name a secret in dataset.credentials instead")
    if scheme in WEB:
        return _web(scheme, rest)
    if "?" in rest:
        raise Refused("only http and https take a query; write a ? in a name as %3F")
    return Link(scheme, path=_local(rest)) if scheme in LOCAL else _bucket(scheme, rest)


def check_endpoint(url: str) -> Link:
    """The address of a service, such as an S3 of one's own. Raises `Refused`."""
    check_characters(url)
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in WEB or not separator or "?" in rest or holds_secret(url):
        raise Refused(
            "an endpoint is http:// or https://, a host, perhaps a port and a path; key and secret have own fields"
        )
    return _web(scheme.lower(), rest)


def _inside(path: str) -> str:
    if "?" in path:
        raise Refused("only http and https take a query; write a ? in a name as %3F")
    inside = path.rstrip("*").strip("/")
    check_escapes(inside)
    check_segments(inside)
    return inside


def _local(path: str) -> str:
    if not path:
        raise Refused("the URI needs the path of a folder or a file")
    name = decoded(path)
    check_characters_of_name(name)
    check_segments(path, here=True)
    return name


def check_characters_of_name(name: str) -> None:
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise Refused("a name has no backslash and no control characters")


def _bucket(scheme: str, rest: str) -> Link:
    host, _, key = rest.partition("/")
    grammar, words = BUCKETS[scheme]
    if not grammar.fullmatch(host) or _ADDRESS.fullmatch(host):
        raise Refused(words)
    check_escapes(key)
    check_segments(key)
    return Link(scheme, host, path=key)


def _web(scheme: str, rest: str) -> Link:
    before, question, query = rest.partition("?")
    place, _, path = before.partition("/")
    host, port = authority(place)
    if " " in rest or before.count("%") != len(ESCAPE.findall(before)):
        raise Refused("write spaces in a web address as %20, and % as %25")
    check_escapes(path)
    check_segments(path)
    return Link(scheme, host, None if port == DEFAULT_PORTS[scheme] else port, path, query if question else "")
