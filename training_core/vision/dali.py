"""NVIDIA's DALI as the crew: decodes and resizes on the GPU where there is one. An extra, and only when asked for.

The boxes, the flips and what happens to pictures afterwards are those of every other crew, so a resume is as exact. The
pictures differ by rounding. It pays where CPUs cannot keep up: decoding takes time of the GPU from the training.
"""

from __future__ import annotations

import importlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from training_core.contract.errors import Failed, Reason
from training_core.data.sampler import COPY, Indices, Part
from training_core.vision.augment.counter_rng import Bits
from training_core.vision.pack import Pack
from training_core.vision.transforms import Recipe, Renderer
from training_core.vision.worker_pool import Images, Memory, Slot, images_in

IMAGES_A_RUN = 64


class DaliCrew:
    """One pipeline, run by one thread of ours; DALI has `threads` of its own.

    Raises `Failed(unsupported)` where DALI is not installed or the pack holds no JPEG.
    """

    def __init__(self, pack: Pack, recipes: list[Recipe], *, threads: int, device: torch.device) -> None:
        if pack.encoding == "raw":
            raise Failed(
                Reason.UNSUPPORTED,
                "DALI has nothing to decode: the prepared images are raw",
                "choose dataset.packing jpeg or original, or leave the worker's loader to auto",
            )
        self._pack, self._pin = pack, device.type == "cuda"
        self._renderers = [Renderer(pack, recipe) for recipe in recipes]
        self._pipeline = _make_pipeline(pack.channels, threads, device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dali")
        self.threads = self.most_threads = threads

    def slot(self, size: int) -> Memory:
        return Memory(size, pin=self._pin)

    def free(self, slot: Slot) -> None:
        """Its memory goes with it."""

    def fill(self, slot: Slot, part: Part, recipe: int) -> Future[None]:
        images = images_in(slot.memory, part, self._pack.channels)
        return self._thread.submit(self._render, self._renderers[recipe], part.draws, part.epoch, images)

    def _render(self, renderer: Renderer, draws: Indices, epoch: int, out: Images) -> None:
        rows, shape = draws % COPY, (out.shape[1], out.shape[2])
        bits = Bits(draws, renderer.seed, epoch)
        boxes, flips = renderer.geometry(rows, bits, shape)
        plain = np.flatnonzero(self._pack.plain[rows])
        for start in range(0, len(plain), IMAGES_A_RUN):
            some = plain[start : start + IMAGES_A_RUN]
            out[some] = self._run(rows[some], boxes[some], flips[some], shape)
        # Other files, and JPEGs that need turning, are made as everywhere.
        for one in np.flatnonzero(~self._pack.plain[rows]):
            piece = slice(one, one + 1)
            renderer.cut(rows[piece], boxes[piece], flips[piece], out[piece])
        renderer.change(bits, out)

    def _run(self, rows: Indices, boxes: np.ndarray[Any, Any], flips: Any, shape: tuple[int, int]) -> Images:
        feed = self._pipeline.feed_input
        feed("files", [np.frombuffer(self._pack.encoded(row), np.uint8) for row in rows.tolist()])
        feed("anchors", boxes[:, :2].astype(np.int32))
        feed("extents", boxes[:, 2:].astype(np.int32))
        feed("sizes", np.tile(np.array(shape, np.float32), (len(rows), 1)))
        feed("flips", flips.astype(np.int32))
        (pictures,) = self._pipeline.run()
        made: Images = pictures.as_cpu().as_array()
        return made

    def grow(self) -> bool:
        return False

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def _make_pipeline(channels: int, threads: int, device: torch.device) -> Any:
    try:
        dali, fn = importlib.import_module("nvidia.dali"), importlib.import_module("nvidia.dali.fn")
    except ImportError as problem:
        raise Failed(
            Reason.UNSUPPORTED,
            "the worker's loader is dali, and nvidia-dali is not installed",
            "install it beside the worker, or leave the worker's loader to auto",
        ) from problem

    @dali.pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=IMAGES_A_RUN,
        num_threads=threads,
        device_id=device.index or 0 if device.type == "cuda" else None,
        prefetch_queue_depth=1,
    )
    def pipeline() -> Any:
        pictures = fn.decoders.image_slice(
            fn.external_source(name="files"),
            fn.external_source(name="anchors"),
            fn.external_source(name="extents"),
            device="mixed" if device.type == "cuda" else "cpu",
            axes=[0, 1],
            normalized_anchor=False,
            normalized_shape=False,
            output_type=dali.types.GRAY if channels == 1 else dali.types.RGB,
            # What was packed is upright, and what is not plain does not come here.
            adjust_orientation=False,
        )
        pictures = fn.resize(
            pictures, size=fn.external_source(name="sizes"), interp_type=dali.types.INTERP_LINEAR, antialias=True
        )
        return fn.flip(pictures, horizontal=fn.external_source(name="flips"))

    made = pipeline()
    made.build()
    return made
