"""A step of fine-tuning a detector against a bare torchvision loop on the same network.

    python benchmarks/finetune.py

Ours reads images from files, scales and mirrors them in a loader's worker, seeds, watches for
non-finite losses, shows progress and writes checkpoints; the bare loop has its batches in memory
already. Both train the detector of `mini`, for a hundred steps, a third of a run there; ours with
its start. Claim: ours makes at least 0.9 times as many images a second.
"""

import copy
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from bench.config import loader
from bench.config.settings import task_settings
from bench.data.datasets import open_datasets
from bench.data.image_files import read
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import Detector
from bench.runtime.device import seed_everything, select_device
from bench.runtime.progress import Reporter
from bench.training.optimizer import make_optimizer
from bench.training.trainer import Trainer, TrainingJob

STEPS, WARM, CLAIM = 100, 5, 0.9
SCENES = [
    "synthetic.pretraining=10",
    "synthetic.validation=10",
    "synthetic.train=400",
    "synthetic.test=1",
]


def main() -> int:
    """Time both, three times in turn, and compare the best."""
    settings = loader.load("mini", SCENES)
    tuning = task_settings(settings, "voc_det")
    quiet = Reporter()
    quiet.console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        voc = open_datasets(settings, {"voc"}, None, cache, quiet)["voc"]
        train = voc.train
        device = select_device("auto")
        recipe = tuning.recipe(1e-3, STEPS * tuning.batch / tuning.views)
        seed_everything(0)
        first = Detector(Encoder(settings.backbone.name), tuning, train.objects, voc.classes)

        def harness(number: int) -> float:
            job = TrainingJob(
                name="benchmark",
                recipe=recipe,
                images=train.images,
                labels=np.arange(len(train.ids)),
                seed=0,
                device=device,
                checkpoint=cache / "checkpoints" / f"{number}.pt",
                key=str(number),
                remedy="",
            )
            trainer = Trainer(copy.deepcopy(first), job)
            with quiet.stage("", 1) as bar:
                trainer.run(bar)
            return trainer.seconds / STEPS

        def bare(number: int) -> float:
            network = copy.deepcopy(first).to(device, memory_format=torch.channels_last).train()
            optimizer = make_optimizer(list(network.parameters()), recipe)
            batches = [[_example(network, train, i * 8 + k) for k in range(8)] for i in range(8)]
            collated = [[part.to(device) for part in default_collate(b)] for b in batches]
            for step in range(STEPS + WARM):
                if step == WARM:
                    started = time.perf_counter()
                loss = network.loss(collated[step % 8])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return (time.perf_counter() - started) / STEPS

        pairs = [(harness(k), bare(k)) for k in range(3)]
    ours, theirs = (min(column) for column in zip(*pairs, strict=True))
    print(f"ours {1e3 * ours:.0f} ms a step, bare {1e3 * theirs:.0f} ms")
    print(f"ratio {theirs / ours:.2f} (claim: at least {CLAIM})")
    return int(theirs / ours < CLAIM)


def _example(network: Detector, train, index: int):
    return network.transform(read(train.images.root / train.images.files[index]), index)


if __name__ == "__main__":
    sys.exit(main())
