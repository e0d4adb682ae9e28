"""What a training works on: a prepared dataset, and the rows of it that the job's cleaning and splits chose."""

from __future__ import annotations

from copy import copy
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training_core.contract.run_dir import Prepared
from training_core.data.items import Items
from training_core.data.sampler import Indices
from training_core.data.samples import SPLITS
from training_core.vision.pack import Pack


class Chosen:
    """`splits` holds rows by name of the split; the folder is in use for as long as this object lives."""

    def __init__(self, prepared: Prepared) -> None:
        self.pack = Pack(prepared.folder)
        self.meta = self.pack.meta
        self.weights = prepared.weights
        self.items = Items(prepared.folder)
        with np.load(prepared.selection, allow_pickle=False) as selection:
            self.splits: dict[str, Indices] = {name: selection[name] for name in SPLITS}

    def with_splits(self, splits: dict[str, Indices]) -> Chosen:
        """The same dataset with other rows."""
        other = copy(self)
        other.splits = splits
        return other

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """`(rows,)`."""
        labels: NDArray[np.int64] = self.items.column("label").astype(np.int64)
        return labels
