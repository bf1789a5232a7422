"""Names and shapes of files that other packages wrote (tests/peer_keys), with random weights."""

from pathlib import Path

import foreign_weights as foreign
import pytest
import torch
import torchvision
from foreign_weights import SMALL, lightning
from torch import nn

from bench.encoders.checkpoint.load import load
from bench.errors import UserError

KEYS = Path(__file__).parents[2] / "peer_keys"
VIT = "vit_tiny_patch16_224"
OF_224 = {name: value for name, value in SMALL.items() if name != "img_size"}


def state_of(name):
    """A state dict with the names and shapes that a package saved."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for line in (KEYS / f"{name}.txt").read_text().splitlines()[1:]:
        key, _, shape = line.partition(" ")
        sizes = [int(size) for size in shape.split(",") if size]
        tensor = torch.rand(sizes, generator=generator)
        state[key] = tensor.long() if key.endswith("num_batches_tracked") else tensor
    return state


def saved(name, folder):
    """The file as the package writes it: Lightning's own, or a state dict alone."""
    state = state_of(name)
    flat = name in ("lightly_dino", "lightly_mae", "lightly_msn", "lightly_train_dinov2")
    torch.save(state if flat else lightning(state), folder / "weights.ckpt")
    return folder / "weights.ckpt", state


@pytest.mark.parametrize(
    ("name", "layout", "prefix", "arguments"),
    [
        ("lightly_mae", "lightly's examples", "backbone.vit.", SMALL),
        ("stable_pretraining_simmim", "stable-pretraining", "encoder.", OF_224),
        ("stable_pretraining_data2vec", "stable-pretraining", "encoder.teacher.", OF_224),
        ("stable_pretraining_ijepa", "stable-pretraining", "encoder.teacher.vit.", OF_224),
        ("stable_pretraining_salt", "stable-pretraining", "student.vit.", OF_224),
    ],
)
def test_a_vit_of_timm_inside_of_a_method(name, layout, prefix, arguments, tmp_path):
    path, state = saved(name, tmp_path)
    loaded = load(path, VIT, **arguments)
    assert (loaded.layout.name, loaded.prefix) == (layout, prefix)
    own = loaded.module.state_dict()
    assert all(torch.equal(tensor, state[f"{prefix}{key}"]) for key, tensor in own.items())


def test_the_teacher_of_lightly_s_dino_example_is_a_sequence(tmp_path):
    path, state = saved("lightly_dino", tmp_path)
    loaded = load(path, "resnet18")
    prefix = "teacher_backbone."
    assert loaded.prefix == prefix
    assert any("others: prefix=student_backbone." in note for note in loaded.notes)
    theirs = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1], nn.Flatten())
    of_teacher = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    theirs.load_state_dict(of_teacher)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.module(images), theirs.eval()(images))


def test_a_masked_vit_of_torchvision_in_lightly(tmp_path):
    path, state = saved("lightly_msn", tmp_path)
    loaded = load(path, VIT, **SMALL)
    assert (loaded.layout.name, loaded.prefix) == ("lightly's examples", "backbone.vit.")
    theirs = torchvision.models.VisionTransformer(32, 16, 2, 3, 48, 192)
    of_vit = {n.removeprefix(loaded.prefix): t for n, t in state.items()}
    theirs.load_state_dict({name: of_vit[name] for name in theirs.state_dict()})
    theirs.heads = nn.Identity()
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(loaded.module(images), theirs.eval()(images), atol=1e-4)


def test_a_lightning_file_of_lightly_is_not_named_after_another_package(tmp_path):
    state = foreign.under("backbone.", foreign.weights(foreign.vit()))
    state |= foreign.mlp("projection_head.layers.", 0, 3)
    torch.save(lightning(state), tmp_path / "weights.ckpt")
    assert load(tmp_path / "weights.ckpt", VIT, **SMALL).layout.name == "lightly's examples"


def test_lightly_ssl_train_is_refused(tmp_path):
    path, _ = saved("lightly_ssl_train", tmp_path)
    with pytest.raises(UserError, match=r"normalizes its input by a batch norm.*py:FILE:FUNCTION"):
        load(path, "resnet18")


def test_register_tokens_need_an_arch_that_has_them(tmp_path):
    path, state = saved("lightly_train_dinov2", tmp_path)
    with pytest.raises(UserError, match=r"4 register tokens.*arch=vit_small_patch14_reg4_dinov2"):
        load(path, "vit_small_patch14_dinov2")
    loaded = load(path, "vit_small_patch14_reg4_dinov2", img_size=224)
    assert torch.equal(loaded.module.reg_token, state["register_tokens"])


def test_a_causal_encoder_cannot_be_told_from_others(tmp_path):
    path, _ = saved("stable_pretraining_simmim", tmp_path)
    assert any("iGPT" in note for note in load(path, VIT, **OF_224).notes)
