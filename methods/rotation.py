"""Rotation: which of four right-angle turns was applied to the image?

What was kept of the paper: all four turns of an image stand in the same batch, made without
interpolation after cropping, so that the four share the crop (paper section 3.2, released code);
cross-entropy over four classes. What changed: the suite's backbone takes AlexNet's place, and the
classifier is a global average and one linear layer instead of AlexNet's fully connected ones.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.heads import Classifier
from bench.training.pretext import PretextTask


class Rotation(PretextTask):
    """RotNet on the suite's backbone."""

    reference: ClassVar[str] = "Gidaris et al. 2018, https://arxiv.org/abs/1803.07728"
    views_per_image: ClassVar[int] = 4

    def build(self, context: Context) -> None:
        """Add a four-way classifier on the last stage."""
        super().build(context)
        self.head = Classifier(self.encoder.channels[-1], 4)

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Cross-entropy of the turn; `batch` holds upright crops, uint8 (B, 3, H, H)."""
        turned = torch.cat([batch.rot90(turn, (2, 3)) for turn in range(4)])
        turns = torch.arange(4, device=batch.device).repeat_interleave(len(batch))
        logits = self.head(self.encoder(to_unit_range(turned))[-1])
        self.logged["accuracy"] = (logits.argmax(1) == turns).float().mean()
        return F.cross_entropy(logits, turns)
