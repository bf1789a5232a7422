"""How fast images are decoded, against Pillow, per core.

    python benchmarks/decoding.py FOLDER [--count 2000]     # a folder of JPEGs, such as JPEGImages

Reads the files once, so that they are in memory, then takes turns: a batch by `image_files.read`
from its file, the same batch by Pillow from its file. Prints the ratio of processor times, and how
many files were left to Pillow. Exit status 1 if the claim below does not hold.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data import image_files, jpeg

CLAIM = 1.2  # times as many images a second
BATCH = 50


def by_pillow(path: Path) -> np.ndarray:
    """The pixels, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    paths = paths[: arguments.count]
    left = sum(jpeg.decode(path.read_bytes(), image_files.MAX_PIXELS) is None for path in paths)
    seconds = {"read": 0.0, "Pillow": 0.0}
    for first in range(0, len(paths), BATCH):
        batch = paths[first : first + BATCH]
        for name, function in (("read", image_files.read), ("Pillow", by_pillow)):
            started = time.process_time()
            for path in batch:
                function(path)
            seconds[name] += time.process_time() - started
    ratio = seconds["Pillow"] / seconds["read"]
    for name, value in seconds.items():
        print(f"{name:<8}{len(paths) / value:8,.0f} images a second of processor time")
    print(f"ratio {ratio:.2f} over {len(paths):,} images, of which {left} were left to Pillow")
    print("the claim holds" if ratio >= CLAIM else f"the claim of {CLAIM} does not hold")
    return int(ratio < CLAIM)


if __name__ == "__main__":
    sys.exit(main())
