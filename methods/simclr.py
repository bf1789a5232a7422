"""SimCLR: which of all other views in the batch is of the same image?

What was kept of the paper and its released code: two views of each image, distorted alike, through
one encoder and a projection head of one hidden layer. The loss is the cross-entropy of the other
view among all 2 N - 1 by cosine similarity (section 2.1, algorithm 1). Colors are distorted at full
strength, half of the views are blurred (appendix A).

What changed: the suite's backbone takes ResNet-50's place and the suite's optimizer that of LARS.
The head's last layer has no batch norm, which the released code has beside the paper.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.config.schema import Positive
from bench.training.context import Context
from bench.training.parts.heads import perceptron
from bench.training.parts.two_views import (
    Distortion,
    ViewRecipe,
    Views,
    crop_views,
    distorted_views,
)
from bench.training.pretext import PretextTask
from bench.training.pretext_score import RETRIEVAL, Scores, retrievals
from bench.training.whole_batch import rows_of_all

# Strength 1 of the released code: 0.8, 0.8, 0.8 and 0.2 (appendix A).
DISTORTION = Distortion(jitter=(0.8, 0.8, 0.8, 0.2), blurred=0.5)


class SimClr(PretextTask):
    """Contrastive learning among the views of a batch, on the suite's backbone."""

    reference: ClassVar[str] = "Chen et al. 2020, https://arxiv.org/abs/2002.05709"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 2
    measure = RETRIEVAL

    class Settings(ViewRecipe):
        """The recipe, the temperature, and the size of the head."""

        temperature: Annotated[float, Field(gt=0)] = 0.1
        """Divides similarities (table 5; released command for ImageNet)."""
        hidden: Positive = 2048
        """Width of the head's hidden layer (section 4.2: that of its input)."""
        dimensions: Positive = 128
        """Of the space in which views are compared (section 2.1)."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add the projection head on the last stage."""
        super().build(context)
        widths = [self.encoder.channels[-1], self.recipe.hidden, self.recipe.dimensions]
        self.projection = perceptron(widths, norm=True)

    def transform(self, image: Tensor, label: int) -> Views:
        """Two random crops and their distortions."""
        return crop_views(image, self.recipe, [DISTORTION] * 2)

    def loss(self, batch: Views) -> Tensor:
        """Cross-entropy of the other view; `batch` contains crops and their distortions."""
        first, second = map(rows_of_all, self._project(distorted_views(batch)))
        return nt_xent(first, second, self.recipe.temperature)

    def score(self, batch: Views) -> Scores:
        """Whether the projections of two views find each other in the batch."""
        first, second = self._project(distorted_views(batch))
        return retrievals(first @ second.T)

    def _project(self, views: Tensor) -> Tensor:
        """Projections (2, B, dimensions) of length 1 of views (2, B, 3, H, H)."""
        features = self.encoder(views.flatten(0, 1))[-1].mean((2, 3))
        projected: Tensor = self.projection(features).float().unflatten(0, views.shape[:2])
        return F.normalize(projected, dim=-1)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each view's partner among all other views (Chen et al. 2020, equation 1).

    Args:
        first: of length 1, (N, D).
        second: of the other views of the same images.
        temperature: divides the cosine similarities.
    """
    views = torch.cat([first, second])
    count = len(views)
    itself = torch.eye(count, dtype=torch.bool, device=views.device)
    with torch.autocast(views.device.type, enabled=False):
        logits = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(count, device=views.device).roll(len(first))
    return F.cross_entropy(logits, partner)
