"""An encoder's promises are checked; checking changes nothing."""

import time

import pytest
import timm
import torch
from torch import nn

from bench.encoders.encoder import Encoder
from bench.encoders.module_encoder import ModuleEncoder
from bench.encoders.promises import check_promises, check_trainable
from bench.errors import UserError

LITE = "tf_efficientnet_lite0"


class Broken(nn.Module):
    """A convolution whose maps are changed by a function."""

    def __init__(self, change):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=4, padding=1)
        self.change = change

    def forward(self, rgb):
        return self.change(self.stem(rgb))


def noisy(m):
    return m + torch.rand_like(m)


def centered(m):
    return m - m.mean(0)


def channels_last(m):
    return m.permute(0, 2, 3, 1)


def infinite(m):
    return m / 0


def two_alone(m):
    return m if len(m) > 1 else torch.cat([m, m])


def not_alone(m):
    if len(m) == 1:
        raise KeyError("one\nimage")
    return m


def ends(m):
    raise SystemExit("bye")


class Counter:
    """Maps that grow from call to call, without random draws."""

    def __init__(self):
        self.calls = 0

    def __call__(self, m):
        self.calls += 1
        return m * self.calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.long(), r"stage 0 of its encoder is torch\.int64, torch\.strided; return"),
        (lambda m: m.to_sparse(), r"stage 0 of its encoder is torch\.float32, torch\.sparse"),
        (channels_last, r"stage 0 of its encoder is \(2, 32, 32, 24\) .* must be permuted"),
        (noisy, "gives other maps when it is called again"),
        (Counter(), "gives other maps when it is called again"),
        (centered, "maps of an image depend on the rest of the batch"),
        (infinite, "stage 0 of its encoder has values that are not finite"),
        (lambda m: m[: len(m) // 2 * 2], r"is \(0, 24, 32, 32\) for 1 image of 128 x 128"),
        (lambda m: m[:, :0], r"is \(2, 0, 32, 32\) for 2 images of 128 x 128: it has no values"),
        (lambda m: m.to("meta"), "is on the device meta for 2 images of 128 x 128"),
        (lambda m: m.to(torch.complex64), r"stage 0 of its encoder is torch\.complex64"),
        (two_alone, r"stage 0 of its encoder is \(2, 24, 32, 32\) for 1 image of 128 x 128"),
        (not_alone, r"which must take any number of images, fails on 1 image .*: KeyError: 'one"),
        (ends, "its encoder fails on 2 images of 128 x 128: SystemExit: bye"),
        (lambda m: m * 0, "its encoder gives the same maps for different images"),
        (lambda m: [], "its encoder returns no maps"),
        (lambda m: None, "the model returns NoneType; return a map"),
        (lambda m: {"map": m}, "the model returns dict; return a map"),
    ],
    ids=[
        *("int64", "sparse", "NHWC", "noise", "state", "batch", "infinite"),
        *("odd batch", "no channels", "meta", "complex", "two alone", "not alone", "end"),
        *("constant", "no maps", "none", "dict"),
    ],
)
def test_a_module_that_breaks_a_promise_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        ModuleEncoder(Broken(change), "broken")


def test_hard_decisions_that_tell_colors_apart_are_not_refused():
    def brightest(m):
        return nn.functional.one_hot(m.mean((2, 3)).argmax(1), 24).float()

    ModuleEncoder(Broken(brightest), "decisions")


def test_a_map_as_deep_as_wide_is_refused_in_the_wrong_order():
    module = Broken(channels_last)
    module.stem = nn.Conv2d(3, 32, 3, stride=4, padding=1)
    with pytest.raises(UserError, match="must be permuted"):
        ModuleEncoder(module, "broken")


@pytest.mark.parametrize("attribute", ["channels", "strides"])
def test_an_encoder_that_declares_other_sizes_is_refused(attribute):
    encoder = Encoder(LITE)
    sizes = getattr(encoder, attribute)
    setattr(encoder, attribute, (*sizes[:-1], 2 * sizes[-1]))
    with pytest.raises(UserError, match="own: stage 4 of its encoder is"):
        check_promises(encoder, "own")
    setattr(encoder, attribute, sizes[:-1])
    with pytest.raises(UserError, match="own: its encoder returns 5 maps, but declares"):
        check_promises(encoder, "own")


def test_what_is_no_encoder_is_refused():
    with pytest.raises(UserError, match="own: its encoder is a Linear, not an Encoder"):
        check_promises(nn.Linear(2, 2), "own")


@pytest.mark.parametrize("inputs", [("rgb",), ("L", "ab"), ("above_diagonal", "below_diagonal")])
def test_our_encoders_keep_their_promises_and_stay_as_they_are(inputs):
    torch.manual_seed(0)
    encoder = Encoder(LITE, inputs).train()
    encoder.branches[0].eval()
    modes = [module.training for module in encoder.modules()]
    weights = encoder.weights_sha256()
    state = torch.get_rng_state()
    check_promises(encoder, "ours")
    assert torch.equal(torch.get_rng_state(), state)
    assert encoder.weights_sha256() == weights
    assert [module.training for module in encoder.modules()] == modes


def test_networks_that_lose_positions_at_the_edge_are_not_refused():
    layers = [nn.Conv2d(3, 8, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 5, padding=2)]
    encoder = ModuleEncoder(nn.Sequential(*layers, nn.MaxPool2d(3, 2)).eval(), "alexnet")
    assert encoder.channels == (8,)
    pooled = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert ModuleEncoder(pooled, "vectors").channels == (8,)


def test_a_timm_network_of_the_other_order_is_permuted():
    torch.manual_seed(0)
    settings = {"strict_img_size": False, "window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1)}
    name = "swin_tiny_patch4_window7_224"
    swin = timm.create_model(name, features_only=True, **settings).eval()
    encoder = ModuleEncoder(swin, "swin")
    assert encoder.channels == (24, 48, 96, 192)
    assert encoder.strides == (4, 8, 16, 32)
    rgb = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        for stage, m in zip(encoder(rgb), swin(rgb), strict=True):
            assert torch.equal(stage, m.permute(0, 3, 1, 2))


def test_a_timm_backbone_of_one_size_and_the_other_order_is_permuted():
    encoder = Encoder("swin_tiny_patch4_window7_224")
    check_promises(encoder, "swin")
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 224, 224))
    assert tuple(m.shape[1] for m in maps) == encoder.channels == (96, 192, 384, 768)


def test_checking_takes_little_time():
    encoder = Encoder(LITE)
    check_promises(encoder, "ours")
    started = time.process_time()
    check_promises(encoder, "ours")
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "module",
    [
        Broken(lambda m: m.detach()),
        nn.AvgPool2d(4),
    ],
)
def test_maps_without_a_gradient_cannot_be_fine_tuned(module):
    encoder = ModuleEncoder(module, "own")
    with pytest.raises(UserError, match="own: its maps carry no gradient"):
        check_trainable(encoder, "own")


def test_maps_of_weights_that_were_frozen_can_be_fine_tuned():
    encoder = Encoder(LITE).requires_grad_(False)
    check_trainable(encoder, "own")
    assert not any(p.requires_grad for p in encoder.parameters())
