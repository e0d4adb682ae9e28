"""What every format needs to find its samples."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from training_core.contract.run_dir import RunSpec
from training_core.contract.spec import Dataset
from training_core.data.formats.survey import Survey
from training_core.data.formats.writer import SampleWriter
from training_core.data.listing import Listing, write_listing
from training_core.data.samples import Reader, Samples
from training_core.data.sources import Source

Opened = tuple[Samples, Reader]


@dataclass(frozen=True)
class Context:
    """`folder` takes the samples and whatever else the format leaves on disk."""

    run: RunSpec
    source: Source
    listing: Listing
    survey: Survey
    folder: Path
    stack: ExitStack

    def writer(self, form: str) -> SampleWriter:
        """Closed with the context."""
        return self.stack.enter_context(closing(SampleWriter(self.folder, self.uri, form)))

    def around(self) -> Listing:
        """Of all files that a manifest may name."""
        folder = self.source.beside()
        return self.listing if folder is None else write_listing(folder.entries(), self.folder / "around.arrow")

    @property
    def uri(self) -> str:
        return self.source.uri

    @property
    def dataset(self) -> Dataset:
        return self.run.spec.dataset
