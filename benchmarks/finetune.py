"""A step of fine-tuning a detector against a bare torchvision loop on the same network.

    python benchmarks/finetune.py

Ours trains the detector of `mini` as `bench run` does, from files, for a hundred steps, a third of
a run there: it scales and mirrors images, seeds, watches for non-finite losses, traces, shows
progress and writes checkpoints. After each of its steps two bare loops take one, too: one loads
the same files by torch's own loader, one has its batches in memory. Medians of three runs. Claims:
ours keeps 0.95 of the speed of the first, and 0.9 of that of the second; exit status 1 if it does
not.
"""

import copy
import sys
import tempfile
from itertools import cycle
from pathlib import Path

import numpy as np
from turns import bare_steps, loaded, report, seconds_a_step, select

from bench.config import loader
from bench.config.settings import task_settings
from bench.data.datasets import open_datasets
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import Detector
from bench.runtime.device import seed_everything
from bench.runtime.progress import Reporter
from bench.training.trainer import Trainer, TrainingJob

ROUNDS, STEPS, RESIDENT = 3, 100, 8
FILES, MEMORY = "bare loop, same files", "bare loop, in memory"
CLAIMS = {FILES: 0.95, MEMORY: 0.9}
SCENES = [
    "synthetic.pretraining=10",
    "synthetic.validation=10",
    "synthetic.train=400",
    "synthetic.test=1",
]


def main() -> int:
    """Measure and print; 1 if a claim fails."""
    settings = loader.load("mini", SCENES)
    tuning = task_settings(settings, "voc_det")
    recipe = tuning.recipe(1e-3, STEPS * tuning.batch / tuning.views)
    device = select()
    quiet = Reporter()
    quiet.console.quiet = True
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        voc = open_datasets(settings, {"voc"}, None, cache, quiet)["voc"]
        seed_everything(0)
        encoder = Encoder(settings.backbone.name)
        detector = Detector(encoder, tuning, voc.train.objects, voc.classes)
        jobs = [
            TrainingJob(
                name="benchmark",
                recipe=recipe,
                images=voc.train.images,
                labels=np.arange(len(voc.train.ids)),
                seed=seed,
                device=device,
                checkpoint=cache / f"{seed}.pt",
                key=str(seed),
                remedy="",
            )
            for seed in range(ROUNDS)
        ]
        rounds = [measure(detector, job) for job in jobs]
    return report(rounds, CLAIMS)


def measure(detector: Detector, job: TrainingJob) -> dict[str, float]:
    """Seconds a step of ours and of both bare loops, each on a copy of a detector."""
    ours, with_files, in_memory = (copy.deepcopy(detector) for _ in range(3))
    trainer = Trainer(ours, job)
    batches = loaded(with_files, trainer)
    take = loaded(in_memory, trainer)
    resident = cycle([take() for _ in range(RESIDENT)])
    loops = {
        FILES: bare_steps(with_files, trainer, batches, with_files.loss),
        MEMORY: bare_steps(in_memory, trainer, lambda: next(resident), in_memory.loss),
    }
    return seconds_a_step(trainer, loops)


if __name__ == "__main__":
    sys.exit(main())
