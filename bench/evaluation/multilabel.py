"""A linear layer on any encoder's last stage, as a network to fine-tune."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from bench.config.schema import FineTuning, Fraction, Positive
from bench.encoders.encoder import Encoder
from bench.runtime import distributed
from bench.training.finetuning import FineTunedNetwork
from bench.training.heads import Classifier


class ClassificationSettings(FineTuning):
    """Settings of a task that classifies by fine-tuning."""

    dataset: str = "voc"
    crop_scale: tuple[Fraction, Fraction]
    """Share of the image's area that a crop covers, smallest and largest; in testing too."""
    crops: Positive
    """Crops of each test image whose scores are averaged."""


class MultiLabel(FineTunedNetwork):
    """An encoder and a linear layer that says which classes an image shows.

    Args:
        encoder: becomes part of the network.
        settings: of the task.
        truth: int8 (N, C) of the training list; 1, -1, or 0 for what does not count.
    """

    def __init__(self, encoder: Encoder, settings: ClassificationSettings, truth: np.ndarray) -> None:
        super().__init__(encoder, settings.frozen)
        self.truth = torch.from_numpy(truth)
        self.crop = v2.RandomResizedCrop(
            [settings.size] * 2, scale=settings.crop_scale, antialias=True
        )
        self.head = Classifier(encoder.channels[-1], truth.shape[1])

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """A random crop, uint8 (3, size, size), maybe mirrored, and its labels, int8 (C,)."""
        return self.view(image), self.truth[label]

    def view(self, image: Tensor) -> Tensor:
        """A random crop, maybe mirrored."""
        crop: Tensor = self.crop(image)
        return crop.flip(-1) if torch.rand(()) < 0.5 else crop

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean binary cross-entropy over the labels that count, in all processes."""
        images, truth = batch
        logits = self.score(images).float()
        each = F.binary_cross_entropy_with_logits(logits, (truth > 0).float(), reduction="none")
        counted = truth != 0
        return (each * counted).sum() / distributed.average(counted.sum()).clamp(min=1)

    def score(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images, uint8 (B, 3, H, W)."""
        rgb = (images.float() / 255).to(self.encoder.mean.device)
        logits: Tensor = self.head(self.encoder(rgb)[-1])
        return logits
