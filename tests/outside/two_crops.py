"""Two crops: two crops of an image are more alike than crops of two images."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from bench.config.schema import Recipe
from bench.data.transforms import random_crop, to_unit_range
from bench.training.pretext import PretextTask


class TwoCrops(PretextTask):
    """Contrastive learning with a temperature of its own."""

    reference: ClassVar[str] = "Chen et al. 2020, https://arxiv.org/abs/2002.05709"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 2

    class Settings(Recipe):
        """The recipe, and the temperature of the loss."""

        temperature: Annotated[float, Field(gt=0)] = 0.5

    def build(self, context):
        """Add the projection head."""
        super().build(context)
        width = self.encoder.channels[-1]
        self.projection = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32))

    def transform(self, image, label):
        """Two random crops, uint8 (2, 3, crop, crop)."""
        return torch.stack([random_crop(image, self.recipe) for _ in range(2)])

    def loss(self, batch):
        """Cross-entropy of finding the other crop of the same image."""
        views = to_unit_range(batch.movedim(1, 0).flatten(0, 1))
        z = F.normalize(self.projection(self.encoder(views)[-1].mean((2, 3))).float(), dim=1)
        count = len(batch)
        logits = z @ z.T / self.recipe.temperature
        itself = torch.eye(2 * count, dtype=torch.bool, device=z.device)
        logits = logits.masked_fill(itself, -1e4)
        target = torch.arange(2 * count, device=z.device).roll(count)
        self.log("accuracy", (logits.argmax(1) == target).float().mean())
        return F.cross_entropy(logits, target)
