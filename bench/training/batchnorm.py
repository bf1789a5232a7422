"""Batch norm synchronized over all processes of a run, on any device."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from bench.runtime import distributed
from bench.training.whole_batch import sum_of_all


def synchronize(network: nn.Module) -> None:
    """Make every batch norm of a network train on the statistics of all processes, in place.

    torch's SyncBatchNorm does the same on GPUs alone, and does not support timm's norms with a
    built-in activation. With one process nothing changes.
    """
    if distributed.world_size() == 1:
        return
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            # The forward of this module, not of its class: mypy allows no method to be assigned.
            module.forward = types.MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(norm: Any, x: Tensor) -> Tensor:
    """Batch norm over the batches of all processes; gradients flow through their statistics."""
    if not norm.training:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1 if axis in axes else -1 for axis in range(x.ndim)]
    values = x.float()
    count = distributed.world_size() * x.numel() / x.shape[1]  # as many in every process
    mean = sum_of_all(values.sum(axes)) / count
    centered = values - mean.view(shape)
    variance = sum_of_all(centered.square().sum(axes)) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        unbiased = variance * count / (count - 1)
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
    scaled = centered * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    for name in ("drop", "act"):  # timm's norms include dropout and an activation
        scaled = getattr(norm, name, nn.Identity())(scaled)
    result: Tensor = scaled.to(x.dtype)
    return result
