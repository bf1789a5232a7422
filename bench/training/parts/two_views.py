"""Views of an image for methods that compare them: random crops, their colors distorted.

The operations are those of SimCLR and BYOL (Chen et al. 2020, appendix A; Grill et al. 2020,
appendix B): color jitter, gray, blur and solarization. Strengths and shares are each method's. What
changed: brightness, contrast, saturation and hue are jittered in this order instead of a random
one. Blur has a kernel of a tenth of the view's side, as in SimCLR, for every method.

A loader's worker crops, and draws how each crop will be distorted, so that both depend on the
image's position alone. Pixels are distorted on the device, all views of a batch at once: that costs
about a twentieth of one view at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import kornia
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.config.schema import Fraction, Recipe
from bench.data.transforms import random_crop, to_gray, to_unit_range

JITTERED = 0.8  # share of views with jittered colors, in all papers
GRAYED = 0.2  # share of gray views, likewise
DEVIATIONS = (0.1, 2.0)  # pixels, of the blur (Chen et al. 2020, appendix A)
KERNEL = 0.1  # of a view's side (same place)

Views = tuple[Tensor, Tensor]  # crops, uint8 (V, 3, side, side), and their distortions, (V, 7)


class ViewRecipe(Recipe):
    """The recipe of a method that compares views."""

    distortion: Fraction = 1.0
    """Multiplies all amounts of jitter, and the shares of gray, blurred and solarized views."""


@dataclass(frozen=True)
class Distortion:
    """How one of the views is distorted.

    Attributes:
        jitter: most change of brightness, contrast and saturation, as shares, and of hue, in turns.
        blurred: share of blurred views.
        solarized: share of views whose values from 0.5 on are inverted.
    """

    jitter: tuple[float, float, float, float]
    blurred: float
    solarized: float = 0.0

    def draw(self, strength: float) -> Tensor:
        """What happens to one view, float (7,), as `distort` takes it.

        Args:
            strength: `ViewRecipe.distortion`.
        """
        changes = (2 * torch.rand(4) - 1) * torch.tensor(self.jitter) * strength
        gray, blurred, solarized = (x * strength for x in (GRAYED, self.blurred, self.solarized))
        shares = torch.tensor([JITTERED, gray, blurred, solarized])
        jittered, gray, blurred, solarized = (torch.rand(4) < shares).float()
        deviation = torch.empty(()).uniform_(*DEVIATIONS)
        return torch.stack([*(changes * jittered), gray, blurred * deviation, solarized])


def crop_views(image: Tensor, recipe: ViewRecipe, distortions: Sequence[Distortion]) -> Views:
    """Random crops of an image, one for each distortion, and what will happen to each.

    Args:
        image: uint8 (3, H, W).
        recipe: its `crop`, `crop_scale` and `distortion`.
        distortions: of the V views, at full strength.
    """
    crops = torch.stack([random_crop(image, recipe) for _ in distortions])
    return crops, torch.stack([one.draw(recipe.distortion) for one in distortions])


def distorted_views(batch: Views) -> Tensor:
    """The views of a collated batch in [0, 1], (V, B, 3, side, side)."""
    crops, draws = batch
    views = distort(to_unit_range(crops.flatten(0, 1)), draws.flatten(0, 1))
    by_image: Tensor = views.unflatten(0, crops.shape[:2])
    return by_image.movedim(1, 0)


def distort(views: Tensor, draws: Tensor) -> Tensor:
    """Views in [0, 1], (N, 3, H, W), distorted as drawn.

    Args:
        views: in [0, 1].
        draws: of each view, (N, 7): changes of brightness, contrast, saturation (shares) and hue
            (turns), 1 for gray, deviation of the blur in pixels (0 for none), 1 for solarization.
    """
    columns = draws.T[:, :, None, None, None]
    brightness, contrast, saturation, hue, gray, deviation, solarized = columns
    views = (views * (1 + brightness)).clamp(0, 1)
    mean = to_gray(views).mean((1, 2, 3), keepdim=True)
    views = (mean + (views - mean) * (1 + contrast)).clamp(0, 1)
    luma = to_gray(views)
    views = (luma + (views - luma) * (1 + saturation)).clamp(0, 1)
    views = shift_hue(views, hue[:, 0])
    views = torch.where(gray > 0, to_gray(views), views)
    blurred = deviation.flatten() > 0
    views[blurred] = blur(views[blurred], deviation[blurred])
    return torch.where((solarized > 0) & (views >= 0.5), 1 - views, views)


def shift_hue(views: Tensor, turns: Tensor) -> Tensor:
    """Views (N, 3, H, W) in [0, 1] whose hue moved around the circle by (N, 1, 1) turns."""
    hue, saturation, value = kornia.color.rgb_to_hsv(views).unbind(1)
    shifted = torch.stack([hue + 2 * torch.pi * turns, saturation, value], 1)
    rgb: Tensor = kornia.color.hsv_to_rgb(shifted)
    return rgb


def blur(views: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian blur of views (N, 3, H, W), each by its own deviation in pixels, (N, 1, 1, 1)."""
    reach = int(views.shape[-1] * KERNEL / 2)
    offsets = torch.arange(-reach, reach + 1, device=views.device)
    weights = torch.exp(-((offsets / deviation) ** 2) / 2)
    weights = weights / weights.sum(-1, keepdim=True)
    for axis, padding in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded = F.pad(views, padding, mode="reflect")
        side = views.shape[axis]
        shifted = (
            padded.narrow(axis, k, side) * weights[..., k, None] for k in range(len(offsets))
        )
        views = reduce(torch.add, shifted)
    return views
