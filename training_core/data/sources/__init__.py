"""Where the data lies: a URI is one place (`file://`, `s3://` …) or archives over one (`zip://inner::file://pets.zip`)."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

from training_core.data.credentials import Credentials, read_credentials
from training_core.data.sources.errors import failure_of, reading
from training_core.data.sources.folder import FolderSource
from training_core.data.sources.places import CONTAINERS, WEB, allowed_path, check_allowed, parse, shown
from training_core.data.sources.remote import PACKAGES, RemoteSource, open_filesystem
from training_core.data.sources.s3 import S3Source
from training_core.data.sources.source import LARGEST_FILE_BYTES, Entry, Piece, Source
from training_core.data.sources.tar import TarSource
from training_core.data.sources.uploaded import container_of, open_upload
from training_core.data.sources.web import WebSource
from training_core.data.sources.zip import ZipSource
from training_core.failure import Failed
from training_core.rundir import RunSpec
from training_core.uploads import is_upload
from training_core.wire import Reason

__all__ = ["LARGEST_FILE_BYTES", "Entry", "Piece", "Source", "failure_of", "open_source", "reading"]

MOST_LINKS = 3
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
    *above, last = uri.split("::")
    containers = [parse(link) for link in above]
    if len(containers) >= MOST_LINKS or any(kind not in CONTAINERS for kind, _ in containers):
        raise _unsupported(uri)
    with reading(shown(uri)):
        source, kind = _open_last(run, last)
        if not containers and kind is not None:
            containers = [(kind, "")]
        for kind, inner in reversed(containers):
            source = _open_container(shown(uri), kind, inner, source, scratch)
    return source


def _open_last(run: RunSpec, link: str) -> tuple[Source, str | None]:
    """The place itself, and the container that it can be nothing but."""
    if is_upload(link):
        upload = open_upload(run, link)
        return upload, container_of(run, upload)
    scheme, path = parse(link)
    if scheme in CONTAINERS:
        raise _unsupported(run.spec.dataset.uri)
    credentials = read_credentials(run.credentials_file, run.spec.dataset.credentials)
    return _open_place(run, scheme, path, credentials), _container_of(path)


def _container_of(path: str) -> str | None:
    """Archives that can be nothing but containers need no `zip://` before them; a plain tar may be a WebDataset."""
    name = path.partition("?")[0].lower()
    return "zip" if name.endswith(".zip") else "tar" if name.endswith(COMPRESSED_TARS) else None


def _open_container(uri: str, kind: str, inner: str, source: Source, scratch: Path) -> Source:
    archive = next(source.entries(), None)
    if archive is None:
        raise FileNotFoundError(uri)
    containers: dict[str, type[ZipSource] | type[TarSource]] = {"zip": ZipSource, "tar": TarSource}
    return containers[kind](uri, source, archive, inner, scratch)


def _open_place(run: RunSpec, scheme: str, path: str, credentials: Credentials) -> Source:
    uri = f"{scheme}://{path}"
    if scheme == "file":
        return _open_folder(run.spec.dataset.uri, path, run.data_roots)
    if scheme not in {"s3", *WEB, *PACKAGES}:
        raise _unsupported(run.spec.dataset.uri)
    if scheme == "dvc":
        return _open_dvc(run.spec.dataset.uri, path, run.data_roots)
    check_allowed(uri, run.allowed_uris)
    if scheme in WEB:
        return WebSource(uri, uri, run.allowed_uris)
    if scheme == "s3":
        return _open_bucket(run.spec.dataset.uri, path, credentials)
    return RemoteSource(run.spec.dataset.uri, open_filesystem(scheme, credentials.options_for(scheme)), path)


def _open_folder(uri: str, path: str, roots: list[Path]) -> Source:
    real = allowed_path(path, roots)
    return FolderSource(uri, real.parent, roots, real.name) if real.is_file() else FolderSource(uri, real, roots)


def _open_bucket(uri: str, path: str, credentials: Credentials) -> Source:
    bucket, _, key = path.partition("/")
    folder, _, name = key.rpartition("/")
    if name.lower().endswith(FILE_SUFFIXES) and S3Source(uri, bucket, folder, credentials).exists(name):
        return S3Source(uri, bucket, folder, credentials, name)
    return S3Source(uri, bucket, key, credentials)


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


def _unsupported(uri: str) -> Failed:
    return Failed(
        Reason.UNSUPPORTED,
        f"the dataset URI {shown(uri)!r} is not one that can be read",
        "use file://folder, s3://bucket/folder, gs://, az://, hf://, https://host/file, or an archive over one of "
        "them, as in zip://::file://archive.zip",
    )


def read_file(run: RunSpec, uri: str) -> bytes:
    """A whole file, such as weights, from any place that the run's dataset could lie. Raises `Failed`."""
    spec = run.spec.model_copy(update={"dataset": run.spec.dataset.model_copy(update={"uri": uri})})
    with tempfile.TemporaryDirectory(prefix="trainyard-file-") as scratch:
        source = open_source(run.model_copy(update={"spec": spec}), Path(scratch))
        with reading(shown(uri)):
            found = list(islice(source.entries(), 2))
            if len(found) != 1:
                raise FileNotFoundError(uri)
            entry = found[0]
            with source.open(entry) as file:
                return file.read()
