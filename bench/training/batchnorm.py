"""Batch norm: synchronized over all processes of a run, and its statistics after training."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


@contextmanager
def population_statistics(network: nn.Module) -> Iterator[None]:
    """Give the batch norms that train, at the end, the statistics of all batches in between.

    Every position of every image counts alike, where running statistics are mostly those of the
    last batches (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3; PreciseBN of
    detectron2, by fvcore's update_bn_stats). Gradients should be off.

    Args:
        network: in training mode; norms in evaluation mode keep their statistics.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    momenta = [norm.momentum for norm in norms]
    populations = [_Population(norm) for norm in norms]
    with ExitStack() as hooks:
        for norm, population in zip(norms, populations, strict=True):
            norm.momentum = 1.0  # running statistics are then those of the last batch
            hooks.callback(norm.register_forward_hook(population.add).remove)
        yield
    for norm, population, momentum in zip(norms, populations, momenta, strict=True):
        norm.momentum = momentum
        population.write(norm)


class _Population:
    """Mean and biased variance of all values that a batch norm has been given, by channel."""

    def __init__(self, norm: Any) -> None:
        self.count = 0
        self.mean = torch.zeros_like(norm.running_mean)
        self.variance = torch.zeros_like(norm.running_var)

    def add(self, norm: Any, inputs: tuple[Tensor], _: Tensor) -> None:
        """Add the batch that a norm of momentum 1 has just seen (Chan et al. 1979, section 2)."""
        count = distributed.world_size() * (inputs[0].numel() // inputs[0].shape[1])
        self.count += count
        share = count / self.count
        change = norm.running_mean - self.mean
        biased = norm.running_var * (count - 1) / count
        self.mean += share * change
        self.variance += share * (biased - self.variance + (1 - share) * change.square())

    def write(self, norm: Any) -> None:
        """Make these the statistics of a norm."""
        norm.running_mean.copy_(self.mean)
        norm.running_var.copy_(self.variance)
