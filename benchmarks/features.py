"""How much of the speed of bare decoding and bare forward passes feature extraction keeps.

    python benchmarks/features.py

On one thread of one process, as `bench run` computes, so that decoding and forward passes take
turns: from files, with pooling and writing to disk, it must reach 90% of 1 / (1/decode +
1/forward). From images in memory it must reach 90% of the forward passes alone. Exit status 1 if
either falls short.

After every batch of the extraction the same batch is decoded and passed forward by bare loops, so
that a busy machine slows all of them alike. Medians of five extractions.
"""

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bench.config.loader import load
from bench.config.settings import task_settings
from bench.data import synthetic_scenes
from bench.data.image_files import ImageFiles, read, resize_exact, verify
from bench.data.transforms import to_unit_range
from bench.encoders.encoder import Encoder
from bench.evaluation.features import BATCH, extract, loader
from bench.runtime.device import share_cores
from bench.runtime.progress import Reporter
from bench.runtime.workers import cores

IMAGES, ROUNDS, LEAST = 512, 5, 0.9


class Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = Counter[str]()
        self._since = time.perf_counter()

    def spent_on(self, name: str) -> None:
        """Count the time since the last call."""
        now = time.perf_counter()
        self.seconds[name] += now - self._since
        self._since = now


def interleaved(encoder: Encoder, images: ImageFiles, size: int, clock: Clock) -> Iterator[Tensor]:
    """The batches of an extraction; bare loops over the same images run before each."""
    paths = [images.root / name for name in images.files]
    batches = iter(loader(images, size))
    for first in range(0, len(paths), BATCH):
        clock.spent_on("ours: forward")
        bare = torch.stack([resize_exact(read(path), size) for path in paths[first:][:BATCH]])
        clock.spent_on("bare: decode")
        resident = to_unit_range(bare).to(memory_format=torch.channels_last)
        clock.spent_on("not counted")
        with torch.inference_mode():
            encoder.branches[0](resident)
        clock.spent_on("bare: forward")
        batch = next(batches)
        clock.spent_on("ours: decode")
        yield batch


def main() -> int:
    """Measure and print; 1 if a claim fails."""
    settings = load("tiny")
    probe = task_settings(settings, "voc_cls")
    encoder = Encoder(settings.backbone.name).eval()
    quiet = Reporter()
    quiet.console.quiet = True
    share_cores(cores(), 1)
    rounds = []
    with tempfile.TemporaryDirectory() as name, quiet.stage("", IMAGES) as bar:
        root = Path(name)
        synthetic_scenes.render(
            root, seed=0, size=192, pretraining=IMAGES, validation=1, train=1, test=1
        )
        files = sorted(p.relative_to(root).as_posix() for p in root.glob("pretraining/*/*.jpg"))
        images = verify(root, files, "stop", lambda _: None)
        for number in range(ROUNDS + 1):
            clock = Clock()
            batches = interleaved(encoder, images, probe.size, clock)
            extract(encoder, batches, IMAGES, probe.dimensions, root / f"f{number}", bar)
            clock.spent_on("ours: forward")
            rounds.append(clock.seconds)
    del rounds[0]  # the first allocates
    for part in ("bare: decode", "bare: forward", "ours: decode", "ours: forward"):
        rate = statistics.median(IMAGES / seconds[part] for seconds in rounds)
        print(f"{part:14} {rate:7.0f} img/s")
    ratios = {
        "from files / (decoding, then forward)": ("decode", "forward"),
        "from memory / forward": ("forward",),
    }
    kept = []
    for label, parts in ratios.items():
        sums = [
            [sum(seconds[f"{who}: {part}"] for part in parts) for who in ("bare", "ours")]
            for seconds in rounds
        ]
        kept.append(statistics.median(bare / ours for bare, ours in sums))
        print(f"{label}: {kept[-1]:.2f} (at least {LEAST}), batch {BATCH}")
    return int(min(kept) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
