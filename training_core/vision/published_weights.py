"""torchvision's published weights: found in its weights folder, or fetched into it once. Torch-free.

The folder is that of `torch.hub`, so a file that is put there by hand, or was loaded by torchvision before, is found.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import urllib3

from training_core.contract.errors import Failed, Reason
from training_core.contract.uris import check_endpoint
from training_core.outgoing import Denied, Networks, pool_manager

CONNECT_AND_READ_SECONDS = 30
LARGEST_FILE_BYTES = 2**30
CHUNK_BYTES = 2**20
REDIRECTS, MOST_REDIRECTS = {301, 302, 303, 307, 308}, 3

# Of the ImageNet images the networks were trained on, in units of 0-255.
MEAN = [0.485 * 255, 0.456 * 255, 0.406 * 255]
DEVIATION = [0.229 * 255, 0.224 * 255, 0.225 * 255]


@dataclass(frozen=True)
class Published:
    """A file of official weights; the end of its name's stem begins the SHA-256 of its content."""

    version: str
    url: str

    @property
    def file_name(self) -> str:
        return urlsplit(self.url).path.rsplit("/", 1)[-1]

    @property
    def sha256_prefix(self) -> str:
        return self.file_name.rsplit(".", 1)[0].rsplit("-", 1)[-1]


# What `torchvision.models.get_model_weights(name).DEFAULT` says; a test compares them. Asking it costs seconds.
_SITE = "https://download.pytorch.org/models"
PUBLISHED = {
    "resnet18": Published("IMAGENET1K_V1", f"{_SITE}/resnet18-f37072fd.pth"),
    "resnet50": Published("IMAGENET1K_V2", f"{_SITE}/resnet50-11ad3fa6.pth"),
    "mobilenet_v3_small": Published("IMAGENET1K_V1", f"{_SITE}/mobilenet_v3_small-047dcff4.pth"),
    "mobilenet_v3_large": Published("IMAGENET1K_V2", f"{_SITE}/mobilenet_v3_large-5c1a4163.pth"),
}


def weights_folder() -> Path:
    """The folder of `torch.hub.load_state_dict_from_url`: `$TORCH_HOME/hub/checkpoints`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub" / "checkpoints"


def published_file(name: str, networks: Networks) -> Path:
    """The verified file of the network `name`, found, or fetched now from where `networks` allow.

    Raises `Failed(unsupported)` for a network without published weights and `Failed(weights_unavailable)`.
    """
    published = PUBLISHED.get(name)
    if published is None:
        raise Failed(
            Reason.UNSUPPORTED,
            f"{name} has no published weights",
            f"set model.name to {', '.join(PUBLISHED)} or auto, give model.weights, or set model.pretrained to false",
        )
    path = weights_folder() / published.file_name
    if not path.exists():
        _fetch(published, path, networks)
    elif not _sha256(path).startswith(published.sha256_prefix):
        raise unavailable(published, f"{path} is not the published file: its SHA-256 is another", path)
    return path


def unavailable(published: Published, problem: str, path: Path) -> Failed:
    return Failed(
        Reason.WEIGHTS_UNAVAILABLE,
        problem,
        f"put {published.file_name} (from {published.url}) into {path.parent} on the worker, "
        "or give model.weights, or set model.pretrained to false",
    )


def _fetch(published: Published, path: Path, networks: Networks) -> None:
    """Into a file of its own first: whoever looks at `path` finds nothing, or the whole and verified file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as problem:
        raise unavailable(
            published, f"the weights folder {path.parent} cannot be written: {problem}", path
        ) from problem
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = _download(published.url, file.write, networks)
            file.flush()
            os.fsync(file.fileno())
        if not digest.startswith(published.sha256_prefix):
            raise unavailable(published, f"{published.url} answered with something else than the published file", path)
        Path(temporary).replace(path)
    except (OSError, urllib3.exceptions.HTTPError, Denied) as problem:
        if isinstance(problem, OSError) and problem.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise unavailable(published, f"{published.url} cannot be fetched: {_words(problem)}", path) from problem
    finally:
        Path(temporary).unlink(missing_ok=True)


def _download(url: str, write: Callable[[bytes], object], networks: Networks) -> str:
    """Hand the body to `write` in pieces; returns its SHA-256. A body shorter than announced is an error."""
    digest, received = hashlib.sha256(), 0
    with closing(_open(url, networks)) as answer:
        announced = answer.headers.get("Content-Length")
        for chunk in answer.stream(CHUNK_BYTES, decode_content=False):
            received += len(chunk)
            if received > LARGEST_FILE_BYTES:
                raise OSError(f"it has more than {LARGEST_FILE_BYTES >> 20} MiB")
            digest.update(chunk)
            write(chunk)
    if announced is not None and received != int(announced):
        raise OSError(f"it ended after {received:,} of {int(announced):,} bytes")
    return digest.hexdigest()


def _open(url: str, networks: Networks) -> urllib3.BaseHTTPResponse:
    """The answer, whatever it was moved to; each address is looked at before it is asked."""
    pool = pool_manager(networks, timeout=urllib3.Timeout(CONNECT_AND_READ_SECONDS), retries=False)
    for _ in range(MOST_REDIRECTS + 1):
        answer = pool.request(
            "GET", check_endpoint(url).address, preload_content=False, redirect=False, enforce_content_length=False
        )
        if answer.status == 200:
            return answer
        answer.close()
        if answer.status not in REDIRECTS:
            raise OSError(f"the server answered {answer.status}")
        url = urljoin(url, answer.headers.get("Location", ""))
    raise OSError("the server redirects without end")


def _words(problem: Exception) -> str:
    if isinstance(problem, Denied):
        return f"{problem.message}; {problem.hint}"
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause) or type(cause).__name__
        cause = cause.__cause__
    return type(problem).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
