"""Any network as an encoder: a module on RGB in [0, 1], or a timm model with its own input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.encoders.backbone import channels_first
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import Pretraining
from bench.encoders.promises import check_promises, maps_of
from bench.errors import UserError

PROBE = 128  # side of the images from which channels and strides are read, pixels
UNIT = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # mean and standard deviation that change nothing


class ModuleEncoder(Encoder):
    """An encoder around a module.

    A timm model is given images normalized as its weights expect, and its intermediate maps are the
    stages. Any other module is given RGB in [0, 1], float (B, 3, H, W); it returns one map
    (B, C, h, w), several of them from fine to coarse, or vectors (B, C).

    Args:
        module: the network; it is used in evaluation mode.
        name: what records call its backbone; a timm model has its own name.

    Raises:
        UserError: what it returns is neither maps nor vectors, or it breaks a promise of `Encoder`.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        nn.Module.__init__(self)
        self.module = module
        self.is_timm = hasattr(module, "forward_intermediates")
        config: Any = getattr(module, "pretrained_cfg", None) if self.is_timm else None
        mean, std = (config["mean"], config["std"]) if config else UNIT
        self.backbone = str(config["architecture"]) if config else name
        self.inputs = ("rgb",)
        self.branches = nn.ModuleList()
        self.pretraining = Pretraining()
        self.samples = None
        self.origin = {}
        self.set_normalization(mean, std)
        module.eval()
        device = next(iter(module.parameters()), torch.zeros(())).device
        with torch.inference_mode():
            maps = maps_of(self, torch.rand(2, 3, PROBE, PROBE, device=device), self.backbone)
        self.channels = tuple(m.shape[1] for m in maps)
        self.branch_channels = self.channels
        self.strides = tuple(max(1, round(PROBE / m.shape[-1])) for m in maps)
        check_promises(self, self.backbone)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map RGB in [0, 1], float (B, 3, H, W), to maps (B, C, h, w), fine to coarse."""
        normalized = (rgb - self.mean) / self.std
        if self.is_timm:
            module: Any = self.module
            outputs = module.forward_intermediates(
                normalized, output_fmt="NCHW", intermediates_only=True
            )
        else:
            outputs = self.module(normalized)
        several = isinstance(outputs, Iterable) and not isinstance(outputs, Tensor | Mapping)
        stages = [_as_map(m) for m in (outputs if several else [outputs])]
        return stages if self.is_timm else channels_first(stages, self.module)


def encoder_around(module: nn.Module, name: str) -> Encoder:
    """The module itself, if it is an `Encoder` that keeps its promises; else one around it.

    Args:
        module: on the CPU, in evaluation mode.
        name: what to call it in a message.

    Raises:
        UserError: it breaks a promise of `Encoder`.
    """
    if not isinstance(module, Encoder):
        return ModuleEncoder(module, name)
    check_promises(module, name)
    return module


def _as_map(output: Any) -> Tensor:
    """A map (B, C, h, w) as it is; vectors (B, C) as a map of one position."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"the model returns {shape}; return a map (B, C, h, w), a list of maps from fine to "
            "coarse, or vectors (B, C)"
        )
    return output if output.ndim == 4 else output[:, :, None, None]
