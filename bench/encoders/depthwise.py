"""Depthwise convolutions that train on processors without AVX-512.

oneDNN has no kernels there for two gradients, and takes general ones: that of the weights takes 80
times as long as here on a map of 2 x 2, that of the input 15 times as long where the layer is
dilated (torch 2.14 on AVX2; no other instructions were tried). They are half of a pretraining step,
and a quarter of one of segmentation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]
WITHOUT_KERNEL = torch.backends.cpu.get_cpu_capability() != "AVX512"
# A larger map is as fast there, unless the layer is dilated. Measured with 240 to 1,152 channels
# and kernels of 3 and 5.
POSITIONS = 36


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution: its output is torch's, its gradients those below."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h', w')."""
        small = maps.shape[-2] * maps.shape[-1] <= POSITIONS
        slow = WITHOUT_KERNEL and (small or max(self.dilation) > 1)
        plain = maps.device.type == "cpu" and maps.dtype == self.weight.dtype == torch.float32
        training = torch.is_grad_enabled() and self.weight.requires_grad
        autocast = torch.is_autocast_enabled("cpu")
        if slow and plain and training and not autocast and self._is_simple():
            result: Tensor = _Depthwise.apply(maps, self.weight, self.padding, self.dilation)
            return result
        return super().forward(maps)

    def _is_simple(self) -> bool:
        """Whether it has no stride, no bias and no padding that its kernel cannot reach."""
        if isinstance(self.padding, str) or self.bias is not None or {*self.stride} != {1}:
            return False
        sides = zip(self.padding, self.dilation, self.kernel_size, strict=True)
        return all(p <= d * (k - 1) for p, d, k in sides)


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
    def forward(ctx: Any, maps: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.geometry = (padding, dilation)
        return F.conv2d(maps, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (maps, weight) = gradients, ctx.saved_tensors
        of_maps = (
            input_gradient(gradient, weight, *ctx.geometry) if ctx.needs_input_grad[0] else None
        )
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(maps, gradient, weight, *ctx.geometry)
        return of_maps, of_weight, None, None


def input_gradient(gradient: Tensor, weight: Tensor, padding: Pair, dilation: Pair) -> Tensor:
    """The gradient of a depthwise layer's input, (B, C, h, w): that of its output, convolved.

    Args:
        gradient: (B, C, h', w') of its output.
        weight: (C, 1, k, l), its kernel.
        padding: rows and columns of zeros around its input, at most the kernel's reach.
        dilation: steps between the rows, and the columns, that its kernel sees.
    """
    sides = zip(dilation, weight.shape[2:], padding, strict=True)
    rest = [d * (k - 1) - p for d, k, p in sides]
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, rest, dilation, len(weight))


def weight_gradient(
    maps: Tensor, gradient: Tensor, weight: Tensor, padding: Pair, dilation: Pair
) -> Tensor:
    """The gradient of a depthwise layer's weights, (C, 1, k, l): a sum for each of its positions.

    Args:
        maps: (B, C, h, w), what the layer was given.
        gradient: (B, C, h', w') of its output.
        weight: (C, 1, k, l), which it has the shape of.
        padding: rows and columns of zeros around the maps.
        dilation: steps between the rows, and the columns, that its kernel sees.
    """
    (rows, columns), size = gradient.shape[-2:], maps.shape[-2:]
    sums = []
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            # Of the output, the input's position.
            up, left = i * dilation[0] - padding[0], j * dilation[1] - padding[1]
            top, bottom = max(0, -up), min(rows, size[0] - up)
            first, last = max(0, -left), min(columns, size[1] - left)
            if top >= bottom or first >= last:
                sums.append(weight.new_zeros(len(weight)))
                continue
            seen = maps[:, :, top + up : bottom + up, first + left : last + left]
            sums.append((seen * gradient[:, :, top:bottom, first:last]).sum((0, 2, 3)))
    return torch.stack(sums, dim=1).reshape(weight.shape)
