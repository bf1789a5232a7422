"""Small networks that a pretext task puts on an encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Logits from a stage's map: global average, then one linear layer.

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


class Decoder(nn.Module):
    """From an encoder's maps back to an image's grid, coarse to fine.

    Every level doubles the resolution, adds the encoder's map of that stride if it is given one,
    and refines the sum by a 3x3 convolution; a level has 8 channels per pixel of its stride, but no
    more than 256.

    Args:
        channels: of the encoder's stages to read; the last one alone makes a bottleneck.
        strides: of these stages, powers of two, fine to coarse.
        out: channels of the result.
        stride: of the result, 1 or more; coarser than the last stage's it cannot be.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], out: int, stride: int
    ) -> None:
        super().__init__()
        levels = [strides[-1] >> k for k in range(1, 16) if strides[-1] >> k >= stride]
        self.levels, self.strides = levels, [s for s in strides if s >= stride]
        used = list(zip(channels, strides, strict=True))[-len(self.strides) :]
        widths = {s: min(256, 8 * s) for s in [strides[-1], *levels]}
        self.lateral = nn.ModuleDict(
            {str(s): nn.Conv2d(c, widths[min(2 * s, strides[-1])], 1) for c, s in used}
        )
        self.refine = nn.ModuleDict(
            {
                str(s): nn.Sequential(
                    nn.Conv2d(widths[2 * s], widths[s], 3, padding=1, bias=False),
                    nn.BatchNorm2d(widths[s]),
                    nn.ReLU(),
                )
                for s in levels
            }
        )
        self.output = nn.Conv2d(widths[levels[-1] if levels else strides[-1]], out, 1)

    def forward(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Map the stages' maps of an input of `size` to (B, out, ceil(H / s), ceil(W / s))."""
        given = dict(zip(self.strides, maps[-len(self.strides) :], strict=True))
        x = self.lateral[str(self.strides[-1])](given[self.strides[-1]])
        for level in self.levels:
            x = F.interpolate(x, size=[-(-side // level) for side in size])
            if level in given:
                x = x + self.lateral[str(level)](given[level])
            x = self.refine[str(level)](x)
        result: Tensor = self.output(x)
        return result
