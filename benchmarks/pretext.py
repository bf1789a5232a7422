"""How much of a bare training loop's speed rotation pretraining keeps.

    python benchmarks/pretext.py

Ours is rotation pretraining of `mini` as `bench run` does it, from JPEG files, with loading,
augmentation, guard, trace and checkpoints. After each of its steps two bare loops take one, too:
one loads the same files by torch's own loader, one has a batch in memory. Medians of three runs.
Claims: ours keeps 0.95 of the speed of the first, and 0.9 of that of the second; exit status 1 if
it does not.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F
from turns import bare_steps, loaded, report, seconds_a_step, select

from bench import plugins
from bench.config import loader
from bench.data.datasets import open_datasets
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.trainer import Trainer, TrainingJob

ROUNDS = 3
FILES, MEMORY = "bare loop, same files", "bare loop, in memory"
CLAIMS = {FILES: 0.95, MEMORY: 0.9}
SCENES = [
    "synthetic.pretraining=1000",
    "synthetic.validation=10",
    "synthetic.train=1",
    "synthetic.test=1",
]


def main() -> int:
    """Measure and print; 1 if a claim fails."""
    settings = loader.load("mini", SCENES)
    device = select()
    quiet = Reporter()
    quiet.console.quiet = True
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        datasets = open_datasets(settings, {"pretraining"}, None, cache, quiet)
        rounds = [
            measure(Context(settings, "rotation", seed, device, datasets, cache, quiet))
            for seed in range(ROUNDS)
        ]
    return report(rounds, CLAIMS)


def measure(context: Context) -> dict[str, float]:
    """Seconds a step of ours and of both bare loops."""
    rotation = plugins.load("methods", "rotation")
    ours, with_files, in_memory = networks = [rotation() for _ in range(3)]
    for network in networks:
        network.build(context)
    recipe = ours.recipe
    job = TrainingJob(
        name="benchmark",
        recipe=recipe,
        images=context.images.images,
        labels=context.images.labels,
        seed=context.seed,
        device=context.device,
        checkpoint=context.cache / f"{context.seed}.pt",
        key=str(context.seed),
        remedy="",
    )
    trainer = Trainer(ours, job)
    shape = (recipe.batch, 3, recipe.crop, recipe.crop)
    rgb = torch.rand(shape, device=context.device).to(memory_format=torch.channels_last)
    labels = torch.arange(recipe.batch, device=context.device) % 4

    def plain_loss(_: object) -> torch.Tensor:
        return F.cross_entropy(in_memory.head(in_memory.encoder(rgb)[-1]), labels)

    batches = loaded(with_files, trainer)
    loops = {
        FILES: bare_steps(with_files, trainer, batches, with_files.loss),
        MEMORY: bare_steps(in_memory, trainer, lambda: None, plain_loss),
    }
    return seconds_a_step(trainer, loops)


if __name__ == "__main__":
    sys.exit(main())
