"""Fashion-MNIST as others train it, with the network that is given: the contenders of `time_to_accuracy`.

    python -m benchmarks.engine.time_to_accuracy_peers tutorial DATA NETWORK RESULT [--seed 0] [--seconds 120] ...

Each reads `torchvision.datasets.FashionMNIST` through `ToTensor` and `Normalize` in a DataLoader, as torchvision's and
Lightning's own pages do. It writes a JSON line after the first step, and one with the accuracy on the 10,000 test
images after each epoch. `reference` is the recipe of torchvision's references/classification (SGD with momentum 0.9 and
decay 1e-4, a rate of 0.1 for 256 images of the batch that falls to a tenth after each third, horizontal flips), its
schedule fitted to the seconds it has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from training_core.vision.networks import make_model

BATCH, EVALUATION_BATCH = 64, 1000
RATE = 1e-3
REFERENCE_BATCH, REFERENCE_RATE = 128, 0.05


class Record:
    """JSON lines with the wall time; says when to stop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._file = options.result.open("a", buffering=1)
        self._target: float | None = options.target
        self._until: float = options.started + options.seconds
        self._first = True

    def stepped(self) -> None:
        if self._first:
            self._first = False
            self._write(first_step=True)

    def over(self) -> bool:
        return time.time() > self._until

    def evaluated(self, accuracy: float, images: int) -> bool:
        """True when the training should end: at the highest target, or when its time is over."""
        self._write(accuracy=accuracy, images=images)
        return self.over() or (self._target is not None and accuracy >= self._target)

    def _write(self, **values: Any) -> None:
        self._file.write(json.dumps({"at": time.time(), **values}) + "\n")


def loaders(options: argparse.Namespace, batch: int, *, flip: bool) -> tuple[Any, Any]:
    from torchvision import datasets, transforms  # noqa: PLC0415  its import is part of what is timed

    plain = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    change = transforms.Compose([transforms.RandomHorizontalFlip(), *plain] if flip else plain)
    train = datasets.FashionMNIST(str(options.data), train=True, transform=change)
    test = datasets.FashionMNIST(str(options.data), train=False, transform=transforms.Compose(plain))
    workers: dict[str, Any] = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    loader: Callable[..., Any] = torch.utils.data.DataLoader
    return loader(train, batch, shuffle=True, **workers), loader(test, EVALUATION_BATCH, **workers)


def tutorial(options: argparse.Namespace, record: Record) -> None:
    """The loop of the PyTorch quickstart, with Adam."""
    train, test = loaders(options, BATCH, flip=False)
    model = make_model(options.network, channels=1, classes=10)
    loop(model, torch.optim.Adam(model.parameters(), RATE), (train, test), record)


def reference(options: argparse.Namespace, record: Record) -> None:
    train, test = loaders(options, REFERENCE_BATCH, flip=True)
    model = make_model(options.network, channels=1, classes=10)
    optimizer = torch.optim.SGD(model.parameters(), REFERENCE_RATE, momentum=0.9, weight_decay=1e-4)
    began = options.started

    def rate() -> None:
        done = (time.time() - began) / options.seconds
        for group in optimizer.param_groups:
            group["lr"] = REFERENCE_RATE * 0.1 ** int(3 * done)

    loop(model, optimizer, (train, test), record, before_step=rate)


def loop(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: tuple[Any, Any],
    record: Record,
    *,
    before_step: Callable[[], None] = lambda: None,
) -> None:
    train, test = data
    seen, over = 0, False
    while not over:
        model.train()
        for images, labels in train:
            before_step()
            loss = functional.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            record.stepped()
            seen += len(images)
            if record.over():
                break
        over = record.evaluated(accuracy_of(model, test), seen)


def accuracy_of(model: nn.Module, test: Any) -> float:
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in test:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def lightning(options: argparse.Namespace, record: Record) -> None:
    """A LightningModule and a Trainer with what they do by default, but for log files and bars."""
    import lightning as pl  # noqa: PLC0415  its import is part of what is timed

    class Classifier(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = make_model(options.network, channels=1, classes=10)
            self.right = self.total = self.seen = 0

        def training_step(self, batch: Any, _: int) -> Any:
            images, labels = batch
            self.seen += len(images)
            return functional.cross_entropy(self.network(images), labels)

        def on_train_batch_end(self, *_: Any) -> None:
            record.stepped()
            if record.over():
                self.trainer.should_stop = True

        def validation_step(self, batch: Any, _: int) -> None:
            images, labels = batch
            self.right += int((self.network(images).argmax(1) == labels).sum())
            self.total += len(labels)

        def on_validation_epoch_end(self) -> None:
            if record.evaluated(self.right / self.total, self.seen):
                self.trainer.should_stop = True
            self.right = self.total = 0

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), RATE)

    train, test = loaders(options, BATCH, flip=False)
    trainer = pl.Trainer(
        max_epochs=1000,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Classifier(), train, test)


CONTENDERS = {"tutorial": tutorial, "reference": reference, "lightning": lightning}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("data", type=Path)
    parser.add_argument("network")
    parser.add_argument("result", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--started", type=float, default=time.time(), help="when the process was started, seconds")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--target", type=float, help="end at this accuracy")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    CONTENDERS[options.contender](options, Record(options))


if __name__ == "__main__":
    main()
