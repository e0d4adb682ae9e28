"""Where the data lies: a URI is one place (`file://`, `s3://` …) or archives over one (`zip://inner::file://pets.zip`)."""

from __future__ import annotations

from pathlib import Path

from training_core.contract.credentials import OperatorEntry
from training_core.contract.errors import Failed, Reason
from training_core.contract.redaction import shown
from training_core.contract.run_dir import RunSpec
from training_core.contract.uris import UPLOAD, WEB, Link, Refused, parse
from training_core.data.sources.errors import failure_of, reading
from training_core.data.sources.folder import FolderSource
from training_core.data.sources.places import allowed_path, check_allowed
from training_core.data.sources.private import PrivatePlaces, private_places
from training_core.data.sources.remote import RemoteSource, check_hosts, open_filesystem
from training_core.data.sources.s3 import S3Source
from training_core.data.sources.source import LARGEST_FILE_BYTES, Entry, Piece, Source
from training_core.data.sources.tar import TarSource
from training_core.data.sources.uploaded import container_of, open_upload
from training_core.data.sources.web import WebSource
from training_core.data.sources.zip import ZipSource
from training_core.outgoing import Networks
from training_core.storage.credentials import Credentials, read_credentials

__all__ = ["LARGEST_FILE_BYTES", "Entry", "Piece", "Source", "failure_of", "open_source", "reading"]

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
# An object of such a name is the dataset itself; any other name in a bucket is a folder.
FILE_SUFFIXES = (
    ".csv",
    ".tsv",
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
    ".safetensors",
    ".tar",
    ".zip",
    ".gz",
    ".xz",
    ".safetensors",
    *COMPRESSED_TARS,
)


def open_source(run: RunSpec, scratch: Path) -> Source:
    """What is unpacked on the way lies below `scratch`.

    Raises `Failed` with a reason of the dataset or of its credentials.
    """
    uri = run.spec.dataset.uri
    uri = run.spec.dataset.uri
    *containers, place = _parsed(uri)
    with reading(shown(uri)):
        source, kind = _open_last(run, place)
        if not containers and kind is not None:
            containers = [Link(kind)]
        for link in reversed(containers):
            source = _open_container(shown(uri), link.scheme, link.path, source, scratch)
    return source


def _open_last(run: RunSpec, place: Link) -> tuple[Source, str | None]:
    """The place itself, and the container that it can be nothing but."""
    if place.scheme == UPLOAD:
        upload = open_upload(run, place.path)
        return upload, container_of(run, upload)
    credentials = run.secret or read_credentials(run.credentials_file, run.spec.dataset.credentials)
    return _open_place(run, place, credentials), _container_of(place.path)


def _parsed(uri: str) -> list[Link]:
    """Asked again where it is opened: a spec may come from elsewhere than the API."""
    try:
        return parse(uri, uploads=True)
    except Refused as refused:
        raise Failed(Reason.UNSUPPORTED, f"the URI {shown(uri)} cannot be read: {refused}") from None


def _container_of(path: str) -> str | None:
    """Archives that can be nothing but containers need no `zip://` before them; a plain tar may be a WebDataset."""
    name = path.lower()
    return "zip" if name.endswith(".zip") else "tar" if name.endswith(COMPRESSED_TARS) else None


def _open_container(uri: str, kind: str, inner: str, source: Source, scratch: Path) -> Source:
    archive = next(source.entries(), None)
    if archive is None:
        raise FileNotFoundError(uri)
    containers: dict[str, type[ZipSource] | type[TarSource]] = {"zip": ZipSource, "tar": TarSource}
    return containers[kind](uri, source, archive, inner, scratch)


def _open_place(run: RunSpec, place: Link, credentials: Credentials) -> Source:
    uri = shown(run.spec.dataset.uri)
    if place.scheme == "file":
        return _open_folder(uri, place.path, run.data_roots, private_places(run))
    if place.scheme == "dvc":
        return _open_dvc(uri, place.path, run.data_roots)
    check_allowed(place.address, run.allowed_uris)
    networks = networks_of(run, credentials)
    if place.scheme in WEB:
        return WebSource(place, run.allowed_uris, networks, credentials.token)
    if place.scheme == "s3":
        return _open_bucket(uri, place, credentials, networks)
    options = credentials.options_for(place.scheme)
    check_hosts(place.scheme, options, networks)
    return RemoteSource(uri, open_filesystem(place.scheme, options), f"{place.host}/{place.path}")


def networks_of(run: RunSpec, credentials: Credentials) -> Networks:
    """Those of the worker, and the endpoint in an entry of its operator; one that a project names is like any URI."""
    networks = Networks.of(run.allowed_networks)
    trusted = isinstance(credentials, OperatorEntry) and credentials.endpoint_url
    return networks.trusting(trusted) if trusted else networks


def _open_folder(uri: str, path: str, roots: list[Path], private: PrivatePlaces) -> Source:
    real = allowed_path(path, roots)
    is_file = real.is_file()
    private.check_folder(str(real.parent if is_file else real), f"file://{path}")
    if is_file:
        return FolderSource(uri, real.parent, roots, real.name, private)
    return FolderSource(uri, real, roots, private=private)


def _open_bucket(uri: str, place: Link, credentials: Credentials, networks: Networks) -> Source:
    folder, _, name = place.path.rpartition("/")
    if name.lower().endswith(FILE_SUFFIXES):
        around = S3Source(uri, place.host, folder, credentials, networks=networks)
        if around.exists(name):
            return S3Source(uri, place.host, folder, credentials, networks=networks, only=name)
    return S3Source(uri, place.host, place.path, credentials, networks=networks)


def _open_dvc(uri: str, path: str, roots: list[Path]) -> Source:
    """A path of a DVC repository below the data roots; what is not in its cache comes from its own remote."""
    real = allowed_path(path, roots)
    for folder in (real, *real.parents):
        if (folder / ".dvc").is_dir():
            filesystem = open_filesystem("dvc", {"url": str(allowed_path(str(folder), roots))})
            return RemoteSource(uri, filesystem, real.relative_to(folder).as_posix())
    open_filesystem("dvc", {})
    raise Failed(
        Reason.DATASET_UNREACHABLE,
        f"{uri} lies in no DVC repository",
        "name a path in a repository (a folder with .dvc) below the worker's data roots",
    )
