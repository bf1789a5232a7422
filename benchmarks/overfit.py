"""Whether each pretext task can learn 64 images by heart; one that cannot needs a look.

    python benchmarks/overfit.py [METHOD ...]

Every method is trained on 64 rendered scenes, seen whole, for 400 steps. Printed is its
measure after the first step and over the last tenth: the error of what it generates, or else its
loss. Exit status 1 if that has not fallen to three quarters at most. BiGAN has no such measure, so
the error of its images is taken, G(E(x)) against x.
"""

import sys
import tempfile
from pathlib import Path

from bench import plugins
from bench.commands.plan import needed_backbone
from bench.config import loader
from bench.config.settings import recipe as recipe_of
from bench.data.datasets import open_datasets
from bench.encoders.pretraining import Pretraining
from bench.runtime.device import seed_everything, select_device
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.pretext import PretextTask

IMAGES, STEPS, MOST = 64, 400, 0.75
PADDING = 2  # pixels between the images of a grid
SCENES = [
    f"synthetic.pretraining={IMAGES}",
    "synthetic.validation=10",
    "synthetic.train=1",
    "synthetic.test=1",
]


def main() -> int:
    """Train and print; 1 if a task learns too little."""
    mini = loader.load("mini")
    methods = [name for name in plugins.names("methods") if not needed_backbone(name, mini)]
    classes = {name: plugins.load("methods", name) for name in methods}
    every = [  # but for those whose answers are others in each pass
        name
        for name, cls in classes.items()
        if issubclass(cls, PretextTask) and cls.start_epoch is PretextTask.start_epoch
    ]
    worst = 0.0
    with tempfile.TemporaryDirectory() as cache:
        for name in sys.argv[1:] or every:
            what, before = measure(name, 1, Path(cache))
            _, after = measure(name, STEPS, Path(cache))
            change = f"{before:8.4f} -> {after:8.4f}  {after / before:.2f}"
            print(f"{name:20} {what:6} {change}", flush=True)
            worst = max(worst, after / before)
    print(f"worst ratio: {worst:.2f} (at most {MOST})")
    return int(worst > MOST)


def measure(name: str, steps: int, cache: Path) -> tuple[str, float]:
    """Train for some steps; the method's measure by name."""
    recipe = recipe_of(loader.load("mini"), name)
    settings = loader.load(
        "mini",
        [
            *SCENES,
            f"recipes.{name}.views={steps * recipe.batch}",
            f"recipes.{name}.crop_scale=[1.0, 1.0]",
        ],
    )
    quiet = Reporter()
    quiet.console.quiet = True
    datasets = open_datasets(settings, {"pretraining"}, None, cache, quiet)
    context = Context(settings, name, 0, select_device("auto"), datasets, cache, quiet)
    seed_everything(0)
    encoder = plugins.load("methods", name)().pretrain(context)
    return _pick(encoder.pretraining, encoder.samples, recipe.crop)


def _pick(pretraining: Pretraining, samples, side: int) -> tuple[str, float]:
    for what in ("l1", "cycle", "loss"):
        if what in pretraining.logged:
            return what, pretraining.logged[what]
    x, generated = samples[:, PADDING:].float().div(255).split(side + PADDING, dim=1)[1:]
    return "l1", (x - generated).abs().mean().item()


if __name__ == "__main__":
    sys.exit(main())
