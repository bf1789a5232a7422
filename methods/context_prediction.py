"""Context prediction: where does this patch lie, seen from that one?

What was kept of the paper and its released code: 3 x 3 patches with gaps of half a patch, each
moved by up to 7 / 96 of its side; every two neighbors make two questions with eight answers; a
third of the patches is scaled down, to as little as 10 / 96 of the side, and up again (section 3,
released train.py). What changed: two thirds of the patches keep only their luma, after the
ResNet-50 port (mmselfsup, relative_loc, which grays whole images); the paper instead replaces two
channels by noise, which the images of transfer never show. All patches of a step that lose detail
are scaled down to one size, and none to one contrast. The suite's backbone takes CaffeNet's place,
and one hidden layer of 512 that of two of 4,096.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import gray, patches, random_crop, to_unit_range
from bench.training.context import Context
from bench.training.pretext import PretextTask

GRAYED = 0.66  # share of patches without color
SHRUNK, SMALLEST = 0.33, 10 / 96  # share of patches with less detail, and how much is left at least
JITTER = 7 / 96  # of a patch's side
GRID = torch.cartesian_prod(torch.arange(3), torch.arange(3))


def _pairs() -> tuple[Tensor, Tensor]:
    """All ordered pairs of neighbors of the grid, (40, 2), and where the second lies, 0..7."""
    offsets = GRID[None] - GRID[:, None]
    pairs = (offsets.abs().amax(-1) == 1).nonzero()
    code = (offsets[pairs[:, 0], pairs[:, 1]] + 1) @ torch.tensor([3, 1])
    return pairs, code - (code > 4).long()  # 4, the patch itself, does not occur


PAIRS, PLACES = _pairs()


class ContextPrediction(PretextTask):
    """Relative patch location on the suite's backbone."""

    reference: ClassVar[str] = "Doersch et al. 2015, https://arxiv.org/abs/1505.05192"
    views_per_image: ClassVar[int] = 9

    def build(self, context: Context) -> None:
        """Add a classifier of pairs of patches."""
        super().build(context)
        width = 2 * self.encoder.channels[-1]
        hidden = [nn.Linear(width, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Linear(512, 8))
        self.side = self.recipe.crop * 2 // 9

    def example(self, image: Tensor, label: int) -> Tensor:
        """Nine patches of a crop, uint8 (9, 3, side, side); a cell is a patch and a gap."""
        crop = random_crop(image, self.recipe)
        return patches(crop, self.side, max(1, round(self.side * JITTER)))

    def loss(self, batch: Tensor, player: str) -> Tensor:
        """Cross-entropy of the eight places; `batch` is uint8 (B, 9, 3, side, side)."""
        shown = disguise(to_unit_range(batch.flatten(0, 1)))
        features = self.encoder(shown)[-1].mean((2, 3)).unflatten(0, batch.shape[:2])
        pairs = PAIRS.to(batch.device)
        logits = self.head(features[:, pairs].flatten(2).flatten(0, 1))
        places = PLACES.to(batch.device).repeat(len(batch))
        self.logged["accuracy"] = (logits.argmax(1) == places).float().mean()
        return F.cross_entropy(logits.float(), places)


def disguise(shown: Tensor) -> Tensor:
    """Take color from some patches and detail from others, (N, 3, side, side) in [0, 1]."""
    shown = torch.where(_some(shown, GRAYED), gray(shown), shown)
    side = shown.shape[-1]
    least = max(1, round(side * SMALLEST))
    smaller = int(torch.randint(least, side, ()))  # one size a step
    small = F.interpolate(shown, size=smaller, mode="bilinear", antialias=True)
    return torch.where(_some(shown, SHRUNK), F.interpolate(small, side, mode="bilinear"), shown)


def _some(shown: Tensor, share: float) -> Tensor:
    return torch.rand(len(shown), 1, 1, 1, device=shown.device) < share
