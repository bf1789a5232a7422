"""Multi-label classifier on any encoder's last stage, as a network to fine-tune."""

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
from bench.training.parts.heads import Classifier


class ClassificationSettings(FineTuning):
    """Settings of a task that classifies by fine-tuning."""

    dataset: str = "voc"
    crop_scale: tuple[Fraction, Fraction]
    """Share of the image's area that a crop covers, smallest and largest; in testing too."""
    crops: Positive
    """Crops of each test image whose scores are averaged."""


class MultiLabel(FineTunedNetwork):
    """Multi-label classification: an encoder and a linear layer.

    Args:
        encoder: becomes part of the network.
        settings: of the task.
        labels: of the training split, int8 (N, C): 1, -1, or 0 for what is not evaluated.
    """

    def __init__(
        self, encoder: Encoder, settings: ClassificationSettings, labels: np.ndarray
    ) -> None:
        super().__init__(encoder, settings.frozen)
        self.labels = torch.from_numpy(labels)
        self.crop = v2.RandomResizedCrop(
            [settings.size] * 2, scale=settings.crop_scale, antialias=True
        )
        self.head = Classifier(encoder.channels[-1], labels.shape[1])

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """A random view of an image, and its labels, int8 (C,).

        Args:
            image: uint8 (3, H, W).
            label: its position in the training split.
        """
        return self.view(image), self.labels[label]

    def view(self, image: Tensor) -> Tensor:
        """A random crop, uint8 (3, size, size), mirrored half of the time."""
        crop: Tensor = self.crop(image)
        return crop.flip(-1) if torch.rand(()) < 0.5 else crop

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean binary cross-entropy over the evaluated labels of all processes."""
        images, labels = batch
        logits = self.score(images).float()
        targets = (labels > 0).float()
        entropies = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        evaluated = labels != 0
        total = (entropies * evaluated).sum()
        return total / distributed.average(evaluated.sum()).clamp(min=1)

    def score(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images, uint8 (B, 3, H, W)."""
        rgb = (images.float() / 255).to(self.encoder.mean.device)
        logits: Tensor = self.head(self.encoder(rgb)[-1])
        return logits
