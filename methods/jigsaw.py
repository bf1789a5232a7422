"""Jigsaw: in which of 701 orders are the nine tiles of an image?

What was kept of the paper and its released code: 3 x 3 tiles, each a random 64 / 85 of its square,
so that edges do not match. Each tile is normalized by its own mean and deviation. The 701
permutations are far apart in Hamming distance, by a greedy choice (section 4, released
permutations_701). 30% of the images are gray (port by bbrattoli; the normalization undoes its shift
of each tile's channels by 2 levels).

What changed: the suite's backbone is the shared tower, with 64 values a tile instead of 1,024. A
hidden layer of 512 joins the tiles instead of 4,096. Every image is shown in 16 orders a step. The
greedy choice takes the permutation whose nearest selected one is farthest.

Not done: moving the color channels against each other. So what a lens does to them may still tell
where a tile was, in the seven tenths of images with color.
"""

from functools import cache
from itertools import permutations
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.data.transforms import mosaic, patches, random_crop, to_gray, to_unit_range
from bench.training.context import Context
from bench.training.pretext import PretextTask
from bench.training.pretext_score import ACCURACY, Scores, accuracies

ORDERS = 701
TILE = 64 / 85  # of a square's side
GRAYED = 0.3  # share of images without color
DRAWS = 16  # orders shown of every image: its tiles are encoded once for all of them
DEVIATION = 0.25  # of a normalized tile around 0.5, about that of an image in [0, 1]
WIDTH = 64  # features of a tile


@cache
def orders(count: int) -> Tensor:
    """The first permutations of 0..8 of the greedy choice, int64 (count, 9)."""
    candidates = np.array(list(permutations(range(9))), dtype=np.int8).T.copy()
    selected = [0]
    nearest = np.full(candidates.shape[1], 9, np.int8)
    while len(selected) < count:
        distance = (candidates != candidates[:, selected[-1], None]).sum(0, dtype=np.int8)
        np.minimum(nearest, distance, out=nearest)
        selected.append(int(nearest.argmax()))
    return torch.from_numpy(candidates[:, selected].T.astype(np.int64))


class Jigsaw(PretextTask):
    """Jigsaw puzzles on the suite's backbone."""

    reference: ClassVar[str] = "Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 9
    measure = ACCURACY

    def build(self, context: Context) -> None:
        """Add a classifier of nine tiles' features, in the order shown."""
        super().build(context)
        hidden = [nn.Linear(9 * WIDTH, 512, bias=False), nn.BatchNorm1d(512), nn.ReLU()]
        self.tower = nn.Linear(self.encoder.channels[-1], WIDTH)
        self.head = nn.Sequential(*hidden, nn.Linear(512, ORDERS))
        self.side = int(self.recipe.crop // 3 * TILE)

    def transform(self, image: Tensor, label: int) -> Tensor:
        """Nine tiles of a crop in order, uint8 (9, 3, side, side)."""
        crop = random_crop(image, self.recipe)
        if torch.rand(()) < GRAYED:
            crop = to_gray(crop.float()).byte()
        return patches(crop, self.side, self.side)

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy of the order; `batch` is uint8 (B, 9, 3, side, side)."""
        order = torch.randint(ORDERS, (len(batch) * DRAWS,), device=batch.device)
        logits = self._solve(batch, order)
        self.log("accuracy", (logits.argmax(1) == order).float().mean())
        return F.cross_entropy(logits.float(), order)

    def score(self, batch: Tensor) -> Scores:
        """Accuracy over 16 orders of each image; chance is 1 in 701."""
        order = torch.randint(ORDERS, (len(batch), DRAWS), device=batch.device)
        logits = self._solve(batch, order.flatten())
        return accuracies(logits.unflatten(0, order.shape), order)

    def _solve(self, batch: Tensor, order: Tensor) -> Tensor:
        """Logits of the orders, (n B, 701), of tiles shuffled by `order` (n B,), by image."""
        tiles = to_unit_range(batch.flatten(0, 1))
        features = self.encoder(normalize(tiles))[-1].mean((2, 3))
        features = self.tower(features).unflatten(0, batch.shape[:2])
        features = features.repeat_interleave(len(order) // len(batch), dim=0)
        permutation = orders(ORDERS).to(batch.device)[order]
        shuffled = features.take_along_dim(permutation[:, :, None], dim=1)
        logits: Tensor = self.head(shuffled.flatten(1))
        return logits

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the puzzle, its solution by the network, the original."""
        order = torch.randint(ORDERS, (len(batch),), device=batch.device)
        predicted = self._solve(batch, order).argmax(1)
        permutation = orders(ORDERS).to(batch.device)
        tiles = to_unit_range(batch)
        puzzle = _reorder(tiles, permutation[order])
        solved = _reorder(puzzle, permutation[predicted].argsort(1))
        return torch.stack([mosaic(x) for x in (puzzle, solved, tiles)])


def _reorder(tiles: Tensor, order: Tensor) -> Tensor:
    """Tiles (B, 9, 3, h, w) in another order, (B, 9)."""
    return tiles.take_along_dim(order[:, :, None, None, None], dim=1)


def normalize(tiles: Tensor) -> Tensor:
    """Give every tile (N, 3, h, w) and channel the same mean, 0.5, and deviation, 0.25."""
    centered = tiles - tiles.mean((2, 3), keepdim=True)
    return 0.5 + DEVIATION * centered / centered.std((2, 3), keepdim=True).clamp(min=1e-2)
