"""The files of one upload on their way into the store: named, counted, hashed and written, one after the other."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor

from api.errors import Code, Problem
from api.uploads.names import BadName, Names
from api.uploads.vault import Vault, Writing
from training_core.contract.uploads import DATA, UploadedFile

SMALL_BYTES = 1 << 20
PUTS, WAITING_PUTS = 16, 64


class Incoming:
    """`begin`, `write` as often as needed, `end`; for each file, then `close`. Raises problems."""

    def __init__(self, files_limit: int) -> None:
        self.files: list[UploadedFile] = []
        self._limit, self._names = files_limit, Names()
        self._path, self._digest, self._size = "", hashlib.sha256(), 0

    def begin(self, path: str) -> None:
        number = len(self.files) + 1
        if number > self._limit:
            detail = f"An upload has at most {self._limit:,} files"
            raise Problem(413, Code.BODY_TOO_LARGE, detail, hint="Send them as one archive, such as a zip or a tar")
        try:
            self._names.add(path)
        except BadName as problem:
            raise _bad_name(number, problem) from None
        self._path, self._digest, self._size = path, hashlib.sha256(), 0

    def write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += len(piece)

    def end(self) -> UploadedFile:
        self.files.append(UploadedFile(path=self._path, size=self._size, sha256=self._digest.hexdigest()))
        return self.files[-1]

    def close(self) -> None:
        """All files are complete, and in the store."""

    def abandon(self) -> None:
        """Nothing more is coming."""


class Stored(Incoming):
    """As `Incoming`, and writes them. Small files go to a bucket several at a time."""

    def __init__(self, vault: Vault, dataset_id: str, files_limit: int) -> None:
        super().__init__(files_limit)
        self._vault, self._dataset_id = vault, dataset_id
        self._pool = ThreadPoolExecutor(PUTS, "put") if vault.is_bucket() else None
        self._puts: list[Future[None]] = []
        self._small = bytearray()
        self._writing: Writing | None = None

    def begin(self, path: str) -> None:
        super().begin(path)
        self._small.clear()

    def write(self, piece: bytes) -> None:
        super().write(piece)
        if self._writing is None and len(self._small) + len(piece) <= SMALL_BYTES:
            self._small += piece
            return
        if self._writing is None:
            self._writing = Writing(self._vault, self._dataset_id, f"{DATA}/{self._path}")
            self._writing.write(bytes(self._small))
            self._small.clear()
        self._writing.write(piece)

    def end(self) -> UploadedFile:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.close()
        else:
            self._put(f"{DATA}/{self._path}", bytes(self._small))
        return super().end()

    def _put(self, path: str, content: bytes) -> None:
        if self._pool is None:
            self._vault.write(self._dataset_id, path, content)
            return
        self._puts.append(self._pool.submit(self._vault.write, self._dataset_id, path, content))
        while len(self._puts) > WAITING_PUTS:
            self._puts.pop(0).result()

    def close(self) -> None:
        for put in self._puts:
            put.result()
        if self._pool is not None:
            self._pool.shutdown()

    def abandon(self) -> None:
        """Take away what is half-written; the caller deletes the rest."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._writing is not None:
            self._writing.abandon()


def _bad_name(number: int, problem: BadName) -> Problem:
    message = f"The name of file {number} {problem}"
    fault = {"parameter": f"file {number}", "code": "bad_name", "message": message}
    hint = 'Name each part with filename="train/cat/1.jpg": the place of the file in the dataset'
    return Problem(422, Code.INVALID_REQUEST, message, errors=[fault], hint=hint)
