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

import torch
from torch.utils.data import default_collate

from bench.config import loader
from bench.data.datasets import open_data
from bench.data.image_files import read
from bench.data.image_folder import LabeledImages
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import Detector
from bench.runtime.device import seed_everything, select_device
from bench.runtime.progress import Reporter
from bench.training.finetuning import Job
from bench.training.optimizer import make_optimizer
from bench.training.trainer import Trainer

STEPS, WARM, CLAIM = 100, 5, 0.9


def main() -> int:
    """Time both, three times in turn, and compare the best."""
    settings = loader.load("mini", ["scenes.corpus=1", "scenes.test=1", "scenes.train=400"])
    tuning = settings.voc_det
    assert tuning is not None
    quiet = Reporter()
    quiet.console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        data = open_data(settings, None, {"voc"}, cache, quiet)
        assert data.voc is not None
        train = data.voc.train
        device = select_device("auto")
        share = STEPS * tuning.batch / tuning.images
        images = LabeledImages(train.images, torch.arange(len(train.ids)).numpy(), ())
        seed_everything(0)
        first = Detector(
            Encoder(settings.backbone.name), tuning, train.objects, settings.voc.classes
        )

        def harness(number: int) -> float:
            job = Job(
                settings, "random_init", 0, device, data, cache, quiet,
                tuning.recipe(1e-3, share), images, {"run": number},
            )  # fmt: skip
            network = copy.deepcopy(first)
            network.recipe = job.recipe
            training = Trainer(network, job)
            with quiet.stage("", 1) as bar:
                training.run(bar)
            return training.seconds / STEPS

        def bare(number: int) -> float:
            network = copy.deepcopy(first).to(device, memory_format=torch.channels_last).train()
            optimizer = make_optimizer(list(network.parameters()), tuning.recipe(1e-3, share))
            batches = [[_example(network, train, i * 8 + k) for k in range(8)] for i in range(8)]
            collated = [[part.to(device) for part in default_collate(b)] for b in batches]
            for step in range(STEPS + WARM):
                if step == WARM:
                    started = time.perf_counter()
                loss = network.loss(collated[step % 8], "encoder")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return (time.perf_counter() - started) / STEPS

        pairs = [(harness(k), bare(k)) for k in range(3)]
    ours, theirs = (min(column) for column in zip(*pairs, strict=True))
    print(f"ours {1e3 * ours:.0f} ms a step, bare {1e3 * theirs:.0f} ms")
    print(f"ratio {theirs / ours:.2f} (claim: at least {CLAIM})")
    return int(theirs / ours < CLAIM)


def _example(network: Detector, train, place: int):
    return network.example(read(train.images.root / train.images.files[place]), place)


if __name__ == "__main__":
    sys.exit(main())
