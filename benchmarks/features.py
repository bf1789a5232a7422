"""How much of the bare backbone's speed feature extraction keeps.

    python benchmarks/features.py

Three rates in one run, in turn, medians of five: the bare backbone's forward pass on resident
float tensors; extraction (forward, pooling, writing to disk) from pre-decoded images, which must
reach 85% of it; and extraction from JPEG files, which must reach 85% of what decoding and forward
allow on the same cores, one after the other: it is bound by decoding, not by the harness. Exit
status 1 if either falls short.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.config.loader import load
from bench.config.settings import task_settings
from bench.data import synthetic_scenes
from bench.data.image_files import verify
from bench.encoders.encoder import Encoder
from bench.evaluation.features import BATCH, extract, loader
from bench.runtime.progress import Reporter

IMAGES, ROUNDS, LEAST = 512, 5, 0.85


def rate(work) -> float:
    """Images a second."""
    started = time.perf_counter()
    work()
    return IMAGES / (time.perf_counter() - started)


def main() -> int:
    """Measure and print; 1 if a claim fails."""
    settings = load("tiny")
    probe = task_settings(settings, "voc_cls")
    size = probe.size
    dimensions = probe.dimensions
    encoder = Encoder(settings.backbone.name).eval()
    quiet = Reporter()
    quiet.console.quiet = True
    with tempfile.TemporaryDirectory() as name, quiet.stage("", IMAGES) as bar:
        root = Path(name)
        synthetic_scenes.render(
            root, seed=0, size=192, pretraining=IMAGES, validation=1, train=1, test=1
        )
        files = sorted(p.relative_to(root).as_posix() for p in root.glob("pretraining/*/*.jpg"))
        images = verify(root, files, "stop", lambda _: None)
        decoded = list(loader(images, size))
        resident = [batch.float() / 255 for batch in decoded]
        count = iter(range(10**6))

        def bare() -> None:
            with torch.inference_mode():
                for batch in resident:
                    encoder.branches[0](batch.to(memory_format=torch.channels_last))

        def extracted(batches) -> None:
            extract(encoder, batches, IMAGES, dimensions, root / f"f{next(count)}", bar)

        works = {
            "bare forward": bare,
            "extraction, pre-decoded": lambda: extracted(decoded),
            "decoding alone": lambda: sum(len(batch) for batch in loader(images, size)),
            "extraction, from files": lambda: extracted(loader(images, size)),
        }
        rates = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                rates[name].append(rate(work))
    for name, values in rates.items():
        print(f"{name:26} {statistics.median(values):7.0f} img/s")
    pairs = list(zip(*rates.values(), strict=True))
    kept = statistics.median(extraction / forward for forward, extraction, _, _ in pairs)
    bound = statistics.median(
        extraction * (1 / forward + 1 / decode) for forward, _, decode, extraction in pairs
    )
    print(f"pre-decoded / bare forward: {kept:.2f} (at least {LEAST}), batch {BATCH}")
    print(f"from files / (decoding, then forward): {bound:.2f} (at least {LEAST})")
    return int(min(kept, bound) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
