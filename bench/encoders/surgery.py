"""Surgery on an encoder's last stage: dilated for segmentation, moved to a detector's head."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench.encoders.encoder import Encoder
from bench.errors import UserError


def dilate_last_stage(encoder: Encoder) -> Encoder:
    """Give the last stage the stride of the one before, in place, by dilating its convolutions.

    Nothing changes where no convolution has a stride: all stages of a plain transformer have one
    stride, and Swin merges patches by a linear layer.

    The strided convolution then moves by one pixel. The convolutions after it read every second
    pixel, so that pretrained weights keep their meaning (Chen et al. 2015, section 3.1).
    """
    dilated = False
    for branch in () if encoder.is_isotropic else encoder.branches:
        dilating = False
        for module in (m for block in _last_blocks(branch) for m in block.modules()):
            if not isinstance(module, nn.Conv2d):
                continue
            if max(module.stride) > 1:
                module.stride = (1, 1)
                dilating = True
            elif dilating and max(module.kernel_size) > 1:
                module.dilation = tuple(2 * d for d in module.dilation)
                if not isinstance(module.padding, str):
                    module.padding = tuple(2 * p for p in module.padding)
        dilated |= dilating
    if dilated:
        encoder.strides = (*encoder.strides[:-1], encoder.strides[-2])
    return encoder


def split_last_stage(encoder: Encoder) -> tuple[Encoder, LastStage]:
    """A copy of the encoder without its last stage, and a copy of that stage.

    Raises:
        UserError: its stages are not of ever larger stride.
    """
    if encoder.is_isotropic:
        raise UserError(
            f"{encoder.backbone}: all stages have stride {encoder.strides[-1]}, so none is the "
            'last one of the head; set protocol = "fpn"'
        )
    trunk = copy.deepcopy(encoder)
    blocks = nn.ModuleList(nn.Sequential(*_last_blocks(branch)) for branch in trunk.branches)
    for branch in trunk.branches:
        _remove_last_blocks(branch)
    stage = LastStage(blocks, trunk.branch_channels[-2], trunk.channels[-1])
    trunk.channels = trunk.channels[:-1]
    trunk.strides = trunk.strides[:-1]
    trunk.branch_channels = trunk.branch_channels[:-1]
    return trunk, stage


class LastStage(nn.Module):
    """The last stage of every branch of an encoder.

    Args:
        blocks: one for each branch.
        branch_channels: channels that each branch takes.
        channels: of the result, over all branches.
    """

    def __init__(self, blocks: nn.ModuleList, branch_channels: int, channels: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.branch_channels = branch_channels
        self.channels = channels

    def forward(self, maps: Tensor) -> Tensor:
        """Map the stage before, (N, branches * C, h, w), to (N, channels, h / 2, w / 2)."""
        parts = maps.split(self.branch_channels, 1)
        outputs = [block(part) for block, part in zip(self.blocks, parts, strict=True)]
        return torch.cat(outputs, 1)


def _last_blocks(branch: Any) -> list[nn.Module]:
    """The modules of the last stage, in order."""
    parent, names = _last_stage(branch)
    return [parent.get_submodule(name) for name in names]


def _remove_last_blocks(branch: Any) -> None:
    parent, names = _last_stage(branch)
    for name in names:
        delattr(parent, name)


def _last_stage(branch: Any) -> tuple[nn.Module, list[str]]:
    """The module whose children are a branch's blocks, and the names of those of the last stage."""
    before: str = branch.feature_info.module_name()[-2]
    flat = before.replace(".", "_")  # timm's name of it where it lifts all stages to one level
    if flat in dict(branch.named_children()):
        before = flat
    path, _, last = before.rpartition(".")
    parent = branch.get_submodule(path)
    names = [name for name, _ in parent.named_children()]
    after = names[names.index(last) + 1 :] if last in names else []
    if not after:
        raise UserError(f"cannot separate the last stage of this backbone (after '{before}')")
    return parent, after
