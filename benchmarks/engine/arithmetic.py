"""The least time that the arithmetic of a training can take on this machine."""

from __future__ import annotations

import os
import time
from functools import cache

import torch
from torch.nn import functional

from training_core.vision.networks import make_model


def limit_seconds(network: str, images: float) -> float:
    """Of the arithmetic alone: forward, and twice as much backward, at the fastest rate seen here."""
    products = 0.0

    def count(layer: torch.nn.Module, given: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        nonlocal products
        assert isinstance(layer, torch.nn.Conv2d)
        ones = torch.ones(1, 1, *given[0].shape[2:])
        kernel = torch.ones(1, 1, *layer.kernel_size)
        # Products with the padding are zero, and left out by good kernels.
        taps = functional.conv2d(ones, kernel, stride=layer.stride, padding=layer.padding).sum()
        products += float(taps) * layer.in_channels * layer.out_channels

    model = make_model(network, channels=1, classes=10).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    return 3 * 2 * products * images / fastest_rate()


@cache
def fastest_rate(repeats: int = 8) -> float:
    """Floating-point operations a second on all cores allowed, in a matrix product and in a convolution."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    matrix, filters = torch.randn(2048, 2048), torch.randn(64, 64, 3, 3)
    images = torch.randn(32, 64, 58, 58).contiguous(memory_format=torch.channels_last)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        matrix @ matrix
        middle = time.perf_counter()
        functional.conv2d(images, filters)
        rates.append(2 * 2048**3 / (middle - start))
        rates.append(2 * 64 * 64 * 9 * 56**2 * 32 / (time.perf_counter() - middle))
    return max(rates)
