"""The contract of a method, over every file in methods/."""

import inspect

import pytest
import torch
from support import BUDGETS, batch_of, built

from bench import plugins
from bench.encoders.encoder import Encoder
from bench.training.method import load_or_pretrain
from bench.training.pretext import PretextTask

METHODS = plugins.names("methods")
PRETEXTS = [name for name in METHODS if issubclass(plugins.load("methods", name), PretextTask)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name):
    found = plugins.describe("methods", name)
    assert found.summary
    assert "http" in found.constants["reference"]
    assert found.constants["version"] >= 1
    assert len(plugins.source("methods", name).read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", METHODS)
def test_the_encoder_fits_every_task(name, context):
    encoder = load_or_pretrain(context(name))
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
    first = load_or_pretrain(context(name, where=tmp_path / "a"))
    second = load_or_pretrain(context(name, where=tmp_path / "b"))
    assert first.weights_sha256() == second.weights_sha256()
    if name != "imagenet":
        other = load_or_pretrain(context(name, seed=1, where=tmp_path / "a"))
        assert other.weights_sha256() != first.weights_sha256()


@pytest.mark.parametrize("name", PRETEXTS)
def test_gradients_reach_every_stage_of_the_encoder(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    for objective in pretext.objectives().values():
        objective.loss(batch).backward()
    for branch in pretext.encoder.branches:
        reached = [p.grad is not None and bool(p.grad.any()) for p in branch.parameters()]
        assert sum(reached) > 0.9 * len(reached)
        assert reached[0] and any(reached[-3:]), "the last layer's weight or norm"


@pytest.mark.parametrize("name", PRETEXTS)
def test_the_budget_counts_what_the_encoder_sees(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    seen = []
    pretext.encoder.branches[0].register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    for objective in pretext.objectives().values():
        objective.loss(batch)
    assert sum(seen) == 4 * pretext.views_per_image


@pytest.mark.parametrize("name", PRETEXTS)
def test_losses_are_finite_under_mixed_precision_and_gradients_in_bfloat16(name, context):
    """Gradients in float16 need the loss scaled, which the training loop leaves to accelerate."""
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    for objective in pretext.objectives().values():
        with torch.autocast("cpu", torch.float16):
            assert objective.loss(batch).isfinite()
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective.loss(batch)
        assert loss.isfinite()
        loss.backward()
    gradients = [p.grad for p in pretext.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_batch_of_one_image(name, context):
    """At 64 pixels: a batch norm cannot train on a single value, whatever the task."""
    recipe = context(name).recipe.model_copy(update={"crop": 144 if name in BUDGETS else 64})
    made = context(name)
    suite = made.suite.model_copy(update={"recipes": {name: recipe}})
    pretext = built(name, context, at=suite)
    batch = batch_of(pretext, context, name, images=1)
    for objective in pretext.objectives().values():
        assert objective.loss(batch).isfinite()


@pytest.mark.parametrize("name", sorted({*PRETEXTS} - {"supervised"}))
def test_a_self_supervised_method_never_sees_a_label(name, context):
    pretext = built(name, context)
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    examples = []
    for label in (0, 1):
        torch.manual_seed(0)
        examples.append(pretext.transform(image, label))
    both = torch.utils.data.default_collate(examples)
    for part in both if isinstance(both, list | tuple) else [both]:
        assert torch.equal(part[0], part[1])


@pytest.mark.parametrize("name", PRETEXTS)
@pytest.mark.parametrize("shape", [(3, 20, 90), (3, 31, 17)])
def test_odd_image_sizes_and_gray_images(name, shape, context):
    pretext = built(name, context)
    gray = torch.randint(0, 256, shape[1:], dtype=torch.uint8).expand(shape)
    batch = torch.utils.data.default_collate([pretext.transform(gray, 0)] * 4)
    for objective in pretext.objectives().values():
        assert objective.loss(batch).isfinite()


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_pretext_task_inherits_the_only_training_loop(name):
    plugin = plugins.load("methods", name)
    assert plugin.pretrain is PretextTask.pretrain
    assert "optim" not in inspect.getsource(plugin)


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_visualization_is_images(name, context):
    pretext = built(name, context).eval()
    with torch.no_grad():
        rows = pretext.visualize(batch_of(pretext, context, name))
    if rows is not None:
        assert rows.ndim == 5 and rows.shape[1:3] == (4, 3)
        assert rows.min() >= 0 and rows.max() <= 1
