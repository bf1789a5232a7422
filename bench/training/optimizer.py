"""The optimizer and the learning-rate schedule of a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.config.schema import Recipe

RATE_SHARE = "rate_share"  # key of a group of parameters: the share of the learning rate it has
# What decides an update, besides the learning rate, in the words of torch.optim.
DESCRIBED = (
    *("betas", "momentum", "dampening", "nesterov", "eps", "weight_decay", "amsgrad", "maximize"),
    RATE_SHARE,
)
WARMUP_START = 1e-3  # share of the rate at the first step (detectron2, SOLVER.WARMUP_FACTOR)


def rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """The share of the learning rate at a step, 0-based, of `steps`."""
    warmup = recipe.warmup * steps
    if step < warmup:
        if recipe.schedule == "detectron2":
            return WARMUP_START + (1 - WARMUP_START) * step / warmup
        return (step + 1) / (warmup + 1)
    if recipe.schedule == "cosine":  # Loshchilov and Hutter 2017, without restarts
        progress = (step - warmup) / max(1.0, steps - warmup)
        return 0.5 * (1 + math.cos(progress * math.pi))
    return 0.1 ** sum(step >= milestone * steps for milestone in recipe.milestones)


def make_optimizer(
    parameters: list[nn.Parameter],
    recipe: Recipe,
    rates: Mapping[nn.Parameter, float] = MappingProxyType({}),
    undecayed: Set[nn.Parameter] = frozenset(),
    decayed: Set[nn.Parameter] = frozenset(),
) -> Optimizer:
    """The recipe's optimizer; biases and norms have no weight decay but for `decayed`.

    Its step is fused, which on a processor takes a third of the time.

    Args:
        parameters: to train.
        recipe: of the optimizer.
        rates: shares of the learning rate, in (0, 1], of parameters that have less than all of it.
        undecayed: more parameters without weight decay.
        decayed: biases with weight decay.
    """
    groups: list[dict[str, Any]] = []
    for share in sorted({rates.get(p, 1.0) for p in parameters}, reverse=True):
        own = [p for p in parameters if rates.get(p, 1.0) == share]
        weights = [p for p in own if p in decayed or (p.ndim > 1 and p not in undecayed)]
        others = [p for p in own if p not in decayed and (p.ndim <= 1 or p in undecayed)]
        shared = {RATE_SHARE: share} if share < 1 else {}
        groups.append({"params": weights, **shared})
        groups.append({"params": others, "weight_decay": 0.0, **shared})
    if recipe.optimizer in ("sgd", "momentum"):
        return torch.optim.SGD(
            groups,
            recipe.learning_rate,
            momentum=recipe.betas[0],
            weight_decay=recipe.weight_decay,
            nesterov=recipe.optimizer == "sgd" and recipe.betas[0] > 0,
            fused=True,
        )
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(
        groups,
        recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def step_and_measure(optimizer: Optimizer) -> float:
    """Take a step; the inner product of the gradient and the change of the weights.

    It is the change of the loss to first order, so a step that descends makes it negative.
    Weights whose gradient is rounding alone hardly count, unlike in the norm of a change. The
    gradient is that of before the step, whatever the optimizer makes of it.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    before = [weight.detach().clone() for weight in weights]
    gradients = [None if weight.grad is None else weight.grad.clone() for weight in weights]
    optimizer.step()
    with torch.no_grad():
        products = [
            weight.double().sub_(old).mul_(gradient).sum()
            for weight, old, gradient in zip(weights, before, gradients, strict=True)
            if gradient is not None
        ]
    return float(sum(products))


def first_weight(optimizer: Optimizer) -> Tensor:
    """The first parameter that an optimizer has."""
    weight: Tensor = next(p for group in optimizer.param_groups for p in group["params"])
    return weight


def description(optimizer: Optimizer) -> str:
    """Kind and settings of an optimizer, with the number of weights that each group has."""
    groups = []
    for group in optimizer.param_groups:
        values = [f"{name} {group[name]}" for name in DESCRIBED if name in group]
        count = sum(weight.numel() for weight in group["params"])
        groups.append(f"{count} weights with {', '.join(values)}")
    return f"{type(optimizer).__name__} of {' and '.join(groups)}"
