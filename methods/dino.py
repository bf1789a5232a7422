"""DINO: match an averaged teacher's distribution of one crop from all other crops.

What was kept of the paper and its released code: a student, and a teacher that averages it with a
momentum that rises to 1 by a cosine. Both have a head of three layers, a bottleneck of length 1 and
prototypes of length 1. The teacher is given two large crops, the student these and small ones. The
loss is the cross-entropy of the teacher's distribution, centered and sharpened, for every pair of
different crops (section 3.1, main_dino.py). The crops are distorted as in BYOL, the small ones
blurred half of the time.

What changed: the suite's backbone takes the place of transformer or ResNet-50. There are six small
crops instead of eight. Prototypes learn from the first step (theirs from the second epoch), and
gradients are not clipped (theirs at 3). The teacher comes on top of the budget, as other methods'
decoders do. A small crop costs less than a large one and counts as much.
"""

import math
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.schema import Fraction, Positive, Side
from bench.runtime import distributed
from bench.training.context import Context
from bench.training.parts.heads import PrototypeHead
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

# Released main_dino.py, DataAugmentationDINO.
JITTER = (0.4, 0.4, 0.2, 0.1)
LARGE = (Distortion(JITTER, blurred=1.0), Distortion(JITTER, blurred=0.1, solarized=0.2))
SMALL = (Distortion(JITTER, blurred=0.5),) * 6


class Dino(PretextTask):
    """Self-distillation without labels, on the suite's backbone."""

    reference: ClassVar[str] = "Caron et al. 2021, https://arxiv.org/abs/2104.14294"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 8
    measure = RETRIEVAL

    class Settings(ViewRecipe):
        """The recipe, and the keys of the released main_dino.py; `crop` is that of large crops."""

        small_crop: Side = 96
        """Side of the small crops, pixels."""
        small_crop_scale: tuple[Fraction, Fraction] = (0.05, 0.14)
        """Share of the image's area that one covers (local_crops_scale, of ResNet-50)."""
        teacher_momentum: Fraction = 0.996
        """Share that the teacher keeps of its weights in the first step (momentum_teacher)."""
        temperature: Annotated[float, Field(gt=0)] = 0.1
        """Divides the student's logits (DINOLoss, student_temp)."""
        teacher_temperature: Annotated[float, Field(gt=0)] = 0.04
        """Divides the teacher's: it is sharper (teacher_temp)."""
        center_momentum: Fraction = 0.9
        """Share that the teacher's center keeps of itself in each step (DINOLoss)."""
        hidden: Positive = 2048
        """Width of the head's hidden layers (DINOHead)."""
        bottleneck: Positive = 256
        """Dimensions in which crops and prototypes are compared (DINOHead)."""
        prototypes: Positive = 65_536
        """Of which there is a distribution (out_dim)."""
        head_norm: bool = False
        """Whether the head's hidden layers have batch norms (use_bn_in_head)."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add the student's head, the teacher and its center."""
        super().build(context)
        recipe = self.recipe
        small = {"crop": recipe.small_crop, "crop_scale": recipe.small_crop_scale}
        self.small = recipe.model_copy(update=small)
        widths = [self.encoder.channels[-1], recipe.hidden, recipe.hidden, recipe.bottleneck]
        self.head = PrototypeHead(widths, recipe.prototypes, recipe.head_norm)
        self.teacher = make_teacher([self.encoder, self.head])
        self.center: Tensor
        self.register_buffer("center", torch.zeros(recipe.prototypes))

    def transform(self, image: Tensor, label: int) -> tuple[Views, Views]:
        """Two large crops and six small ones, with their distortions."""
        return crop_views(image, self.recipe, LARGE), crop_views(image, self.small, SMALL)

    def loss(self, batch: tuple[Views, Views]) -> Tensor:
        """Cross-entropy over pairs of crops; `batch` contains large and small crops."""
        large, small = (distorted_views(views) for views in batch)
        student = torch.cat([self._student(large), self._student(small)])
        teacher = self._teacher(large)
        self.mean = distributed.average(teacher.mean((0, 1)))
        targets = ((teacher - self.center) / self.recipe.teacher_temperature).softmax(-1)
        self.log("entropy", entropy(targets.mean((0, 1))))
        return distillation_loss(student / self.recipe.temperature, targets)

    def after_step(self, step: int, steps: int) -> None:
        """Let the teacher follow, and its center the batch's mean."""
        momentum = rising_momentum(self.recipe.teacher_momentum, step, steps)
        follow(self.teacher, [self.encoder, self.head], momentum)
        self.center.lerp_(self.mean, 1 - self.recipe.center_momentum)

    def score(self, batch: tuple[Views, Views]) -> Scores:
        """Whether logits of student and teacher find each other's large crop in the batch.

        Their directions are compared, as each distribution has a temperature of its own.
        """
        first, second = distorted_views(batch[0])
        logits = (self._student(first[None])[0], self._teacher(second[None])[0] - self.center)
        student, teacher = (F.normalize(x - x.mean(1, keepdim=True), dim=1) for x in logits)
        return retrievals(student @ teacher.T)

    def _student(self, views: Tensor) -> Tensor:
        return _logits([self.encoder, self.head], views)

    @torch.no_grad()
    def _teacher(self, views: Tensor) -> Tensor:
        return _logits(self.teacher, views)


def distillation_loss(student: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of all pairs of different crops (Caron et al. 2021, equation 3).

    Args:
        student: logits of V crops of each image, (V, B, K), the teacher's crops first.
        targets: the teacher's distributions of T of these crops, (T, B, K).
    """
    with torch.autocast(student.device.type, enabled=False):
        products = torch.einsum("tbk,vbk->tv", targets, student.log_softmax(-1))
    pairs: Tensor = -products / targets.shape[1]
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[~same].mean()


def entropy(distribution: Tensor) -> Tensor:
    """Entropy of a distribution (K,), as a share of the largest one: 0 if all is one prototype."""
    share: Tensor = torch.special.entr(distribution).sum() / math.log(len(distribution))
    return share


def _logits(networks: nn.ModuleList | list[nn.Module], views: Tensor) -> Tensor:
    """Logits (V, B, K), float32, of views (V, B, 3, H, H)."""
    encoder, head = networks
    features = encoder(views.flatten(0, 1))[-1].mean((2, 3))
    logits: Tensor = head(features).float().unflatten(0, views.shape[:2])
    return logits
