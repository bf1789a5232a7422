"""Rotation: which of four right-angle rotations was applied to the image?

What was kept of the paper: all four rotations of an image are in the same batch, without
interpolation and after cropping, so that they share the crop (section 3.2, released code). The loss
is the cross-entropy of four classes. What changed: the suite's backbone takes AlexNet's place. The
classifier is a global average and one linear layer instead of AlexNet's fully connected ones.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.transforms import to_unit_range
from bench.training.context import Context
from bench.training.parts.heads import Classifier
from bench.training.pretext import PretextTask
from bench.training.pretext_score import ACCURACY, Scores, accuracies


class Rotation(PretextTask):
    """RotNet on the suite's backbone."""

    reference: ClassVar[str] = "Gidaris et al. 2018, https://arxiv.org/abs/1803.07728"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 4
    measure = ACCURACY

    def build(self, context: Context) -> None:
        """Add a four-way classifier on the last stage."""
        super().build(context)
        self.head = Classifier(self.encoder.channels[-1], 4)

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy of the rotation; `batch` contains upright crops, uint8 (B, 3, H, H)."""
        labels = torch.arange(4, device=batch.device).repeat_interleave(len(batch))
        logits = self._classify(batch)
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())
        return F.cross_entropy(logits, labels)

    def score(self, batch: Tensor) -> Scores:
        """Accuracy over the four rotations of each image; chance is 1 in 4."""
        logits = self._classify(batch).unflatten(0, (4, len(batch)))
        return accuracies(logits.movedim(0, 1), torch.arange(4, device=batch.device))

    def _classify(self, batch: Tensor) -> Tensor:
        """Logits (4 B, 4) of all rotations of crops, by rotation."""
        rotated = torch.cat([batch.rot90(k, (2, 3)) for k in range(4)])
        logits: Tensor = self.head(self.encoder(to_unit_range(rotated))[-1])
        return logits
