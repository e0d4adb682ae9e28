"""Export a checkpoint by hand:

    python -m training_core.export STORE CHECKPOINT --format onnx --to FOLDER [--images FOLDER]

STORE is the folder or the s3:// prefix in which the checkpoints lie, CHECKPOINT the path below it
(`jobs/…/step-00001000`). The images check the export, and calibrate int8; sorted into folders by class, they measure
its accuracy too. Without any, noise shows that the graphs compute the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from training_core.contract.errors import Failed
from training_core.contract.spec import ExportFormat
from training_core.export.pictures import noise, of_folder
from training_core.export.write import Exporter, read_trained, write
from training_core.storage.store import FolderStore, store_at


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training_core.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--format", choices=get_args(ExportFormat), required=True)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="made, or an earlier export replaced")
    parser.add_argument("--images", type=Path, metavar="FOLDER")
    parser.add_argument("--credentials", type=Path, metavar="FILE", help="with an entry `store`, for s3://")
    wanted = parser.parse_args(arguments)
    try:
        export(wanted)
    except Failed as problem:
        print(problem.message + (f"; {problem.hint}" if problem.hint else ""), file=sys.stderr)  # noqa: T201
        return 1
    return 0


def export(wanted: argparse.Namespace) -> None:
    """Raises `Failed`."""
    trained = read_trained(store_at(wanted.store, wanted.credentials), wanted.checkpoint)
    side, channels = trained.preprocessing.image_size, trained.preprocessing.channels
    pictures = of_folder(wanted.images, side, channels, trained.classes) if wanted.images else noise(side, channels)
    done = Exporter(trained, wanted.checkpoint, pictures, {}).export(wanted.format)
    folder = wanted.to.absolute()
    write(FolderStore(folder.parent), folder.name, done)
    print(json.dumps({"folder": str(folder), "check": done.card.check}, indent=1))  # noqa: T201
    if done.warning is not None:
        print(done.warning, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
