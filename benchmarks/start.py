"""How long a start takes with as many images as ImageNet has, and how much memory.

    python benchmarks/start.py DIR [--images 1281000] [--distinct 100000] [--times 2]

Makes DIR/COUNT/train with 1,000 class folders of JPEGs of 25 kB: hard links to DISTINCT files, of
other contents each (1,281,000 names take 2.5 GB and a minute). It opens them with an empty cache,
which reads every byte, and then again in a new process each time; then after one file was changed,
added, removed and renamed. Memory is the proportional set size above that of the imports. Eight
loader workers read images through the stream of pretraining; theirs is compared with that of
eight workers of 10,000 images. Exit status 1 if a claim does not hold.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CLASSES = 1000
SIZE = 25_000  # bytes of a file
WORKERS = 8
IMAGES = 1_281_000
SECONDS = 15.0  # claims: of a second start with IMAGES, and in proportion with more
MEMORY = 300  # MB in the main process
WORKER_MEMORY = 50  # MB more in a loader's worker


def make_tree(root: Path, count: int, distinct: int) -> None:
    """Make ROOT/train/CLASS/NAME.JPEG, unless it is there."""
    if (root / "complete").exists():
        return
    import io

    import numpy as np
    from PIL import Image

    shutil.rmtree(root, ignore_errors=True)
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", quality=90)
    jpeg = stream.getvalue()
    room = SIZE - len(jpeg) - 6
    assert room > 16, "the image leaves no room"
    sources = root / "sources"
    sources.mkdir(parents=True)
    for number in range(distinct):
        comment = f"{number:016d}".encode().ljust(room, b".")
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment
        (sources / f"{number}.JPEG").write_bytes(jpeg[:2] + segment + jpeg[2:])
    for label in range(CLASSES):
        folder = root / "train" / f"n{label:08d}"
        folder.mkdir(parents=True)
        for place, number in enumerate(range(label, count, CLASSES)):
            os.link(sources / f"{number % distinct}.JPEG", folder / f"n{label:08d}_{place}.JPEG")
    (root / "complete").touch()


def memory(process: int | str = "self") -> float:
    """The proportional set size of a process, MB."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def measure(root: Path, cache: Path, workers: int) -> dict[str, float]:
    """One start in this process, and its loader's workers."""
    from torch.utils.data import DataLoader

    import bench.commands.execute  # noqa: F401 - what a run imports
    from bench.config.schema import ImageFolder
    from bench.data.image_folder import open_image_folder
    from bench.data.stream import Stream
    from bench.runtime.progress import Reporter

    before = memory()
    started = time.monotonic()
    section = ImageFolder(kind="image_folder", train="train")
    images = open_image_folder(root, "pretraining", section, "train", Reporter(), cache)
    seconds = time.monotonic() - started
    used = memory() - before
    stream = Stream(images.images, images.labels, 0, _mean, 10_000)
    loader = DataLoader(stream, batch_size=8, num_workers=workers)
    batches = iter(loader)
    for _ in range(4 * workers):
        next(batches)
    each = [memory(worker.pid) for worker in getattr(batches, "_workers", [])]
    return {
        "seconds": seconds,
        "memory": used,
        "worker": max(each, default=0.0),
        "images": len(images.labels),
        "fingerprint": int(images.fingerprint[:12], 16),
    }


def _mean(image: object, label: int) -> float:
    return float(image.float().mean()) + label  # type: ignore[attr-defined]


def start(root: Path, cache: Path, workers: int = 0) -> dict[str, float]:
    """One start in a new process."""
    command = [sys.executable, __file__, str(root), "--measure", str(cache), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    """Print the table; the number of claims that do not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--distinct", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--measure", nargs=2, metavar=("CACHE", "WORKERS"))
    arguments = parser.parse_args()
    root = arguments.root
    if arguments.measure:
        cache, workers = arguments.measure
        print(json.dumps(measure(root, Path(cache), int(workers))))
        return 0
    root = root / str(arguments.images)
    make_tree(root, arguments.images, arguments.distinct)
    few = arguments.root / "few"
    make_tree(few, 10 * CLASSES, 10 * CLASSES)
    cache = root / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    longest = SECONDS * max(1.0, arguments.images / IMAGES)
    failures = 0

    def line(name: str, found: dict[str, float]) -> None:
        figures = f"{found['images']:>11,.0f}{found['seconds']:>9.1f} s{found['memory']:>8.0f} MB"
        print(f"{name:<28}{figures}", flush=True)

    print(f"{'start':<28}{'images':>11}{'time':>11}{'memory':>11}")
    first = start(root, cache)
    line("first, every file read", first)
    for _ in range(arguments.times):
        again = start(root, cache)
        line("later", again)
        failures += again["seconds"] > longest or again["memory"] > MEMORY
        failures += again["fingerprint"] != first["fingerprint"]
    name = root / "train" / "n00000000" / "n00000000_0.JPEG"
    other = name.with_name("new.JPEG")
    kept = name.read_bytes()
    previous = first

    def changed(what: str, difference: int) -> None:
        nonlocal previous, failures
        found = start(root, cache)
        line(f"one file {what}", found)
        failures += found["fingerprint"] == previous["fingerprint"]
        failures += found["images"] != previous["images"] + difference
        previous = found

    other.write_bytes(kept[:-2] + b"\xff\xfe\x00\x04ab" + kept[-2:])
    changed("added", 1)
    other.write_bytes(kept[:-2] + b"\xff\xfe\x00\x04cd" + kept[-2:])
    changed("changed", 0)
    other.rename(other.with_name("newer.JPEG"))
    changed("renamed", 0)
    other.with_name("newer.JPEG").unlink()
    changed("removed", -1)
    failures += previous["fingerprint"] != first["fingerprint"]
    base = start(few, few / "cache", WORKERS)["worker"]
    large = start(root, cache, WORKERS)["worker"]
    print(
        f"each of {WORKERS} loader workers: {large - base:+.0f} MB beside {base:.0f} MB of 10,000"
    )
    failures += large - base > WORKER_MEMORY
    print("all claims hold" if not failures else f"{failures} claims do not hold")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
