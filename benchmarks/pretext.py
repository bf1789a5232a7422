"""How much of a bare training loop's speed rotation pretraining keeps.

    python benchmarks/pretext.py

Both in one run, in turn, medians of five: rotation pretraining as `bench run` does it, from
JPEG files, with loading, augmentation, guard and checkpoints; and forward, backward and step of
the same network on resident tensors of the same shape. The first must reach 85% of the second;
exit status 1 if it does not.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench import plugins
from bench.config import loader
from bench.data.datasets import open_datasets
from bench.runtime.device import select_device
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.optimizer import make_optimizer

ROUNDS, LEAST = 5, 0.85
SETTINGS = [
    "synthetic.pretraining=1000",
    "synthetic.validation=10",
    "synthetic.train=1",
    "synthetic.test=1",
    "recipes.rotation.views=6400",
]


def main() -> int:
    """Measure and print; 1 if the claim fails."""
    settings = loader.load("mini", SETTINGS)
    quiet = Reporter()
    quiet.console.quiet = True
    device = select_device("auto")
    rotation = plugins.load("methods", "rotation")
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        datasets = open_datasets(settings, {"pretraining"}, None, cache, quiet)
        for number in range(ROUNDS):
            context = Context(settings, "rotation", number, device, datasets, cache, quiet)
            pretraining = rotation().pretrain(context).pretraining
            ours.append(pretraining.views_seen / pretraining.seconds)
            bare.append(bare_rate(rotation(), context))
    for name, rates in {"bare loop": bare, "rotation pretraining": ours}.items():
        print(f"{name:22} {statistics.median(rates):7.0f} img/s")
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    print(f"rotation pretraining / bare loop: {ratio:.2f} (at least {LEAST})")
    return int(ratio < LEAST)


def bare_rate(pretext, context) -> float:
    """Images a second of forward, backward and step on one resident batch."""
    pretext.build(context)
    pretext.to(context.device, memory_format=torch.channels_last).train()
    recipe = context.recipe
    optimizer = make_optimizer(list(pretext.parameters()), recipe)
    shape = (recipe.batch, 3, recipe.crop, recipe.crop)
    rgb = torch.rand(shape, device=context.device).to(memory_format=torch.channels_last)
    labels = torch.arange(recipe.batch, device=context.device) % 4
    started = time.perf_counter()
    for _ in range(recipe.views // recipe.batch):
        logits = pretext.head(pretext.encoder(rgb)[-1])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()
    return recipe.views / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
