"""An uploaded dataset, read below the store with the operator's own access; nothing else there is readable as data.

Each file's content is known by its sha256, so that the same files make the same dataset version whenever and wherever
they were uploaded, and a file that is not what was uploaded is seen.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydantic import ValidationError

from training_core.contract.errors import Failed, Reason
from training_core.contract.run_dir import RunSpec
from training_core.contract.uploads import DATA, LISTING, UploadedFile, split_place
from training_core.data.samples import IMAGE_SUFFIXES, Unreadable
from training_core.data.sources.folder import FolderSource
from training_core.data.sources.s3 import S3Source
from training_core.data.sources.source import CHANGED, Entry, Piece, Source, stamp_of
from training_core.data.sources.tar import TarSource
from training_core.outgoing.networks import EVERYWHERE
from training_core.storage.credentials import Credentials, read_all
from training_core.storage.store import STORE_CREDENTIALS

LOOKED_AT = 200  # members of a tar; samples of a WebDataset follow each other
HINT = "upload it again, or ask the operator whether the store was changed"


class UploadedSource:
    """`known` by path. `name` is the one file that is the dataset, or empty."""

    def __init__(self, source: Source, known: dict[str, UploadedFile], name: str) -> None:
        self.uri, self.name = source.uri, name
        self._source, self._known = source, known
        self._there: dict[str, Entry] = {}

    def entries(self) -> Iterator[Entry]:
        """Raises `Failed(dataset_changed)` unless they are those that were uploaded, by their names and sizes."""
        count = 0
        for entry in self._source.entries():
            known = self._known.get(entry.path)
            if known is None or known.size != entry.size:
                raise self._other(entry.path)
            self._there[entry.path] = entry
            count += 1
            yield entry._replace(stamp=stamp_of(known.sha256))
        if count != len(self._known):
            raise self._other(next(path for path in self._known if path not in self._there))

    def read(self, pieces: Iterable[Piece]) -> Iterator[bytes | Unreadable]:
        """A file that is read whole is what was uploaded, to the bit."""
        asked: deque[Piece] = deque()

        def there() -> Iterator[Piece]:
            for piece in pieces:
                asked.append(piece)
                yield piece._replace(entry=self._original(piece.entry))

        for content in self._source.read(there()):
            piece = asked.popleft()
            whole = piece.length < 0 and isinstance(content, bytes)
            yield CHANGED if whole and not self._is_known(piece.entry, content) else content

    def _is_known(self, entry: Entry, content: bytes | Unreadable) -> bool:
        return isinstance(content, bytes) and hashlib.sha256(content).hexdigest() == self._known[entry.path].sha256

    def _original(self, entry: Entry) -> Entry:
        if not self._there:
            deque(self.entries(), maxlen=0)
        return self._there[entry.path]

    def beside(self) -> Source | None:
        return None

    def identity(self) -> str | None:
        return None

    def open(self, entry: Entry) -> BinaryIO:
        return self._source.open(self._original(entry))

    def _other(self, path: str) -> Failed:
        return Failed(Reason.DATASET_CHANGED, f"{path} in {self.uri} is not what was uploaded", HINT)


def open_upload(run: RunSpec, dataset_id: str) -> UploadedSource:
    """Raises `Failed(dataset_unreachable)` for an id that stands for nothing here."""
    place = split_place(run.references.get(dataset_id, ""))
    if place is None:
        raise Failed(
            Reason.DATASET_UNREACHABLE,
            f"the upload {dataset_id} is not there any more",
            "GET /v1/datasets lists those of the project",
        )
    folder, name = place
    listing = _open(run, dataset_id, folder, LISTING)
    entry = next(listing.entries(), None)
    if entry is None:
        raise Failed(Reason.DATASET_UNREACHABLE, f"the upload {dataset_id} is not in the store any more", HINT)
    with listing.open(entry) as file:
        known = _known(dataset_id, file)
    return UploadedSource(_open(run, dataset_id, f"{folder}/{DATA}", name or None), known, name)


def _known(dataset_id: str, file: BinaryIO) -> dict[str, UploadedFile]:
    try:
        return {one.path: one for one in map(UploadedFile.model_validate_json, file)}
    except ValidationError as problem:
        message = f"the list of files of {dataset_id} is damaged"
        raise Failed(Reason.DATASET_CHANGED, message, HINT) from problem


def _open(run: RunSpec, uri: str, folder: str, only: str | None) -> Source:
    """A folder of the store, wherever the operator keeps it, and never what a link in it leads to."""
    scheme, separator, place = run.store.partition("://")
    if scheme == "s3":
        bucket, _, prefix = place.strip("/").partition("/")
        credentials = read_all(run.store_credentials_file).get(STORE_CREDENTIALS, Credentials(anonymous=True))
        return S3Source(uri, bucket, f"{prefix}/{folder}".strip("/"), credentials, networks=EVERYWHERE, only=only)
    root = Path(place if separator else scheme) / folder
    return FolderSource(uri, root, [root], only)


def container_of(run: RunSpec, source: UploadedSource) -> str | None:
    """What the upload's one file is opened as: archives as containers, a tar too unless it is a WebDataset's shard."""
    name = source.name.lower()
    if name.endswith(".zip"):
        return "zip"
    if not name.endswith((".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")):
        return None
    if name.endswith(".tar") and run.spec.dataset.format in {"webdataset", "auto"}:
        return None if run.spec.dataset.format == "webdataset" or _is_shard(source) else "tar"
    return "tar"


def _is_shard(source: UploadedSource) -> bool:
    """Whether files of one name but for their endings follow each other, an image among them."""
    archive = next(source.entries())
    members = TarSource(source.uri, source, archive, "", Path()).entries()
    paths = [PurePosixPath(entry.path) for entry in islice(members, LOOKED_AT)]
    images = set(IMAGE_SUFFIXES)
    for one, two in pairwise(paths):
        endings = {one.suffix.lower(), two.suffix.lower()}
        if _sample(one) == _sample(two) and endings & images and endings - images:
            return True
    return False


def _sample(path: PurePosixPath) -> PurePosixPath:
    return path.parent / path.name.partition(".")[0]
