"""An encoder's last stage, taken apart: dilated for segmentation, moved to a detector's head."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bench.encoders.encoder import Encoder
from bench.errors import UserError


def dilate_last_stage(encoder: Encoder) -> Encoder:
    """Give the last stage the stride of the one before, in place, by dilating its convolutions.

    What used to step by two steps by one, and what follows it sees every second pixel, so that
    pretrained weights keep their meaning (Chen et al. 2015, section 3.1).
    """
    for body in encoder.branches:
        growing = False
        for module in (m for block in _last_blocks(body) for m in block.modules()):
            if not isinstance(module, nn.Conv2d):
                continue
            if max(module.stride) > 1:
                module.stride, growing = (1, 1), True
            elif growing and max(module.kernel_size) > 1:
                module.dilation = tuple(2 * d for d in module.dilation)
                if not isinstance(module.padding, str):
                    module.padding = tuple(2 * p for p in module.padding)
    encoder.strides = (*encoder.strides[:-1], encoder.strides[-2])
    return encoder


def split_last_stage(encoder: Encoder) -> tuple[Encoder, LastStage]:
    """The encoder without its last stage, and that stage; the weights are shared with neither."""
    trunk = copy.deepcopy(encoder)
    blocks = nn.ModuleList(nn.Sequential(*_last_blocks(body)) for body in trunk.branches)
    for body in trunk.branches:
        _remove_last_blocks(body)
    tail = LastStage(blocks, trunk.branch_channels[-2], trunk.channels[-1])
    trunk.channels, trunk.strides = trunk.channels[:-1], trunk.strides[:-1]
    trunk.branch_channels = trunk.branch_channels[:-1]
    return trunk, tail


class LastStage(nn.Module):
    """The last stage of every part of an encoder.

    Args:
        blocks: of each part.
        width: channels that each part takes.
        channels: of the result, over all parts.
    """

    def __init__(self, blocks: nn.ModuleList, width: int, channels: int) -> None:
        super().__init__()
        self.blocks, self.width, self.channels = blocks, width, channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the stage before, (N, parts * width, h, w), to (N, channels, h / 2, w / 2)."""
        parts = zip(self.blocks, maps.split(self.width, 1), strict=True)
        return torch.cat([block(part) for block, part in parts], 1)


def _last_blocks(body: Any) -> list[nn.Module]:
    """The modules that come after the last stage but one."""
    holder, names = _order(body)
    return [holder.get_submodule(name) for name in names]


def _remove_last_blocks(body: Any) -> None:
    holder, names = _order(body)
    for name in names:
        delattr(holder, name)


def _order(body: Any) -> tuple[nn.Module, list[str]]:
    """The module whose children are a body's blocks, and the names of those of the last stage."""
    before: str = body.feature_info.module_name()[-2]
    path, _, last = before.rpartition(".")
    holder = body.get_submodule(path)
    names = [name for name, _ in holder.named_children()]
    after = names[names.index(last) + 1 :] if last in names else []
    if not after:
        raise UserError(f"the last stage of this backbone cannot be told apart (after '{before}')")
    return holder, after
