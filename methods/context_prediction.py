"""Context prediction: where is this patch, relative to that one?

What was kept of the paper and its released code: 3 x 3 patches with gaps of half a patch, each
shifted by up to 7 / 96 of its side. Every two neighbors make two questions with eight answers. A
third of the patches is scaled down, to as little as 10 / 96 of the side, and up again (section 3,
released train.py).

What changed: two thirds of the patches keep only their luma, after the ResNet-50 port (mmselfsup,
relative_loc, which grays whole images). The paper instead replaces two channels by noise, which
images at transfer never have. All patches of a step that lose detail are scaled down to one size.
None loses contrast. The suite's backbone takes CaffeNet's place, and one hidden layer of 512 that
of two of 4,096.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import patches, random_crop, to_gray, to_unit_range
from bench.training.context import Context
from bench.training.pretext import PretextTask
from bench.training.pretext_score import ACCURACY, Scores, accuracies

GRAYED = 0.66  # share of patches without color
SHRUNK = 0.33  # share of patches with less detail
SMALLEST = 10 / 96  # of a patch's side, to which it is scaled down at most
JITTER = 7 / 96  # of a patch's side
GRID = torch.cartesian_prod(torch.arange(3), torch.arange(3))


def _neighbors() -> tuple[Tensor, Tensor]:
    """All ordered pairs of neighbors of the grid, (40, 2), and the direction of each, 0..7."""
    offsets = GRID[None] - GRID[:, None]
    pairs = (offsets.abs().amax(-1) == 1).nonzero()
    code = (offsets[pairs[:, 0], pairs[:, 1]] + 1) @ torch.tensor([3, 1])
    return pairs, code - (code > 4).long()  # 4, the patch itself, does not occur


PAIRS, DIRECTIONS = _neighbors()


class ContextPrediction(PretextTask):
    """Relative patch location on the suite's backbone."""

    reference: ClassVar[str] = "Doersch et al. 2015, https://arxiv.org/abs/1505.05192"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 9
    measure = ACCURACY

    def build(self, context: Context) -> None:
        """Add a classifier of pairs of patches."""
        super().build(context)
        width = 2 * self.encoder.channels[-1]
        hidden = [nn.Linear(width, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Linear(512, 8))
        self.side = self.recipe.crop * 2 // 9

    def transform(self, image: Tensor, label: int) -> Tensor:
        """Nine patches of a crop, uint8 (9, 3, side, side), with gaps between them."""
        crop = random_crop(image, self.recipe)
        return patches(crop, self.side, max(1, round(self.side * JITTER)))

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy of the eight directions; `batch` is uint8 (B, 9, 3, side, side)."""
        logits = self._classify(batch)
        labels = DIRECTIONS.to(batch.device).repeat(len(batch))
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())
        return F.cross_entropy(logits.float(), labels)

    def score(self, batch: Tensor) -> Scores:
        """Accuracy over the 40 pairs of neighbors of each image; chance is 1 in 8."""
        logits = self._classify(batch).unflatten(0, (len(batch), len(PAIRS)))
        return accuracies(logits, DIRECTIONS.to(batch.device))

    def _classify(self, batch: Tensor) -> Tensor:
        """Logits (40 B, 8) of all pairs of neighbors, by image, from degraded patches."""
        views = degrade(to_unit_range(batch.flatten(0, 1)))
        features = self.encoder(views)[-1].mean((2, 3)).unflatten(0, batch.shape[:2])
        pairs = PAIRS.to(batch.device)
        logits: Tensor = self.head(features[:, pairs].flatten(2).flatten(0, 1))
        return logits


def degrade(views: Tensor) -> Tensor:
    """Take color from some patches and detail from others, (N, 3, side, side) in [0, 1]."""
    views = torch.where(_some(views, GRAYED), to_gray(views), views)
    side = views.shape[-1]
    smallest = max(1, round(side * SMALLEST))
    size = int(torch.randint(smallest, side, ()))  # one size a step
    small = F.interpolate(views, size=size, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, side, mode="bilinear")
    return torch.where(_some(views, SHRUNK), blurred, views)


def _some(views: Tensor, share: float) -> Tensor:
    """A random share of the patches, bool (N, 1, 1, 1)."""
    return torch.rand(len(views), 1, 1, 1, device=views.device) < share
