"""Any network as an encoder: a module on RGB in [0, 1], or a timm model with its own input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.encoders.backbone import channels_first, outline
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import Pretraining
from bench.encoders.promises import check_promises, maps_of
from bench.encoders.transformer import TransformerStages, is_transformer
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
        name: what records call its backbone, see `backbone_of`.

    Raises:
        UserError: what it returns is neither maps nor vectors, or it breaks a promise of `Encoder`.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        nn.Module.__init__(self)
        config = _config(module)
        mean, std = (config["mean"], config["std"]) if config else UNIT
        self.backbone = backbone_of(module, name)
        is_plain = is_transformer(self.backbone) and is_timm_model(module)
        self.module = TransformerStages(module) if is_plain else module
        self.is_timm = hasattr(self.module, "forward_intermediates")
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

    def with_embedding(self, rgb: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The maps, and the global vector (B, D) of a plain transformer of timm, of one pass."""
        if not isinstance(self.module, TransformerStages):
            return self(rgb), None
        return self.module.with_embedding((rgb - self.mean) / self.std)


def backbone_of(module: nn.Module, name: str) -> str:
    """What records call the backbone of a module: a network shares a table with its equals alone.

    A timm model as timm makes it has timm's name. Any other module has its own name, with "own-" in
    front where that is a timm model's, or where the module is a timm model that was changed.

    Args:
        module: any network.
        name: its own.
    """
    config = _config(module)
    if is_timm_model(module):
        return str(config["architecture"])
    changed = bool(config) and timm.is_model(str(config.get("architecture")))
    return f"own-{name}" if changed or timm.is_model(name) else name


def is_timm_model(module: nn.Module) -> bool:
    """Whether a module has the weights and strides of timm's model, whatever its classifier is."""
    config = _config(module)
    name = str(config.get("architecture")) if config else ""
    if not timm.is_model(name):
        return False
    own = _shapes(module, config)
    models = outline(name), outline(name, num_classes=0)
    return any(
        own == _shapes(model, config) and _strides(module) == _strides(model) for model in models
    )


def _config(module: nn.Module) -> Any:
    """The settings of a timm model's weights; none of any other module."""
    if not hasattr(module, "forward_intermediates"):
        return None
    return getattr(module, "pretrained_cfg", None)


def _shapes(module: nn.Module, config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every weight and buffer of a timm model, without those of its classifier."""
    classifier = config.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    heads = tuple(f"{layer}." for layer in layers)
    return {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if not name.startswith(heads)
    }


def _strides(module: nn.Module) -> list[Any]:
    """Stride of every stage of a timm model; none where timm does not list them."""
    stages = getattr(module, "feature_info", None)
    return [stage.get("reduction") for stage in stages] if isinstance(stages, list) else []


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
