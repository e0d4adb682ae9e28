"""From a source to its samples: what the files of a dataset mean."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from training_core.contract.run_dir import RunSpec
from training_core.data.archive_index import kept
from training_core.data.formats.context import Context, Opened
from training_core.data.formats.detect import FORMATS, detect
from training_core.data.formats.survey import survey
from training_core.data.listing import Listing, write_listing
from training_core.data.sources import Source, open_source, reading

__all__ = ["open_dataset", "read_dataset"]


def open_dataset(run: RunSpec, folder: Path) -> Opened:
    """The samples of the run's dataset, listed into `folder`, and their reader.

    No image is read. Raises `Failed` with a reason of the dataset or of its credentials.
    """
    return read_dataset(run, open_source(run, folder), folder)


def read_dataset(run: RunSpec, source: Source, folder: Path) -> Opened:
    """As `open_dataset`, from a source that is open already."""
    with reading(source.uri), ExitStack() as stack:
        listing = _list(run, source, folder)
        context = Context(run, source, listing, survey(listing, source.uri), folder, stack)
        wanted = run.spec.dataset.format
        return FORMATS[detect(context) if wanted == "auto" else wanted](context)


def _list(run: RunSpec, source: Source, folder: Path) -> Listing:
    identity = source.identity()
    if identity is not None:
        return Listing(
            kept(
                run.cache_dir, f"listing 2 {run.readers} {identity}", lambda file: write_listing(source.entries(), file)
            )
        )
    return write_listing(source.entries(), folder / "listing.arrow")
