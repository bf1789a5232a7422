"""Frozen features: every stage of an encoder, pooled, streamed to disk, content-addressed."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import filelock
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from bench.data.image_files import ImageFiles, read, resize_exact
from bench.data.transforms import to_unit_range
from bench.encoders.encoder import Encoder
from bench.runtime.device import loader_workers
from bench.runtime.environment import library_versions
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Bar
from bench.training.context import Context

BATCH = 32
VERSION = 1  # raise when features may change: it is in the key of the cached ones


def grid(shape: tuple[int, ...], dimensions: int) -> tuple[int, int]:
    """The largest square grid, at most the map itself, that keeps (C, H, W) in `dimensions`.

    At 9216 this gives Goyal et al. 2019's sizes for ResNet-50: 12, 6, 4, 3 and 2 a side.
    """
    channels, height, width = shape
    side = max(1, math.isqrt(dimensions // channels))
    return min(side, height), min(side, width)


def pool_features(encoder: Encoder, rgb: Tensor, dimensions: int) -> list[Tensor]:
    """Average-pool every stage's map of a batch to its `grid`.

    Args:
        encoder: in evaluation mode.
        rgb: uint8 (B, 3, H, W) in [0, 255], on the encoder's device.
        dimensions: most values a stage may keep.

    Returns:
        One float32 (B, D_s) for each stage, D_s <= dimensions where channels allow.
    """
    with torch.inference_mode():
        maps = encoder(to_unit_range(rgb))
        return [
            F.adaptive_avg_pool2d(m, grid(tuple(m.shape[1:]), dimensions)).flatten(1) for m in maps
        ]


def features(
    encoder: Encoder, images: ImageFiles, size: int, dimensions: int, context: Context, name: str
) -> list[np.memmap]:
    """Every stage's pooled features of some images, from the cache or extracted into it.

    Memory does not grow with the number of images: batches go straight to disk. They stay there
    until `discard` removes those of the encoder.

    Args:
        encoder: in evaluation mode, on `context.device`.
        images: the files.
        size: side to which each is resized, pixels.
        dimensions: most values that a stage may keep.
        context: the cell.
        name: what the images are, for the progress bar.

    Returns:
        One read-only float32 (N, D_s) array on disk for each stage, not normalized.
    """
    weights = encoder.weights_sha256()
    key = digest(
        {
            "weights": weights,
            "images": images.fingerprint,
            "transform": ["resize_exact", size],
            "pooling": ["average", dimensions],
            "precision": "float32",
            "version": VERSION,
            "versions": library_versions(),
            "device": context.device.type,
        }
    )
    folder = context.cache / "features" / f"{weights[:16]}-{key[:32]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not folder.exists():
            for partial in folder.parent.glob(f"partial-{folder.name}-*"):  # of a killed run
                shutil.rmtree(partial, ignore_errors=True)
            with context.reporter.stage(f"features, {name}", len(images.files)) as bar:
                batches = loader(images, size)
                extract(encoder, batches, len(images.files), dimensions, folder, bar)
        stages = json.loads((folder / "stages.json").read_text(encoding="utf-8"))
        return [np.load(folder / f"stage{s}.npy", mmap_mode="r") for s in range(stages)]


def discard(encoder: Encoder, cache: Path) -> None:
    """Remove every feature of an encoder from the cache; arrays that are open stay readable."""
    weights = encoder.weights_sha256()
    for marker in (cache / "features").glob(f"{weights[:16]}-*/stages.json"):
        folder = marker.parent
        with _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> filelock.BaseFileLock:
    """The lock that keeps other runs from a folder of features."""
    return filelock.FileLock(folder.with_name(f"{folder.name}.lock"))


def extract(
    encoder: Encoder,
    batches: Iterable[Tensor],
    count: int,
    dimensions: int,
    folder: Path,
    bar: Bar,
) -> None:
    """Write every stage's features below `folder`, which appears only when they are complete."""
    device = encoder.mean.device
    partial = Path(tempfile.mkdtemp(prefix=f"partial-{folder.name}-", dir=folder.parent))
    try:
        with ExitStack() as stack:
            files: list[BinaryIO] = []
            for rgb in batches:
                stages = pool_features(encoder, rgb.to(device, non_blocking=True), dimensions)
                if not files:
                    paths = [partial / f"stage{s}.npy" for s in range(len(stages))]
                    files = [stack.enter_context(path.open("wb")) for path in paths]
                    for file, stage in zip(files, stages, strict=True):
                        _write_header(file, (count, stage.shape[1]))
                for file, stage in zip(files, stages, strict=True):
                    file.write(stage.float().cpu().numpy().tobytes())
                bar.advance(len(rgb))
        (partial / "stages.json").write_text(json.dumps(len(files)), encoding="utf-8")
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """Begin a .npy file whose rows are appended as they come."""
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)


class _Squashed(Dataset[Tensor]):
    """Decoded images at one size."""

    def __init__(self, images: ImageFiles, size: int) -> None:
        self._images = images
        self._size = size

    def __len__(self) -> int:
        return len(self._images.files)

    def __getitem__(self, index: int) -> Tensor:
        return resize_exact(read(self._images.root / self._images.files[index]), self._size)


def loader(images: ImageFiles, size: int) -> Iterable[Tensor]:
    """Batches of decoded images in order, uint8 (B, 3, size, size)."""
    return DataLoader(_Squashed(images, size), batch_size=BATCH, num_workers=loader_workers())
