"""What an optimizer's step descends, and what a description of it says."""

import pytest
import torch
from torch import nn

from bench.config.schema import Recipe
from bench.training.optimizer import description, make_optimizer, step_and_measure


def recipe(**changes):
    """A recipe of rate 0.1 and decay 0.5."""
    fields = {
        "views": 8,
        "batch": 4,
        "learning_rate": 0.1,
        "weight_decay": 0.5,
        "schedule": "cosine",
        "crop": 32,
        "crop_scale": (0.5, 1.0),
    }
    return Recipe(**(fields | changes))


def parameters():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    bias = nn.Parameter(torch.tensor([3.0]))
    weight.grad = torch.tensor([[0.5, 0.25]])
    bias.grad = torch.tensor([-2.0])
    return [weight, bias]


def test_a_step_of_sgd_by_hand():
    weights = parameters()
    optimizer = make_optimizer(weights, recipe(optimizer="sgd", betas=(0.0, 0.999)))
    # Decay adds 0.5 w to the gradient of the matrix: 1.0 and -0.75; the bias has none.
    by_hand = -0.1 * (0.5 * 1.0 + 0.25 * -0.75 + 2.0 * 2.0)
    assert step_and_measure(optimizer) == pytest.approx(by_hand, rel=1e-6)
    assert weights[1].item() == pytest.approx(3.2)


def test_the_first_step_of_adam_by_hand():
    weights = parameters()
    optimizer = make_optimizer(weights, recipe(optimizer="adam", weight_decay=0.0))
    # Each weight moves by the rate against the sign of its gradient.
    assert step_and_measure(optimizer) == pytest.approx(-0.1 * (0.5 + 0.25 + 2.0), rel=1e-6)


def test_weights_without_a_gradient_do_not_count():
    weights = parameters()
    weights[0].grad = None
    optimizer = make_optimizer(weights, recipe(optimizer="adam", weight_decay=0.0))
    assert step_and_measure(optimizer) == pytest.approx(-0.2, rel=1e-6)


def test_a_description_names_what_decides_an_update():
    adam = description(make_optimizer(parameters(), recipe(optimizer="adamw", betas=(0.5, 0.9))))
    assert adam == (
        "AdamW of 2 weights with betas (0.5, 0.9), eps 1e-08, weight_decay 0.5, amsgrad False, "
        "maximize False and 1 weights with betas (0.5, 0.9), eps 1e-08, weight_decay 0.0, "
        "amsgrad False, maximize False"
    )
    sgd = description(make_optimizer(parameters(), recipe(optimizer="sgd")))
    assert sgd.startswith("SGD of 2 weights with momentum 0.9, dampening 0, nesterov True")


def test_a_share_of_the_rate_and_a_weight_without_decay_by_hand():
    weight, bias = parameters()
    other = nn.Parameter(torch.tensor([[2.0]]))
    other.grad = torch.tensor([[1.0]])
    optimizer = make_optimizer(
        [other, weight, bias],
        recipe(optimizer="sgd", betas=(0.0, 0.999)),
        {other: 0.25},
        frozenset({other}),
    )
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group.get("rate_share", 1.0)
    optimizer.step()
    assert other.item() == pytest.approx(2.0 - 0.25 * 0.1 * 1.0)  # no decay
    assert weight[0].tolist() == pytest.approx([1.0 - 0.1 * 1.0, -2.0 + 0.1 * 0.75])
    assert bias.item() == pytest.approx(3.2)
    assert optimizer.param_groups[0]["params"] == [weight]  # whose rate is the whole one
    assert "rate_share 0.25" in description(optimizer)
