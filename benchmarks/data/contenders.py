"""The loaders that are compared, each as a function of the folder that gives epochs of batches; and their own forms.

Peers run as their documentation shows them. None of them is asked for more than it can: DALI decodes only the part of
the picture that is cropped, and all resize with antialiasing.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH, SIDE, WORKERS, AREA = 64, 224, 2, (0.08, 1.0)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NOTES = (
    "ImageFolder and webdataset decode by Pillow (webdataset's `pil`), litdata by torchvision from its JPEG chunks, "
    "DALI by libjpeg-turbo, and only the part that is cropped; all resize bilinear with antialiasing. Ours normalises "
    "in the calling thread, as a training does; the peers do it in their workers. The prepared forms are 258 pixels on "
    "the shorter side, made once by `prepare`."
)

Epoch = Callable[[], Iterator[Any]]


def image_folder(folder: Path) -> Epoch:
    from torchvision.datasets import ImageFolder  # noqa: PLC0415

    data = ImageFolder(str(folder / "images"), transform=transforms())
    loader: Any = torch.utils.data.DataLoader(
        data, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, drop_last=True
    )
    return lambda: (images for images, _ in loader)


def transforms() -> Any:
    from torchvision.transforms import v2  # noqa: PLC0415

    return v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, scale=AREA, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, DEVIATION),
        ]
    )


def web_dataset(folder: Path) -> Epoch:
    import webdataset  # noqa: PLC0415

    shards = [str(path) for path in sorted((folder / "tar").glob("*.tar"))]
    data = webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(500).decode("pil").to_tuple("jpg", "cls")
    data = data.map_tuple(transforms(), int).batched(BATCH, partial=False)
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=WORKERS, persistent_workers=True)
    return lambda: (images for images, _ in loader)


def lit_data(folder: Path) -> Epoch:
    from litdata import StreamingDataLoader, StreamingDataset  # noqa: PLC0415

    change = transforms()

    class Pictures(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> Any:
            return change(super().__getitem__(index)["image"])

    data = Pictures(str(folder / "lit"), shuffle=True, drop_last=True)
    loader = StreamingDataLoader(data, batch_size=BATCH, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    return lambda: iter(loader)


def dali(folder: Path) -> Epoch:
    from nvidia.dali import fn, pipeline_def, types  # noqa: PLC0415
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy  # noqa: PLC0415
    from nvidia.dali.plugin.pytorch import DALIGenericIterator  # noqa: PLC0415

    @pipeline_def(batch_size=BATCH, num_threads=WORKERS, device_id=None)
    def pipeline() -> Any:
        files, labels = fn.readers.file(file_root=str(folder / "images"), random_shuffle=True, name="files")
        images = fn.decoders.image_random_crop(
            files, output_type=types.RGB, random_area=list(AREA), random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=10
        )
        images = fn.resize(images, size=[SIDE, SIDE], interp_type=types.INTERP_LINEAR, antialias=True)
        images = fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout="CHW",
            mean=[255 * value for value in MEAN],
            std=[255 * value for value in DEVIATION],
            mirror=fn.random.coin_flip(),
        )
        return images, labels

    loader = DALIGenericIterator(
        [pipeline()],
        ["images", "labels"],
        reader_name="files",
        auto_reset=True,
        last_batch_policy=LastBatchPolicy.DROP,
    )
    return lambda: (batch[0]["images"] for batch in loader)


def ours(packing: str) -> Callable[[Path], Epoch]:
    def contender(folder: Path) -> Epoch:
        from training_core.contract.spec import Sampling  # noqa: PLC0415
        from training_core.data.sampler import Columns, Sampler  # noqa: PLC0415
        from training_core.vision.augment import presets  # noqa: PLC0415
        from training_core.vision.prefetch import Loader, Normalise  # noqa: PLC0415
        from training_core.vision.transforms import Recipe  # noqa: PLC0415
        from training_core.vision.worker_pool import ThreadCrew  # noqa: PLC0415

        torch.set_num_threads(1)
        presets.PRESETS["crop-and-flip"] = presets.Preset(area=AREA, flip=True)
        pack = pack_of(folder, packing)
        crew = ThreadCrew(pack, [Recipe(pack.folder, "crop-and-flip", 0)], threads=WORKERS)
        sampler = Sampler(np.arange(len(pack)), Sampling(), Columns(), seed=0, epochs=1)
        loader = Loader(crew, sampler.batches(BATCH, (SIDE, SIDE)), np.zeros(len(pack), np.int64), pack.channels)
        scale = [255 * value for value in MEAN], [255 * value for value in DEVIATION]
        normalise = Normalise(*scale, torch.device("cpu"))
        return lambda: (normalise(batch)[0] for batch in islice(loader, len(pack) // BATCH))

    return contender


ALL: dict[str, Callable[[Path], Epoch]] = {
    "torchvision ImageFolder + DataLoader": image_folder,
    "webdataset": web_dataset,
    "litdata": lit_data,
    "DALI on the CPU": dali,
    "ours, original JPEG": ours("original"),
    "ours, prepared JPEG": ours("jpeg"),
    "ours, prepared raw": ours("raw"),
}


def make_forms(folder: Path) -> None:
    """The tar shards, litdata's chunks and our packs of the files; each once."""
    files = sorted((folder / "images").rglob("*.jpg"))
    for name, make in (("tar", _make_tar), ("lit", _make_lit)):
        if not (folder / name).exists():
            shutil.rmtree(folder / f"{name}.part", ignore_errors=True)
            make(files, folder / f"{name}.part")
            (folder / f"{name}.part").rename(folder / name)
    for packing in ("original", "jpeg", "raw"):
        pack_of(folder, packing)


def _make_tar(files: list[Path], target: Path) -> None:
    target.mkdir()
    mixed = [files[index] for index in np.random.default_rng(0).permutation(len(files))]
    for number in range(8):
        with tarfile.open(target / f"{number:04d}.tar", "w") as tar:
            for file in mixed[number::8]:
                for suffix, content in (("jpg", file.read_bytes()), ("cls", b"0")):
                    member = tarfile.TarInfo(f"{file.stem}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def lit_sample(path: str) -> dict[str, Any]:
    from PIL import Image  # noqa: PLC0415

    return {"image": Image.open(path), "label": 0}


def _make_lit(files: list[Path], target: Path) -> None:
    from litdata import optimize  # noqa: PLC0415

    mixed = [str(files[index]) for index in np.random.default_rng(0).permutation(len(files))]
    optimize(lit_sample, mixed, output_dir=str(target), chunk_bytes="8MB", num_workers=WORKERS)


def pack_of(folder: Path, packing: str) -> Any:
    from training_core.contract.run_dir import RunSpec  # noqa: PLC0415
    from training_core.contract.spec import JobSpec  # noqa: PLC0415
    from training_core.vision.pack import Pack  # noqa: PLC0415
    from training_core.vision.prepare import prepare  # noqa: PLC0415

    spec = JobSpec.model_validate(
        {
            "task": "image-classification",
            "dataset": {"uri": f"file://{folder}/images", "packing": packing},
            "training": {"image_size": SIDE},
        }
    )
    run = RunSpec(spec=spec, store=f"file://{folder}/store", cache_dir=folder / "cache", data_roots=[folder])
    return Pack(prepare(run, lambda: False, lambda _: None).folder)
