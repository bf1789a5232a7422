"""Heads on an encoder: a linear classifier, perceptrons and a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Linear classifier of a stage: global average, then one linear layer.

    Args:
        channels: of the stage.
        classes: how many logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, h, w) to logits (B, classes)."""
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def perceptron(
    widths: Sequence[int], norm: bool, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers with an activation between any two, from (B, first) to (B, last width).

    Args:
        widths: of the input, of every hidden layer, and of the output.
        norm: whether each activation is that of normalized values. Then no layer has a bias.
        activation: its class.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=not norm)]
        layers += [nn.BatchNorm1d(outputs), activation()] if norm else [activation()]
    return nn.Sequential(*layers[: -2 if norm else -1])


class PrototypeHead(nn.Module):
    """Cosine similarity to prototypes (Caron et al. 2021, vision_transformer.py, DINOHead).

    Args:
        widths: of a perceptron of GELU; the last is that of the bottleneck and of prototypes.
        prototypes: how many.
        norm: of the perceptron.
    """

    def __init__(self, widths: Sequence[int], prototypes: int, norm: bool) -> None:
        super().__init__()
        self.layers = perceptron(widths, norm, nn.GELU)
        self.prototypes = nn.Parameter(torch.randn(prototypes, widths[-1]))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (B, first width) to similarities (B, prototypes)."""
        bottleneck = F.normalize(self.layers(vectors), dim=1)
        return F.linear(bottleneck, F.normalize(self.prototypes, dim=1))


class Decoder(nn.Module):
    """Decoder from an encoder's maps to the image's grid, coarse to fine.

    Every level doubles the resolution, adds the encoder's map of that stride if there is one, and
    refines the sum by a 3x3 convolution. A level has 8 channels per pixel of its stride, at most
    256.

    Args:
        channels: of the encoder's stages to read; the last one alone makes a bottleneck.
        strides: of these stages, powers of two, fine to coarse.
        out: channels of the result.
        stride: of the result, from 1 to the last stage's.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], out: int, stride: int
    ) -> None:
        super().__init__()
        coarsest = strides[-1]
        self.strides = [s for s in strides if s >= stride]
        self.levels = [coarsest >> k for k in range(1, 16) if coarsest >> k >= stride]
        widths = {s: min(256, 8 * s) for s in [coarsest, *self.levels]}
        stages = list(zip(channels, strides, strict=True))[-len(self.strides) :]
        self.lateral = nn.ModuleDict(
            {str(s): nn.Conv2d(c, widths[min(2 * s, coarsest)], 1) for c, s in stages}
        )
        self.refine = nn.ModuleDict(
            {
                str(s): nn.Sequential(
                    nn.Conv2d(widths[2 * s], widths[s], 3, padding=1, bias=False),
                    nn.BatchNorm2d(widths[s]),
                    nn.ReLU(),
                )
                for s in self.levels
            }
        )
        finest = self.levels[-1] if self.levels else coarsest
        self.output = nn.Conv2d(widths[finest], out, 1)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Map the stages' maps of an input of `size` to (B, out, ceil(H / s), ceil(W / s))."""
        by_stride = dict(zip(self.strides, maps[-len(self.strides) :], strict=True))
        coarsest = self.strides[-1]
        x = self.lateral[str(coarsest)](by_stride[coarsest])
        for level in self.levels:
            x = F.interpolate(x, size=[-(-side // level) for side in size])
            if level in by_stride:
                x = x + self.lateral[str(level)](by_stride[level])
            x = self.refine[str(level)](x)
        result: Tensor = self.output(x)
        return result
