import re

import pytest
import timm
import torch
from torch import nn

from bench import specs
from bench.encoders.backbone import make_backbone, outline, timm_names
from bench.encoders.encoder import Encoder, encoder_of, load_encoder, side_mask
from bench.encoders.transformer import size_options
from bench.encoders.weights import from_file
from bench.errors import UserError

BACKBONES = ["tf_efficientnet_lite0", "efficientnet_b0", "resnet18", "resnet50"]


def expected_parameters(body, channels, share):
    """Of the narrow network, counted from the layers of the whole one."""
    total, stem = 0, True
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            out, taken = module.out_channels // share, module.in_channels // share
            if stem:
                taken, stem = channels, False
            each = 1 if module.groups == module.in_channels > 1 else taken
            total += out * each * module.weight[0, 0].numel() + (module.bias is not None) * out
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * (module.num_features // share)
    return total


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("channels", "share"), [(3, 1), (1, 1), (1, 2), (2, 2)])
def test_width_and_input_are_what_was_asked_for(name, channels, share):
    whole, body = make_backbone(name), make_backbone(name, channels, share).eval()
    count = sum(p.numel() for p in body.parameters())
    assert count == expected_parameters(whole, channels, share)
    maps = body(torch.rand(1, channels, 40, 40))
    asked = [width // share for width in whole.feature_info.channels()]
    assert [m.shape[1] for m in maps] == asked == list(body.feature_info.channels())
    assert all(m.isfinite().all() for m in maps)


def test_a_narrow_network_is_drawn_with_the_variance_of_its_own_fan_out():
    torch.manual_seed(0)
    conv = make_backbone("resnet18", 3, 2).layer4[0].conv2
    assert conv.weight.shape == (256, 256, 3, 3)
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_a_network_of_other_layers_cannot_be_narrowed():
    with pytest.raises(UserError, match=r"convnext_atto' has no 1/2 width: it has a \w+"):
        make_backbone("convnext_atto", 3, 2)


@pytest.mark.parametrize(
    "inputs", [("L",), ("ab",), ("L", "ab"), ("above_diagonal", "below_diagonal")]
)
def test_every_input_gives_the_channels_of_the_whole_backbone(inputs, tmp_path):
    encoder = Encoder("tf_efficientnet_lite0", inputs).eval()
    whole = Encoder("tf_efficientnet_lite0")
    maps = encoder(torch.rand(2, 3, 33, 47))
    assert tuple(m.shape[1] for m in maps) == encoder.channels == whole.channels
    encoder.save(tmp_path / "e.safetensors")
    again = load_encoder(tmp_path / "e.safetensors", "tf_efficientnet_lite0")
    assert again.inputs == inputs and again.weights_sha256() == encoder.weights_sha256()


def test_the_diagonal_parts_the_image():
    sides = ("above_diagonal", "below_diagonal")
    above, below = (side_mask(side, torch.zeros(3, 4, 6)) for side in sides)
    assert not (above * below).any()
    assert above[0, 5] == below[3, 0] == 1
    assert torch.equal(above, below.flip(0, 1))
    assert above.sum() == below.sum() == 12  # 24 pixels, none of them centered on the diagonal
    assert side_mask("above_diagonal", torch.zeros(3, 3)).sum() == 3  # of 9: three are on it


@pytest.mark.parametrize(
    "name",
    ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "vgg11", "vit_tiny_patch16_224"],
)
def test_weights_by_timms_names_make_the_same_encoder(name):
    """The maps of a plain timm model with the same weights."""
    torch.manual_seed(0)
    plain = timm.create_model(name).eval()
    encoder = encoder_of(name, plain.state_dict(), "made up").eval()
    rgb = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        (*_, expected) = plain.forward_intermediates(
            (rgb - encoder.mean) / encoder.std, intermediates_only=True
        )
        torch.testing.assert_close(encoder(rgb)[-1], expected, rtol=1e-4, atol=1e-3)
    lacking = dict(list(plain.state_dict().items())[7:])
    message = rf"made up: 7 of \d+ weights are missing: {next(iter(plain.state_dict()))}, "
    with pytest.raises(UserError, match=message):
        encoder_of(name, lacking, "made up")


def feature_network(name):
    """timm's feature network of a model on the device meta; None if timm has none."""
    try:
        return outline(name, features_only=True, **size_options(name))
    except (RuntimeError, AttributeError):
        return None


def check_names(module):
    """Compare the names of the first feature network of a timm module with the whole model's."""
    archs = timm.list_models(module=module)
    networks = ((arch, feature_network(arch)) for arch in archs)
    arch, network = next((pair for pair in networks if pair[1] is not None), (None, None))
    if network is None:
        pytest.skip("timm has no feature network of it")
    whole = outline(arch).state_dict()
    names = timm_names(arch, network)
    assert [*names] == [*network.state_dict()]
    assert len({*names.values()}) == len(names)
    for own, tensor in network.state_dict().items():
        assert whole[names[own]].shape == tensor.shape
        lifted = re.sub(r"^(\w+)_(\d+)", r"\1.\2", own, count=1)
        assert own not in whole or names[own] == own
        assert own in whole or lifted not in whole or names[own] == lifted


FAST = [
    "beit",
    "byobnet",
    "convnext",
    "cspnet",
    "densenet",
    "dla",
    "efficientnet",
    "ghostnet",
    "hiera",
    "levit",
    "mlp_mixer",
    "mobilenetv3",
    "nfnet",
    "pit",
    "regnet",
    "repvit",
    "resnet",
    "resnetv2",
    "rexnet",
    "swin_transformer",
    "tresnet",
    "twins",
    "vgg",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "vovnet",
    "xception",
    "xception_aligned",
]


@pytest.mark.parametrize("module", FAST)
def test_every_name_of_a_feature_network_is_one_of_the_whole_model(module):
    check_names(module)


@pytest.mark.slow
@pytest.mark.parametrize("module", timm.list_modules())
def test_every_name_of_every_feature_network_is_one_of_the_whole_model(module):
    check_names(module)


def test_names_that_no_model_has_are_refused_in_one_line():
    network = make_backbone("resnet18")
    network.more = nn.Linear(2, 2)
    message = "timm's feature network of resnet18 has names of its own, as more.weight"
    with pytest.raises(UserError, match=f"^{message}$"):
        timm_names("resnet18", network)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("densenet121", 64),
        ("resnetv2_18", 64),
        ("xcit_nano_12_p16_224", 64),
        ("gmixer_12_224", 224),
        ("cs3darknet_focus_s", 64),
        pytest.param("beit_base_patch16_224", 224, marks=pytest.mark.slow),
    ],
)
def test_a_file_of_any_family_is_read_whole(name, side, tmp_path):
    torch.manual_seed(0)
    plain = timm.create_model(name).eval()
    path = tmp_path / "weights.pth"
    torch.save(plain.state_dict(), path)
    encoder = from_file(specs.parse(f"file:{path}?arch={name}"), path).eval()
    assert encoder.backbone == name
    rgb = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        (*_, expected) = plain.forward_intermediates(
            (rgb - encoder.mean) / encoder.std, intermediates_only=True
        )
        torch.testing.assert_close(encoder(rgb)[-1], expected, rtol=1e-4, atol=1e-3)
