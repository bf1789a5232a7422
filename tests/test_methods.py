"""The contract of a method, over every file in methods/."""

import inspect

import pytest
import torch

from bench import plugins
from bench.corpus import Stream
from bench.encoder import Encoder
from bench.method import obtain
from bench.pretext import Pretext

METHODS = plugins.names("methods")
PRETEXTS = [name for name in METHODS if issubclass(plugins.load("methods", name), Pretext)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name):
    found = plugins.describe("methods", name)
    assert found.summary
    assert "http" in found.constants["reference"]
    assert len(plugins.source("methods", name).read_text().splitlines()) <= 100


@pytest.mark.parametrize("name", METHODS)
def test_the_encoder_fits_every_task(name, context):
    encoder = obtain(context(name))
    assert isinstance(encoder, Encoder)
    assert not encoder.training
    for height, width in ((64, 64), (33, 47)):
        maps = encoder(torch.rand(1, 3, height, width))
        assert len(maps) == len(encoder.channels) == len(encoder.strides)
        for stage, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
            assert stage.shape == (1, channels, -(-height // stride), -(-width // stride))
            assert stage.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_weights(name, context, tmp_path):
    first = obtain(context(name, where=tmp_path / "a"))
    second = obtain(context(name, where=tmp_path / "b"))
    assert first.weights_sha256() == second.weights_sha256()
    if name != "imagenet":
        other = obtain(context(name, seed=1, where=tmp_path / "a"))
        assert other.weights_sha256() != first.weights_sha256()


def built(name, context):
    torch.manual_seed(0)
    pretext = plugins.load("methods", name)()
    pretext.build(context(name))
    return pretext


def batch_of(pretext, context, name, images=4):
    made = context(name)
    stream = Stream(made.corpus, 0, pretext.example, images)
    return torch.utils.data.default_collate([stream[i] for i in range(images)])


@pytest.mark.parametrize("name", PRETEXTS)
def test_gradients_reach_every_stage_of_the_encoder(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    for player in pretext.players():
        pretext.loss(batch, player).backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in pretext.encoder.parameters()]
    assert sum(reached) > 0.9 * len(reached)
    assert reached[0]


@pytest.mark.parametrize("name", PRETEXTS)
def test_the_loss_is_finite_in_bfloat16(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [pretext.loss(batch, player) for player in pretext.players()]
    assert all(loss.isfinite() for loss in losses)


@pytest.mark.parametrize("name", sorted({*PRETEXTS} - {"supervised"}))
def test_a_self_supervised_method_never_sees_a_label(name, context):
    pretext = built(name, context)
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    made = []
    for label in (0, 1):
        torch.manual_seed(0)
        made.append(pretext.example(image, label))
    same = torch.utils.data.default_collate(made)
    for part in same if isinstance(same, list | tuple) else [same]:
        assert torch.equal(part[0], part[1])


@pytest.mark.parametrize("name", PRETEXTS)
@pytest.mark.parametrize("shape", [(3, 20, 90), (3, 31, 17)])
def test_odd_picture_sizes_and_gray_pictures(name, shape, context):
    pretext = built(name, context)
    gray = torch.randint(0, 256, shape[1:], dtype=torch.uint8).expand(shape)
    batch = torch.utils.data.default_collate([pretext.example(gray, 0)] * 4)
    for player in pretext.players():
        assert pretext.loss(batch, player).isfinite()


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_pretext_task_inherits_the_only_training_loop(name):
    plugin = plugins.load("methods", name)
    assert plugin.pretrain is Pretext.pretrain
    assert "optim" not in inspect.getsource(plugin)


def test_rotation_turns_every_picture_by_every_right_angle(context):
    pretext = built("rotation", context)
    seen = []
    pretext.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    crops = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    pretext.loss(crops, "encoder")
    turned = (seen[0] * 255).round().byte()
    assert torch.equal(turned[:2], crops)
    # A quarter turn, pixel by pixel: what stood at (row, column) goes to (7 - column, row).
    for row, column in ((0, 0), (2, 5)):
        assert torch.equal(turned[2, :, 7 - column, row], crops[0, :, row, column])
        assert torch.equal(turned[4, :, 7 - row, 7 - column], crops[0, :, row, column])
        assert torch.equal(turned[6, :, column, 7 - row], crops[0, :, row, column])
