import importlib
import math

import pytest
import torch

from bench import plugins
from bench.gan import ImagePool, diversity, judged


def test_bigans_losses_on_logits_by_hand():
    module = importlib.import_module("bench.methods.bigan")
    encoded, generated = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [1.0]])
    # The discriminator: encoded pairs are real, generated ones are not.
    real = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    fake = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert module.joint_loss(encoded, generated, flipped=False).item() == pytest.approx(
        (real + fake) / 2
    )
    # Encoder and generator: the labels exchanged, on both halves.
    real = (math.log1p(math.exp(2)) + math.log(2)) / 2
    fake = (math.log1p(math.exp(1)) + math.log1p(math.exp(-1))) / 2
    assert module.joint_loss(encoded, generated, flipped=True).item() == pytest.approx(
        (real + fake) / 2
    )
    assert judged(torch.zeros(3), True).item() == pytest.approx(math.log(2))


def test_the_pool_fills_then_returns_half_old_pictures():
    torch.manual_seed(0)
    pool = ImagePool((1,), capacity=50)
    first = torch.arange(50.0)[:, None]
    assert torch.equal(pool(first), first) and torch.equal(pool.kept, first)
    new = torch.arange(1000.0, 5000.0)[:, None]
    shown = torch.cat([pool(part) for part in new.split(10)])
    exchanged = (shown != new).float().mean().item()
    assert exchanged == pytest.approx(0.5, abs=0.03)
    assert len(shown.unique()) == len(shown)  # an exchanged picture leaves the pool
    # A picture stays for 100 showings on average: each is exchanged with chance 1 / (2 x 50).
    returned = ((shown != new) & (shown >= 1000))[:, 0]
    ages = (new - shown)[returned]
    assert ages.mean().item() == pytest.approx(100, rel=0.15)
    again = ImagePool((1,), capacity=50)
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again.kept, pool.kept) and again.count == 50


def test_a_collapsed_generator_shows():
    real = torch.rand(8, 3, 4, 4)
    assert diversity(real, real).item() == pytest.approx(1)
    assert diversity(real[:1].expand(8, -1, -1, -1), real).item() == pytest.approx(0, abs=1e-6)


def test_bigan_refuses_a_crop_that_it_cannot_generate(context, smoke):
    recipe = smoke.recipe("bigan").model_copy(update={"crop": 40})
    pretext = plugins.load("methods", "bigan")()
    made = context("bigan", at=smoke.model_copy(update={"recipes": {"bigan": recipe}}))
    with pytest.raises(Exception, match="not crop = 40"):
        pretext.build(made)
