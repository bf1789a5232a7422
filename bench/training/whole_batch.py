"""Sums and rows over the batches of all processes, with gradients, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from bench.runtime import distributed


def sum_of_all(values: Tensor) -> Tensor:
    """The sum over all processes; its gradient is summed likewise."""
    if distributed.world_size() == 1:
        return values
    total: Tensor = _Sum.apply(values)
    return total


def rows_of_all(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in the order of the whole batch, (processes x B, ...).

    A loss of these is that of the whole batch in every process. So the mean of its gradients over
    the processes, which is what training takes, is the gradient of one process.
    """
    processes = distributed.world_size()
    if processes == 1:
        return rows
    whole = rows.new_zeros(processes, *rows.shape)
    whole[distributed.rank()] = rows
    return sum_of_all(whole).flatten(0, 1)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total
