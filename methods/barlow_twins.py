"""Barlow Twins: two views agree in every feature, and no two features tell the same.

What was kept of the paper and its released code: two views through one encoder and a head of two
hidden layers. Their features are normalized over the batch and correlated across the views. The
loss moves that matrix towards the identity (section 2.1, main.py). The views are distorted as in
BYOL: one is always blurred, one seldom, and only that one is solarized.

What changed: the suite's backbone takes ResNet-50's place and the suite's optimizer that of LARS.
Both views share one batch in encoder and head, and so its statistics; theirs are passed one after
the other. The features of each are normalized by themselves, as there.
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

# Released main.py, Transform.
JITTER = (0.4, 0.4, 0.2, 0.1)
DISTORTIONS = (Distortion(JITTER, blurred=1.0), Distortion(JITTER, blurred=0.1, solarized=0.2))
EPSILON = 1e-5  # of the variance by which features are normalized (main.py: that of a batch norm)


class BarlowTwins(PretextTask):
    """Redundancy reduction on the suite's backbone."""

    reference: ClassVar[str] = "Zbontar et al. 2021, https://arxiv.org/abs/2103.03230"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 2
    measure = RETRIEVAL

    class Settings(ViewRecipe):
        """The recipe, the weight of redundancy, and the size of the head."""

        redundancy: Annotated[float, Field(ge=0)] = 0.0051
        """Weight of the correlation of different features (lambd)."""
        dimensions: Positive = 8192
        """Width of each of the head's three layers (projector)."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add the head on the last stage."""
        super().build(context)
        widths = [self.encoder.channels[-1], *[self.recipe.dimensions] * 3]
        self.projection = perceptron(widths, norm=True)

    def transform(self, image: Tensor, label: int) -> Views:
        """Two random crops and their distortions."""
        return crop_views(image, self.recipe, DISTORTIONS)

    def loss(self, batch: Views) -> Tensor:
        """Distance to the identity; `batch` contains crops and their distortions."""
        first, second = self._project(distorted_views(batch))
        correlation = cross_correlation(rows_of_all(first), rows_of_all(second))
        self.log("correlation", correlation.diagonal().mean())
        return distance_to_identity(correlation, self.recipe.redundancy)

    def score(self, batch: Views) -> Scores:
        """Whether the projections of two views, less their mean, find each other in the batch."""
        projected = self._project(distorted_views(batch))
        first, second = (F.normalize(z - z.mean(0), dim=1) for z in projected)
        return retrievals(first @ second.T)

    def _project(self, views: Tensor) -> Tensor:
        """Projections (2, B, dimensions) of views (2, B, 3, H, H)."""
        features = self.encoder(views.flatten(0, 1))[-1].mean((2, 3))
        projected: Tensor = self.projection(features).float().unflatten(0, views.shape[:2])
        return projected


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of each feature of the first views (row) with each of the second, (D, D).

    Args:
        first: features (N, D) of one view of each image.
        second: of the other views.
    """
    normalized = []
    for features in (first, second):
        centered = features - features.mean(0)
        normalized.append(centered * (centered.square().mean(0) + EPSILON).rsqrt())
    with torch.autocast(first.device.type, enabled=False):
        return normalized[0].T @ normalized[1] / len(first)


def distance_to_identity(correlation: Tensor, redundancy: float) -> Tensor:
    """Squared distance of a matrix (D, D) to the identity (Zbontar et al. 2021, equation 1).

    Args:
        correlation: of features.
        redundancy: weight of what is off the diagonal.
    """
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + redundancy * others
