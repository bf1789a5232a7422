"""Vision transformers: a map of patch tokens after every block, and how fast each block learns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Set
from typing import Any

import timm
import torch
from timm.models._features import FeatureInfo
from torch import Tensor, nn

from bench.encoders.kinds import TRANSFORMERS

WINDOWED = ("swin_transformer", "swin_transformer_v2")  # timm's modules of windows of any size
ANY_SIZE: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True}
# Li et al. 2022 (ViTDet), appendix A.2: the decay of the rate from one block to the one before, for
# models of up to 12, 24 and more blocks.
DEPTHS = (12, 24)
LAYER_DECAYS = (0.7, 0.8, 0.9)
INPUT = ("patch_embed.", "norm_pre.")  # timm's names of what comes before the first block


def is_transformer(name: str) -> bool:
    """Whether a timm model is a plain transformer.

    Args:
        name: of the model, without a tag.
    """
    return _module(name) in TRANSFORMERS


def size_options(name: str) -> dict[str, Any]:
    """What makes a timm model with stages of several strides take images of any size."""
    return {"strict_img_size": False} if _module(name) in WINDOWED else {}


def _module(name: str) -> str:
    """The module of timm that defines a model; empty if there is none."""
    if not timm.is_model(name):
        return ""
    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


class TransformerStages(nn.Module):
    """A timm transformer whose blocks are the stages, for images of any size.

    Args:
        model: made with `ANY_SIZE` and without a classifier, see `make_transformer`.

    Attributes:
        feature_info: channels, strides and module of every stage, as timm's feature networks have.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        blocks = [dict(info) for info in model.feature_info]
        self.feature_info = FeatureInfo(blocks, tuple(range(len(blocks))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (B, C, H, W) to one map per block, (B, D, h, w)."""
        return self.with_embedding(images)[0]

    def with_embedding(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps, and the model's own global vector (B, D) of the same pass.

        The vector is what the model's classifier is given: the class token, or the mean of patch
        tokens, after the last normalization.
        """
        tokens, maps = self.model.forward_intermediates(images.contiguous())
        return list(maps), self.model.forward_head(tokens, pre_logits=True)

    def visible_tokens(self, images: Tensor, kept: Tensor) -> Tensor:
        """The tokens of some patches, after the last normalization. No block is shown the others.

        Args:
            images: normalized, (B, C, H, W).
            kept: the patches by number, row by row, int64 (B, K).

        Returns:
            (B, P + K, D), the model's P own tokens first.
        """
        usual = self.model.patch_drop
        both = usual is None  # timm's Eva wants to know which patches remain
        self.model.patch_drop = _Keep(kept, self.model.num_prefix_tokens, both)
        try:
            tokens: Tensor = self.model.forward_features(images.contiguous())
        finally:
            self.model.patch_drop = usual
        return tokens


class _Keep(nn.Module):
    """What takes the place of timm's patch dropout: it keeps given patches, in their order."""

    def __init__(self, kept: Tensor, prefix: int, both: bool) -> None:
        super().__init__()
        self._kept = kept
        self._prefix = prefix
        self._both = both

    def forward(self, tokens: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The model's own tokens and the kept ones of (B, P + N, D), with numbers if wanted."""
        patches = tokens[:, self._prefix :].take_along_dim(self._kept[:, :, None], 1)
        tokens = torch.cat([tokens[:, : self._prefix], patches], 1)
        return (tokens, self._kept) if self._both else tokens


def make_transformer(name: str, channels: int) -> TransformerStages:
    """An untrained timm transformer.

    Args:
        name: of a timm model, see `is_transformer`.
        channels: of its input.
    """
    create: Any = timm.create_model
    return TransformerStages(
        create(name, pretrained=False, in_chans=channels, num_classes=0, **ANY_SIZE)
    )


def transformer_of(network: nn.Module) -> Any:
    """The plain transformer of timm that a network contains; None if there is none."""
    modules = [f"timm.models.{name}" for name in TRANSFORMERS]
    parts = (part for part in network.modules() if type(part).__module__ in modules)
    return next((part for part in parts if hasattr(part, "blocks")), None)


def layer_rates(model: Any) -> dict[nn.Parameter, float]:
    """The share of the learning rate that each weight of a transformer is fine-tuned with.

    It falls by a factor from block to block, towards the input (Li et al. 2022, ViTDet, code:
    `get_vit_lr_decay_rate`). The last normalization has the whole rate.

    Args:
        model: of timm, see `is_transformer`.
    """
    depth = len(model.blocks)
    decay = LAYER_DECAYS[bisect_left(DEPTHS, depth)]
    layers = {weight: depth + 1 for weight in model.parameters()}
    for name, weight in model.named_parameters():
        if name.startswith("blocks."):
            layers[weight] = int(name.split(".")[1]) + 1
        elif name in model.no_weight_decay() or name.startswith(INPUT):
            layers[weight] = 0
    return {weight: decay ** (depth + 1 - layer) for weight, layer in layers.items()}


def embeddings(model: Any) -> Set[nn.Parameter]:
    """Positions and tokens of a timm transformer, which have no weight decay."""
    names: Set[str] = model.no_weight_decay()
    return {weight for name, weight in model.named_parameters() if name in names}
