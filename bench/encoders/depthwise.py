"""Depthwise convolutions that train on processors without AVX-512.

oneDNN has no kernel there for the gradient of a depthwise layer's weights, and takes a general one:
on a map of 2 x 2 that gradient takes 80 times as long as here, and half of a pretraining step
(torch 2.14 on AVX2; no other instructions were tried).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WITHOUT_KERNEL = torch.backends.cpu.get_cpu_capability() != "AVX512"
# A larger map is as fast there. Measured with 240 to 1,152 channels and kernels of 3 and 5.
POSITIONS = 36


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution: its output is torch's, its weights' gradient the one below."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h', w')."""
        small = maps.shape[-2] * maps.shape[-1] <= POSITIONS
        plain = maps.device.type == "cpu" and maps.dtype == self.weight.dtype == torch.float32
        training = torch.is_grad_enabled() and self.weight.requires_grad
        autocast = torch.is_autocast_enabled("cpu")
        if WITHOUT_KERNEL and small and plain and training and not autocast and self._is_dense():
            result: Tensor = _Depthwise.apply(maps, self.weight, self.padding)
            return result
        return super().forward(maps)

    def _is_dense(self) -> bool:
        """Whether it sees every position, which whoever dilates a network changes."""
        return {*self.stride, *self.dilation} == {1} and self.bias is None


def train_fast(network: nn.Module) -> None:
    """Make `DepthwiseConv2d` of a network's depthwise layers, in place."""
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels == module.out_channels > 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            module.__class__ = DepthwiseConv2d


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.padding = padding
        return F.conv2d(maps, weight, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,), (maps, weight) = gradients, ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            geometry = ([1, 1], [*ctx.padding], [1, 1], False, [0, 0], len(weight))
            of_maps = torch.ops.aten.convolution_backward(
                gradient, maps, weight, None, *geometry, [True, False, False]
            )[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(maps, gradient, weight, ctx.padding)
        return of_maps, of_weight, None


def weight_gradient(
    maps: Tensor, gradient: Tensor, weight: Tensor, padding: tuple[int, int]
) -> Tensor:
    """The gradient of a depthwise layer's weights, (C, 1, k, l): a sum for each of its positions.

    Args:
        maps: (B, C, h, w), what the layer was given.
        gradient: (B, C, h', w') of its output.
        weight: (C, 1, k, l), which it has the shape of.
        padding: rows and columns of zeros around the maps.
    """
    (rows, columns), size = gradient.shape[-2:], maps.shape[-2:]
    sums = []
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            up, left = i - padding[0], j - padding[1]  # of the output, the input's position
            top, bottom = max(0, -up), min(rows, size[0] - up)
            first, last = max(0, -left), min(columns, size[1] - left)
            if top >= bottom or first >= last:
                sums.append(weight.new_zeros(len(weight)))
                continue
            seen = maps[:, :, top + up : bottom + up, first + left : last + left]
            sums.append((seen * gradient[:, :, top:bottom, first:last]).sum((0, 2, 3)))
    return torch.stack(sums, dim=1).reshape(weight.shape)
