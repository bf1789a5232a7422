"""Signs of health of an encoder's features that need no task: spread, dead channels, neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench.data.image_files import ImageFiles
from bench.data.transforms import to_unit_range
from bench.encoders.encoder import Encoder
from bench.evaluation.features import loader

COLLAPSED_RANK = 2.0  # fewer effective directions than this: the features are one point or a line


@dataclass(frozen=True)
class Stage:
    """The averages over positions of one stage's maps, over some images.

    Attributes:
        name: `0`, `1` ... fine to coarse; `vector` is the model's own global vector.
        channels: how many values.
        norm: mean Euclidean length of an image's values.
        effective_rank: number of directions that they spread over, see `effective_rank`.
        dead: share of the channels that are the same in every image.
    """

    name: str
    channels: int
    norm: float
    effective_rank: float
    dead: float


def effective_rank(features: Tensor) -> float:
    """Number of directions the centered features spread over: exp of the spectrum's entropy.

    Roy and Vetterli 2007 (EUSIPCO), on every n-th row such that fewer than 2,048 are left.

    Args:
        features: (N, D).
    """
    rows = features[:: max(1, len(features) // 1024)].double()
    values = torch.linalg.svdvals(rows - rows.mean(0))
    share = values[values > 0] / values.sum()
    return float(torch.exp(-(share * share.log()).sum())) if len(share) else 1.0


def collapse_warnings(rank: float) -> list[str]:
    """A warning where an effective rank says that features are one point or a line."""
    return ["collapsed features"] if rank < COLLAPSED_RANK else []


def averages(encoder: Encoder, images: ImageFiles, size: int) -> dict[str, Tensor]:
    """Every stage's maps averaged over positions, (N, C) each, and the global vector if any.

    Args:
        encoder: in evaluation mode.
        images: the files.
        size: side to which each is resized, pixels.
    """
    parts: dict[str, list[Tensor]] = {}
    for rgb in loader(images, size):
        with torch.inference_mode():
            maps, vector = encoder.with_embedding(to_unit_range(rgb.to(encoder.mean.device)))
        named = {str(s): m.mean((2, 3)) for s, m in enumerate(maps)}
        for name, values in {**named, **({} if vector is None else {"vector": vector})}.items():
            parts.setdefault(name, []).append(values.float().cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


def stage(name: str, values: Tensor) -> Stage:
    """The signs of one stage from its averages (N, C)."""
    return Stage(
        name=name,
        channels=values.shape[1],
        norm=float(values.norm(dim=1).mean()),
        effective_rank=effective_rank(values),
        dead=float((values.amax(0) == values.amin(0)).float().mean()),
    )


def neighbors(values: Tensor, count: int) -> np.ndarray:
    """The nearest other images of every image by cosine similarity, int64 (N, count).

    Args:
        values: of one stage, (N, C); they are centered first.
        count: how many, nearest first; fewer where there are fewer images.
    """
    rows = nn.functional.normalize(values - values.mean(0), dim=1)
    similarity = rows @ rows.T
    similarity.fill_diagonal_(-2)
    nearest: np.ndarray = similarity.topk(min(count, len(values) - 1)).indices.numpy()
    return nearest


def batch_norms(encoder: Encoder) -> tuple[int, int]:
    """How many batch norms there are, and how many have the statistics that they began with."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    fresh = [
        bool((m.running_mean == 0).all()) and bool((m.running_var == 1).all())
        for m in norms
        if m.running_mean is not None and m.running_var is not None
    ]
    return len(norms), sum(fresh)
