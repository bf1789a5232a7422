"""A step of fine-tuning a detector, and testing it, against bare torchvision loops.

    python benchmarks/finetune.py

Ours trains the detector of `mini` as `bench run` does, from files, for a hundred steps, a third of
a run there: it scales and mirrors images, seeds, watches for non-finite losses, traces, shows
progress and writes checkpoints. After each of its steps two bare loops take one, too: one loads
the same files by torch's own loader, one has its batches in memory. Medians of three runs. Claims:
ours keeps 0.95 of the speed of the first, and 0.9 of that of the second. Then the task detects in
400 images, one at a time as in `bench run`. After each the bare loop reads the same file by Pillow,
scales and pads it and asks the same network. Ours keeps 0.95 of its speed. Exit status 1 if a claim
does not hold.
"""

import copy
import statistics
import sys
import tempfile
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from bench.tasks.voc_det import VocDet
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2.functional import pil_to_tensor, resize
from turns import bare_steps, clock, loaded, report, seconds_a_step, select

from bench.config import loader
from bench.config.settings import task_settings
from bench.data.datasets import Dataset, open_datasets
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import Detector
from bench.runtime.device import seed_everything
from bench.runtime.progress import Reporter
from bench.training.trainer import Trainer, TrainingJob

ROUNDS, STEPS, RESIDENT = 3, 100, 8
FILES, MEMORY = "bare loop, same files", "bare loop, in memory"
TESTING, BARE = "ours, testing", "bare loop, testing"
CLAIMS = {FILES: 0.95, MEMORY: 0.9}
LEAST = 0.95  # of the speed of BARE
SCENES = [
    "synthetic.pretraining=10",
    "synthetic.validation=10",
    "synthetic.train=400",
    "synthetic.test=20",
    "datasets.voc.min_positives=1",
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
        tested = [test(detector.to(device).eval(), voc) for _ in range(ROUNDS)]
    failed = report(rounds, CLAIMS)
    seconds = {name: statistics.median(each[name] for each in tested) for name in (TESTING, BARE)}
    for name, value in seconds.items():
        print(f"{name:24} {1e3 * value:6.1f} ms an image")
    ratio = statistics.median(each[BARE] / each[TESTING] for each in tested)
    print(f"{BARE} / ours: {ratio:.3f} (claim: at least {LEAST})")
    return int(failed or ratio < LEAST)


def test(detector: Detector, dataset: Dataset) -> dict[str, float]:
    """Seconds an image of the task and of a bare loop, in turns."""
    split, device = dataset.train, detector.encoder.mean.device
    quiet = Reporter()
    quiet.console.quiet = True
    seconds = {TESTING: 0.0, BARE: 0.0}

    def bare(file: Path) -> dict[str, list[float]]:
        image = pil_to_tensor(Image.open(file).convert("RGB"))
        scale = detector.settings.size / max(image.shape[1:])
        small = resize(image, [round(scale * side) for side in image.shape[1:]], antialias=True)
        right, below = (detector.side - side for side in small.shape[:0:-1])
        square = functional.pad(small, (0, right, 0, below))[None].float() / 255
        with torch.inference_mode():
            (found,) = detector.network(square.to(device))
        return {name: values.cpu().tolist() for name, values in found.items()}

    context = SimpleNamespace(dataset=dataset, reporter=quiet)
    for index, file in enumerate(split.images.files):
        started = clock(device)
        VocDet().predict(detector, split, [index], context, "testing")
        between = clock(device)
        bare(split.images.root / file)
        seconds[TESTING] += between - started
        seconds[BARE] += clock(device) - between
    return {name: total / len(split.images.files) for name, total in seconds.items()}


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
