"""BYOL: predict what an averaged copy of the network makes of the other view.

What was kept of the paper and its released code: an encoder with a projection, and a predictor on
top. The target is the projection of the other view by averaged copies of encoder and projection,
whose momentum rises to 1 by a cosine. The loss is the squared distance of both at length 1, of each
view from the other one (section 3, appendix J). The views are distorted differently: one is always
blurred, one seldom, and only that one is solarized (table 6).

What changed: the suite's backbone takes ResNet-50's place and the suite's optimizer that of LARS.
Both views share one batch, and so its statistics; theirs are passed one after the other. The
averaged copies come on top of the budget, as other methods' decoders do.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.schema import Fraction, Positive
from bench.training.context import Context
from bench.training.parts.heads import perceptron
from bench.training.parts.teacher import follow, make_teacher, rising_momentum
from bench.training.parts.two_views import (
    Distortion,
    ViewRecipe,
    Views,
    crop_views,
    distorted_views,
)
from bench.training.pretext import PretextTask
from bench.training.pretext_score import RETRIEVAL, Scores, retrievals

# Table 6.
JITTER = (0.4, 0.4, 0.2, 0.1)
DISTORTIONS = (Distortion(JITTER, blurred=1.0), Distortion(JITTER, blurred=0.1, solarized=0.2))


class Byol(PretextTask):
    """Bootstrap your own latent, on the suite's backbone."""

    reference: ClassVar[str] = "Grill et al. 2020, https://arxiv.org/abs/2006.07733"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 2
    measure = RETRIEVAL

    class Settings(ViewRecipe):
        """The recipe, the first momentum of the target, and the size of the heads."""

        teacher_momentum: Fraction = 0.996
        """Share that the copies keep of their weights in the first step (section 3.3)."""
        hidden: Positive = 4096
        """Width of the hidden layers of projection and predictor (section 3.3)."""
        dimensions: Positive = 256
        """Of projections (section 3.3)."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add projection and predictor, and the averaged copies."""
        super().build(context)
        hidden, dimensions = self.recipe.hidden, self.recipe.dimensions
        self.projection = perceptron([self.encoder.channels[-1], hidden, dimensions], norm=True)
        self.predictor = perceptron([dimensions, hidden, dimensions], norm=True)
        self.teacher = make_teacher([self.encoder, self.projection])

    def transform(self, image: Tensor, label: int) -> Views:
        """Two random crops and their distortions."""
        return crop_views(image, self.recipe, DISTORTIONS)

    def loss(self, batch: Views) -> Tensor:
        """Squared distance both ways; `batch` contains crops and their distortions."""
        predictions, targets = self._embed(distorted_views(batch))
        self.log("spread", spread(targets.flatten(0, 1)))
        return regression_loss(predictions[0], targets[1]) + regression_loss(
            predictions[1], targets[0]
        )

    def after_step(self, step: int, steps: int) -> None:
        """Let the copies follow."""
        momentum = rising_momentum(self.recipe.teacher_momentum, step, steps)
        follow(self.teacher, [self.encoder, self.projection], momentum)

    def score(self, batch: Views) -> Scores:
        """Whether predictions and targets find each other in the batch."""
        predictions, targets = self._embed(distorted_views(batch))
        return retrievals(predictions[0] @ targets[1].T)

    def _embed(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and targets, (2, B, dimensions) of length 1, of views (2, B, 3, H, H)."""
        both = views.flatten(0, 1)
        predictions = self.predictor(_project([self.encoder, self.projection], both))
        with torch.no_grad():
            targets = _project(self.teacher, both)
        embedded = [F.normalize(z.float(), dim=1) for z in (predictions, targets)]
        predictions, targets = (z.unflatten(0, views.shape[:2]) for z in embedded)
        return predictions, targets


def regression_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean squared distance of vectors of length 1, (B, D) each (Grill et al. 2020, equation 2)."""
    return (predictions - targets).square().sum(1).mean()


def spread(vectors: Tensor) -> Tensor:
    """How far vectors (N, D) of length 1 differ: 0 if they are all the same, else up to 1."""
    return (vectors - vectors.mean(0)).square().sum(1).mean().sqrt()


def _project(networks: nn.ModuleList | list[nn.Module], views: Tensor) -> Tensor:
    encoder, projection = networks
    projected: Tensor = projection(encoder(views)[-1].mean((2, 3)))
    return projected
