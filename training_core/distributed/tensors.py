"""Tensors by name: the weights of a network, the state of an optimizer."""

from __future__ import annotations

import torch

Tensors = dict[str, torch.Tensor]
