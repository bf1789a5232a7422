"""Plain transformers as encoders: blocks are stages, at any size, with their own global vector."""

import pytest
import timm
import torch

from bench.encoders.encoder import Encoder
from bench.encoders.promises import check_promises
from bench.encoders.surgery import dilate_last_stage, split_last_stage
from bench.encoders.transformer import embeddings, is_transformer, layer_rates, transformer_of
from bench.errors import UserError
from bench.evaluation.features import pool_features

VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(VIT).eval()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (VIT, True),
        ("vit_small_patch14_reg4_dinov2", True),
        ("vit_small_patch16_dinov3", True),
        ("deit_tiny_distilled_patch16_224", True),
        ("swin_tiny_patch4_window7_224", False),
        ("resnet18", False),
        ("no_model", False),
    ],
)
def test_what_a_plain_transformer_is(name, expected):
    assert is_transformer(name) == expected


def test_every_block_is_a_stage_of_one_stride(encoder):
    assert encoder.channels == (192,) * 12
    assert encoder.strides == (16,) * 12
    assert encoder.is_isotropic
    check_promises(encoder, VIT)


@pytest.mark.parametrize("size", [(224, 224), (64, 96), (70, 33)])
def test_maps_and_vector_are_those_of_timm(encoder, size):
    plain = timm.create_model(VIT, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True)
    plain.load_state_dict(encoder.branches[0].model.state_dict())
    plain.eval()
    rgb = torch.rand(2, 3, *size)
    normalized = (rgb - encoder.mean) / encoder.std
    with torch.inference_mode():
        maps, vector = encoder.with_embedding(rgb)
        tokens = plain.patch_embed(normalized)
        tokens = plain.norm_pre(plain._pos_embed(tokens))
        height, width = (-(-side // 16) for side in size)
        for block, found in zip(plain.blocks, maps, strict=True):
            tokens = block(tokens)
            expected = tokens[:, 1:].transpose(1, 2).reshape(2, 192, height, width)
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(vector, plain.norm(tokens)[:, 0])
        torch.testing.assert_close(vector, plain(normalized))


def test_the_global_vector_is_a_candidate_of_the_probe(encoder):
    rgb = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    pooled = pool_features(encoder, rgb, 192)
    assert [tuple(x.shape) for x in pooled] == [(2, 192)] * 13
    _, vector = encoder.with_embedding(rgb / 255)
    torch.testing.assert_close(pooled[-1], vector)
    assert len(pool_features(Encoder("resnet18").eval(), rgb, 512)) == 5


def test_nothing_is_dilated_and_no_stage_can_be_moved(encoder):
    assert dilate_last_stage(Encoder(VIT)).strides == (16,) * 12
    with pytest.raises(UserError, match='set protocol = "fpn"'):
        split_last_stage(encoder)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto"])
def test_stages_that_timm_lifts_to_one_level_can_be_separated(name):
    encoder = Encoder(name).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        whole = encoder(images)
        trunk, stage = split_last_stage(encoder)
        maps = trunk(images)
        assert [m.shape for m in maps] == [m.shape for m in whole[:-1]]
        if name == "convnext_atto":  # a stage of Swin takes maps in another order
            torch.testing.assert_close(stage(maps[-1]), whole[-1])


def test_swin_keeps_its_stride_where_nothing_can_be_dilated():
    encoder = dilate_last_stage(Encoder("swin_tiny_patch4_window7_224").eval())
    assert encoder.strides == (4, 8, 16, 32)
    assert encoder(torch.rand(1, 3, 64, 64))[-1].shape == (1, 768, 2, 2)
    assert dilate_last_stage(Encoder("convnext_atto")).strides == (4, 8, 16, 16)


@pytest.mark.parametrize(
    ("name", "depth", "decay"),
    [
        (VIT, 12, 0.7),
        ("eva02_tiny_patch14_224", 12, 0.7),
        ("vit_large_patch32_224", 24, 0.8),
        ("vit_so400m_patch14_siglip_224", 27, 0.9),
    ],
)
def test_rates_fall_by_block_towards_the_input(name, depth, decay):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    rates = layer_rates(model)
    expected = {
        "patch_embed.proj.weight": decay ** (depth + 1),
        "pos_embed": decay ** (depth + 1),
        "blocks.0.attn.proj.weight": decay**depth,
        f"blocks.{depth - 1}.mlp.fc2.bias": decay,
    }
    named = dict(model.named_parameters())
    assert {key: rates[named[key]] for key in expected} == pytest.approx(expected)
    norms = [weight for key, weight in named.items() if key.startswith(("norm.", "fc_norm."))]
    assert {rates[weight] for weight in norms} <= {1.0}


def test_positions_and_tokens_are_the_embeddings(encoder):
    model = encoder.branches[0].model
    assert embeddings(model) == {model.pos_embed, model.cls_token}


def test_the_transformer_of_an_encoder(encoder):
    assert transformer_of(encoder) is encoder.branches[0].model
    assert transformer_of(Encoder("resnet18")) is None
