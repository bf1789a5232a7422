"""The mean and standard deviation of an encoder's input, and who says so.

timm knows a normalization for every arch, but it is that of timm's own weights: 0.5 for
`vit_small_patch16_224`, where DINO, MoCo v3 and MAE trained the same network on ImageNet's mean.
So the arch's is taken only where the file comes from timm's own training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from bench.encoders.checkpoint.layouts import ARCH_INPUT, IMAGENET, UNIT, Layout, Triple, triple
from bench.encoders.checkpoint.read import Contents
from bench.errors import UserError
from bench.specs import SETTINGS_BESIDE

# Of each of `SETTINGS_BESIDE`: the names of mean and std in it.
KEYS = (
    ("image_mean", "image_std"),  # transformers
    ("mean", "std"),  # timm, in `pretrained_cfg`
)
LARGEST_CONFIG = 10**6  # bytes


@dataclass(frozen=True)
class InputContract:
    """How an encoder's input is normalized: (RGB in [0, 1] - mean) / std.

    Attributes:
        mean: of each channel.
        std: of each channel.
        origin: who says so.
    """

    mean: Triple
    std: Triple
    origin: str


def input_contract(
    contents: Contents, layout: Layout, arch: str, mean: Any = None, std: Any = None
) -> InputContract:
    """The input of an encoder: as requested, as the file or one beside it says, or the layout's.

    Args:
        contents: of the file.
        layout: that it has.
        arch: the timm model.
        mean: that the user asks for; three numbers, or one for all channels.
        std: the same.

    Raises:
        UserError: mean or std alone is requested, or is not three numbers.
    """
    if mean is not None or std is not None:
        return _requested(mean, std)
    own = layout.own_normalization(contents.tree) if layout.own_normalization else None
    if own == ARCH_INPUT:
        config: Any = timm.get_pretrained_cfg(arch, allow_unregistered=True)
        if config is not None:
            return InputContract(tuple(config.mean), tuple(config.std), f"timm's input of {arch}")
    elif own is not None and not isinstance(own, str):
        return _checked(InputContract(*own, "the settings in the file"))
    mean_in_file, std_in_file = (triple(contents.settings.get(key)) for key in ("mean", "std"))
    if mean_in_file and std_in_file:
        return _checked(InputContract(mean_in_file, std_in_file, "the settings in the file"))
    if contract := _beside(contents.path):
        return contract
    if layout.normalization == IMAGENET:
        return InputContract(*IMAGENET, "ImageNet's, as nothing else is stated")
    return InputContract(*layout.normalization, layout.name)


def _requested(mean: Any, std: Any) -> InputContract:
    if mean is None or std is None:
        raise UserError("mean and std are given together, or neither")
    means, stds = triple(mean), triple(std)
    if means is None or stds is None:
        raise UserError(f"mean {mean} and std {std}: three numbers each")
    return _checked(InputContract(means, stds, "as requested"))


def _checked(contract: InputContract) -> InputContract:
    """An input of RGB in [0, 1].

    Raises:
        UserError: it is of another range, such as 0 to 255.
    """
    mean, std = contract.mean, contract.std
    if all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std):
        return contract
    texts = (" ".join(f"{value:g}" for value in values) for values in (mean, std))
    raise UserError(
        "mean {} and std {} ({}): must be of RGB in [0, 1]; give mean= and std=".format(
            *texts, contract.origin
        )
    )


def _beside(path: Path) -> InputContract | None:
    """What a library saved beside the weights."""
    for name, (mean, std) in zip(SETTINGS_BESIDE, KEYS, strict=True):
        settings = _json(path.parent / name)
        inner = settings.get("pretrained_cfg")
        settings = inner if isinstance(inner, dict) else settings
        origin = f"{name} beside the file"
        if settings.get("do_normalize") is False:
            return InputContract(*UNIT, origin)
        means, stds = triple(settings.get(mean)), triple(settings.get(std))
        if means and stds:
            return _checked(InputContract(means, stds, origin))
    return None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            return {}
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
