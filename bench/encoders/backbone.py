"""The backbone factory: timm networks at any width and input."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.encoders.depthwise import train_fast
from bench.encoders.transformer import (
    TransformerStages,
    is_transformer,
    make_transformer,
    size_options,
)
from bench.errors import UserError

WRAPPERS = ("model.", "body.")  # what timm's feature networks put in front of a model's names


def make_backbone(name: str, channels: int = 3, share: int = 1) -> Any:
    """An untrained timm network with stage-wise features.

    Args:
        name: of a timm model.
        channels: of its input.
        share: every layer has 1 / share of the model's channels.

    Returns:
        timm's feature network, which maps (B, channels, H, W) to one map per stage. Its
        `feature_info` has the stages' channels and strides.

    Raises:
        UserError: there is no such model, or it cannot be narrowed. A layer is then neither a
            convolution nor a batch norm, or its channels cannot be divided.
    """
    check_name(name)
    if share > 1 and is_transformer(name):
        raise UserError(f"backbone.name '{name}' has no 1/{share} width: it is a transformer")
    try:
        if is_transformer(name):
            return make_transformer(name, channels)
        create: Any = timm.create_model
        options = {"in_chans": channels, **size_options(name)}
        body = create(name, features_only=True, pretrained=False, **options)
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"backbone.name '{name}': {str(error).splitlines()[0]}") from None
    if share > 1:
        try:
            _narrow(body, share)
        except ValueError as error:
            raise UserError(f"backbone.name '{name}' has no 1/{share} width: {error}") from None
    train_fast(body)
    return body.to(memory_format=torch.channels_last)


def check_name(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        UserError: names what is like it.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"backbone.name '{name}': timm has no such model; {hint}")


def channels_first(maps: Sequence[Tensor], network: nn.Module) -> list[Tensor]:
    """Maps of a timm network as (B, C, h, w); some, such as Swin, say that theirs are NHWC."""
    if str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
        return [m.permute(0, 3, 1, 2) for m in maps]
    return list(maps)


def _narrow(body: Any, share: int) -> None:
    """Keep the first 1 / share of every layer's channels, except the input's.

    timm draws a convolution's weights with the variance 2 / fan-out (He et al. 2015). As the
    fan-out shrinks, the remaining weights are scaled to the variance of the narrow layer.
    """

    def divide(count: int) -> int:
        if count % share:
            raise ValueError(f"{count} channels cannot be divided by {share}")
        return count // share

    stem = True
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels > 1
            fan_out = module.out_channels // module.groups
            module.out_channels = divide(module.out_channels)
            module.in_channels = module.in_channels if stem else divide(module.in_channels)
            module.groups = module.in_channels if depthwise else module.groups
            inner = module.in_channels // module.groups
            growth = math.sqrt(fan_out * module.groups / module.out_channels)
            _shrink(module, "weight", slice(module.out_channels), slice(inner), scale=growth)
            stem = False
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = divide(module.num_features)
            for name in ("weight", "running_mean", "running_var"):
                _shrink(module, name, slice(module.num_features))
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(f"it has a {type(module).__name__}")
        if getattr(module, "bias", None) is not None:
            _shrink(module, "bias", slice(divide(len(module.bias))))
    for stage in body.feature_info.info:
        stage["num_chs"] = divide(stage["num_chs"])


def _shrink(module: nn.Module, name: str, *slices: slice, scale: float = 1.0) -> None:
    """Replace a parameter or buffer by a scaled part of it."""
    tensor = getattr(module, name)
    values = (tensor.detach()[slices] * scale).clone()
    setattr(module, name, nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values)


def timm_names(name: str, branch: nn.Module) -> dict[str, str]:
    """Name by timm of every weight and buffer of a network that `make_backbone` made.

    Args:
        name: of the timm model.
        branch: the network.

    Raises:
        UserError: timm's feature network has names that the whole model has not.
    """
    if isinstance(branch, TransformerStages):
        return {own: own.removeprefix("model.") for own in branch.state_dict()}
    whole = outline(name)
    known = whole.state_dict().keys()
    modules = {path.replace(".", "_"): path for path, _ in whole.named_modules() if path}
    names = {own: _timm_name(own, known, modules) for own in branch.state_dict()}
    strange = [own for own, theirs in names.items() if theirs not in known]
    if strange:
        raise UserError(f"timm's feature network of {name} has names of its own, as {strange[0]}")
    return names


def outline(name: str, **options: Any) -> Any:
    """A whole timm model on the device meta: names and shapes, at no cost.

    Args:
        name: of the model.
        options: for `timm.create_model`.
    """
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **options)


def _timm_name(own: str, known: Set[str], modules: Mapping[str, str]) -> str:
    """Name of a feature network's weight in the whole model; its own if there is none.

    timm wraps the model, or lifts modules to one level: stages_0.x is stages.0.x of the model.

    Args:
        own: name in the feature network.
        known: names of the whole model.
        modules: a lifted module's name -> its path in the whole model.
    """
    lifted, _, rest = own.partition(".")
    names = [own, *(own.removeprefix(wrapper) for wrapper in WRAPPERS)]
    names.append(f"{modules.get(lifted, lifted)}.{rest}")
    return next((name for name in names if name in known), own)
