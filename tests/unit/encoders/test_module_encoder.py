"""What records call the backbone of a module, and what a module gives to a task."""

import pytest
import timm
import torch
from torch import nn

from bench.encoders.encoder import Encoder
from bench.encoders.module_encoder import ModuleEncoder
from bench.encoders.transformer import ANY_SIZE, TransformerStages

RESNET = "resnet18"
VIT = "vit_tiny_patch16_224"


def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())


@pytest.mark.parametrize(
    ("label", "backbone"), [("mine", "mine"), (RESNET, "own-resnet18"), (VIT, f"own-{VIT}")]
)
def test_a_module_never_has_the_name_of_a_timm_model(label, backbone):
    assert ModuleEncoder(plain(), label).backbone == backbone


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (RESNET, {}),
        (RESNET, {"num_classes": 0}),
        (RESNET, {"num_classes": 7}),
        (VIT, ANY_SIZE),
        (VIT, {"num_classes": 0, **ANY_SIZE}),
        ("convnext_atto", {"num_classes": 7}),
        ("mobilenetv3_small_050", {"num_classes": 0}),
    ],
)
def test_a_timm_model_of_any_classifier_has_timms_name(name, options):
    assert ModuleEncoder(timm.create_model(name, **options), "mine").backbone == name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (VIT, {"depth": 2, **ANY_SIZE}),
        (VIT, {"embed_dim": 48, **ANY_SIZE}),
        (VIT, {"global_pool": "avg", "fc_norm": True, **ANY_SIZE}),
        (RESNET, {"output_stride": 8}),
        (RESNET, {"block_args": {"attn_layer": "se"}}),
    ],
)
def test_a_timm_model_of_other_shapes_or_strides_has_a_name_of_its_own(name, options):
    module = timm.create_model(name, **options)
    assert ModuleEncoder(module, "mine").backbone == "own-mine"
    assert ModuleEncoder(module, name).backbone == f"own-{name}"


def test_a_plain_transformer_has_its_global_vector_as_that_of_a_file():
    torch.manual_seed(0)
    model = timm.create_model(VIT, **ANY_SIZE).eval()
    encoder = ModuleEncoder(model, "mine").eval()
    read = Encoder(VIT).eval()
    headless = timm.create_model(VIT, num_classes=0, **ANY_SIZE).eval()
    headless.load_state_dict(model.state_dict(), strict=False)
    read.branches[0] = TransformerStages(headless)
    rgb = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        maps, vector = encoder.with_embedding(rgb)
        expected_maps, expected = read.with_embedding(rgb)
        alone = encoder(rgb)
    assert vector.shape == (2, 192)
    assert torch.equal(vector, expected)
    assert len(maps) == len(expected_maps) == len(alone) == 12
    for m, other, again in zip(maps, expected_maps, alone, strict=True):
        assert torch.equal(m, other)
        assert torch.equal(m, again)
    assert (encoder.channels, encoder.strides) == (read.channels, read.strides)


@pytest.mark.parametrize("module", [plain(), timm.create_model(RESNET)])
def test_other_modules_have_no_global_vector(module):
    encoder = ModuleEncoder(module, "mine").eval()
    _, vector = encoder.with_embedding(torch.rand(2, 3, 64, 64))
    assert vector is None
