"""What no comparison of names and shapes can see: stems, heads, norms and inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from bench.encoders.checkpoint.layouts import has_fixed_positions
from bench.encoders.checkpoint.normalization import InputContract
from bench.encoders.checkpoint.recognize import Selection, fits_any
from bench.encoders.checkpoint.renames import StateDict

ROUNDING = 1e-5  # relative, between a mean or deviation in float32 and the same in a text
REGISTERS = ("register_tokens", "storage_tokens", "reg_token")  # Meta's two names, and timm's
PATCH = re.compile(r"_patch\d+")
QKV_BIAS = re.compile(r"blocks\.\d+\.attn\.qkv\.bias$")


def fitting_arguments(module: nn.Module, state: StateDict) -> dict[str, Any]:
    """Arguments of `timm.create_model` by which a ViT gets the parts that a state dict has.

    These are a layer scale, and a norm of the mean token (`fc_norm`) instead of one of all tokens.

    Args:
        module: the model as the arch has it.
        state: the file's tensors, by names that timm knows.
    """
    own = module.state_dict()
    arguments: dict[str, Any] = {}
    if "blocks.0.norm1.weight" not in own:
        return arguments
    if "blocks.0.ls1.gamma" in state.keys() - own.keys():
        arguments["init_values"] = 1e-5
    if "fc_norm.weight" in state.keys() - own.keys() and "norm.weight" not in state:
        arguments["global_pool"] = "avg"
    return arguments


def missing_registers(module: nn.Module, arch: str, state: StateDict) -> str:
    """The register tokens of a file for whose model there are none, and the arch that has them.

    Empty where the file has none or the model has some.
    """
    tokens = next((state[name] for name in REGISTERS if name in state), None)
    if tokens is None or tokens.ndim < 2 or getattr(module, "reg_token", None) is not None:
        return ""
    count = tokens.shape[-2]
    with_registers = PATCH.sub(rf"\g<0>_reg{count}", arch)
    hint = f"; take arch={with_registers}" if timm.is_model(with_registers) else ""
    return f"the file has {count} register tokens, the model none{hint}"


def left_out_biases(module: nn.Module, state: StateDict) -> list[str]:
    """Biases of attention that timm leaves out of a DINOv3 although they are not zero.

    timm's filter assumes that the biases of the keys are zero, and all three where the arch has
    none (timm: models/eva.py). A `bias_mask` beside a bias is what DINOv3 multiplies it with.
    """
    own = module.state_dict()
    left = []
    for name in state:
        if not QKV_BIAS.match(name) or name in own:
            continue
        bias = state[name] * state.get(f"{name}_mask", torch.ones(())).nan_to_num(0)
        query, key, value = bias.chunk(3)
        unused = [key] if name.replace("qkv.bias", "q_bias") in own else [query, key, value]
        if any(bool(part.count_nonzero()) for part in unused):
            left.append(name)
    return left


def cifar_stem(module: Any, state: StateDict, padding: int) -> tuple[str, ...]:
    """Give a ResNet the stem of CIFAR where the file has one, and say so.

    That is a first convolution of 3x3 at stride 1 instead of 7x7 at stride 2, and no max-pool
    (SimCLR, appendix B.9). Other shapes are left as they are, and then do not fit.

    Args:
        module: the model; it is changed.
        state: the file's tensors, by the model's names.
        padding: of that convolution.
    """
    stem = getattr(module, "conv1", None)
    weight = state.get("conv1.weight")
    if weight is None or not isinstance(stem, nn.Conv2d) or not hasattr(module, "maxpool"):
        return ()
    shape = tuple(weight.shape)
    if shape != (stem.out_channels, stem.in_channels, 3, 3) or stem.kernel_size != (7, 7):
        return ()
    module.conv1 = nn.Conv2d(
        stem.in_channels, stem.out_channels, 3, stride=1, padding=padding, bias=False
    )
    module.maxpool = nn.Identity()
    for stage, info in enumerate(module.feature_info):
        info["reduction"] //= 4 if stage else 2
    return (
        f"CIFAR stem: the first convolution is 3x3 at stride 1 with padding {padding}, and there "
        "is no max-pool",
    )


def has_cifar_stem(module: nn.Module) -> bool:
    """Whether `cifar_stem` changed a ResNet."""
    return hasattr(module, "conv1") and isinstance(getattr(module, "maxpool", None), nn.Identity)


def notes_of(
    module: nn.Module,
    arch: str,
    selection: Selection,
    state: StateDict,
    contract: InputContract,
    arguments: Mapping[str, Any],
) -> tuple[str, ...]:
    """What to tell the user of a loaded checkpoint.

    Args:
        module: the model with the weights.
        arch: its name in timm.
        selection: the encoder's part of the file.
        state: the same by names that timm knows.
        contract: the input.
        arguments: that the layout or the file called for when the model was created.
    """
    names = {*selection.names, *selection.state}
    notes = [
        text
        for pattern, text in selection.layout.notes
        if any(fits_any(name, (pattern,)) for name in names)
    ]
    if selection.layout.taken and selection.key in selection.layout.keys:
        notes.append(selection.layout.taken)
    notes += _other_encoders(selection)
    notes += _head_notes(module, state, arguments)
    notes += [
        f"created with {name}={value}, as the file needs" for name, value in arguments.items()
    ]
    notes += _input_notes(arch, contract)
    notes += _norm_notes(module, state)
    if any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in state.values()):
        notes.append("half-precision weights became float32")
    return tuple(notes)


def _other_encoders(selection: Selection) -> list[str]:
    if not selection.others:
        return []
    taken = [f"key={selection.key}"] if selection.key else []
    taken += [f"prefix={selection.prefix}"] if selection.prefix else []
    others = " or ".join(selection.others)
    return [f"the file has several encoders; taken: {', '.join(taken)}; others: {others}"]


def _head_notes(module: Any, state: StateDict, arguments: Mapping[str, Any]) -> list[str]:
    """Say so where a ViT may have other heads than timm's: weights of 6 and of 12 look alike."""
    if "num_heads" in arguments or not has_fixed_positions(state):
        return []
    return [
        "its positions are a fixed table, as of MoCo v3 and MAE, whose ViTs of this width have 12 "
        f"heads in some codes; {module.blocks[0].attn.num_heads} are taken, others by heads="
    ]


def _input_notes(arch: str, contract: InputContract) -> list[str]:
    """Say so where the arch's own input, which users may expect, is not the weights'."""
    config: Any = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    if config is None:
        return []
    own = (*contract.mean, *contract.std)
    usual = (*config.mean, *config.std)
    if all(math.isclose(a, b, rel_tol=ROUNDING) for a, b in zip(own, usual, strict=True)):
        return []
    mean, std, usual_mean, usual_std = (
        " ".join(f"{value:g}" for value in values)
        for values in (contract.mean, contract.std, config.mean, config.std)
    )
    return [
        f"input: mean {mean}, std {std} ({contract.origin}); not mean {usual_mean}, std "
        f"{usual_std}, which timm's own weights of {arch} expect"
    ]


def _norm_notes(module: nn.Module, state: StateDict) -> list[str]:
    """Say so where the tokens of the last block are not normalized as in the arch."""
    if "blocks.0.norm1.weight" not in state or "norm.weight" in state:
        return []
    if "fc_norm.weight" in state:
        return ["the final norm is of the mean token (fc_norm); the maps of blocks have none"]
    if isinstance(getattr(module, "norm", None), nn.Identity):
        return ["there is no final norm: neither the file nor the model has one"]
    return ["the file has no final norm; the model's is as initialized"]
