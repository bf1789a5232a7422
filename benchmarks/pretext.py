"""How much of a bare training loop's speed rotation pretraining keeps.

    python benchmarks/pretext.py

Both in one run, in turns, medians of five: rotation pretraining as `bench run` does it, from
JPEG files, with loading, augmentation, guard and checkpoints; and forward, backward and step of
the same network on resident tensors of the same shape. The first must reach 85 % of the second;
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
from bench.data.datasets import open_data
from bench.runtime.device import select_device
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.optimizer import make_optimizer

ROUNDS, LEAST = 5, 0.85
SETTINGS = ["scenes.corpus=1000", "scenes.train=1", "scenes.test=1", "recipes.rotation.images=6400"]


def main() -> int:
    """Measure, print, judge."""
    settings = loader.load("mini", SETTINGS)
    recipe = settings.recipe("rotation")
    quiet = Reporter()
    quiet.console.quiet = True
    device = select_device("auto")
    rotation = plugins.load("methods", "rotation")
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        data = open_data(settings, None, {"corpus"}, Path(name), quiet)
        for turn in range(ROUNDS):
            context = Context(settings, "rotation", turn, device, data, Path(name), quiet)
            done = rotation().pretrain(context).pretraining
            ours.append(done.views_seen / done.seconds)
            bare.append(bare_rate(rotation(), context, recipe.images))
    for name, rates in {"bare loop": bare, "rotation pretraining": ours}.items():
        print(f"{name:22} {statistics.median(rates):7.0f} img/s")
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    print(f"rotation pretraining / bare loop: {ratio:.2f} (at least {LEAST})")
    return int(ratio < LEAST)


def bare_rate(pretext, context, images: int) -> float:
    """ImageFiles a second of forward, backward and step on one resident batch."""
    pretext.build(context)
    pretext.to(context.device, memory_format=torch.channels_last).train()
    recipe = context.recipe
    optimizer = make_optimizer(list(pretext.parameters()), recipe)
    shape = (recipe.batch, 3, recipe.crop, recipe.crop)
    rgb = torch.rand(shape, device=context.device).to(memory_format=torch.channels_last)
    labels = torch.arange(recipe.batch, device=context.device) % 4
    started = time.perf_counter()
    for _ in range(images // recipe.batch):
        logits = pretext.head(pretext.encoder(rgb)[-1])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    loss.item()
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
