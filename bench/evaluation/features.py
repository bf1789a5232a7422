"""Frozen features: every stage of an encoder, pooled, streamed to disk, content-addressed."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from bench.data import jpeg
from bench.data.image_files import MAX_PIXELS, ImageFiles, read, resize_exact
from bench.data.transforms import to_unit_range
from bench.encoders.encoder import Encoder
from bench.errors import UserError, naming
from bench.runtime import distributed
from bench.runtime.device import loader_workers, prepare_loader_worker
from bench.runtime.environment import library_versions
from bench.runtime.files import damaged, flush_to_disk, locked, read_cached, write_cached
from bench.runtime.fingerprint import digest, file_digest
from bench.runtime.partial import partial_folder
from bench.runtime.pool import batches as batches_of
from bench.runtime.progress import Bar
from bench.training.context import Context

BATCH = 32
CPU = torch.device("cpu")
DIGESTS = "stages.json"  # SHA-256 of every stage's file
VERSION = 1  # raise when features may change: it is in the key of the cached ones


def grid(shape: tuple[int, ...], dimensions: int) -> tuple[int, int]:
    """The largest square grid, at most the map itself, that keeps (C, H, W) in `dimensions`.

    At 9216 this gives Goyal et al. 2019's sizes for ResNet-50: 12, 6, 4, 3 and 2 a side.
    """
    channels, height, width = shape
    side = max(1, math.isqrt(dimensions // channels))
    return min(side, height), min(side, width)


def pool_features(encoder: Encoder, rgb: Tensor, dimensions: int) -> list[Tensor]:
    """Average-pool every stage's map of a batch to its `grid`; after them the global vector.

    Args:
        encoder: in evaluation mode.
        rgb: uint8 (B, 3, H, W) in [0, 255], on the encoder's device.
        dimensions: most values a stage may keep.

    Returns:
        One float32 (B, D_s) for each stage, D_s <= dimensions where channels allow, and one for
        the model's own global vector, if it has one.
    """
    with torch.inference_mode():
        maps, vector = encoder.with_embedding(to_unit_range(rgb))
        pooled = [
            F.adaptive_avg_pool2d(m, grid(tuple(m.shape[1:]), dimensions)).flatten(1) for m in maps
        ]
        return pooled if vector is None else [*pooled, vector]


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
            "weights": [weights, context.method_digest],
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
    with distributed.main_process_lock(_lock(folder)):
        if not distributed.from_main(partial(_is_whole, folder, context.reporter.say)):
            if distributed.is_main():
                shutil.rmtree(folder, ignore_errors=True)
            stage = context.reporter.stage(f"features, {name}", len(images.files))
            with distributed.together(), stage as bar:
                batches = batches_of(loader(images, size, context.device))
                extract(encoder, batches, len(images.files), dimensions, folder, bar)
        if not distributed.all_processes((folder / DIGESTS).exists()):
            raise UserError(f"{folder}: not every process sees it; use one --cache for all of them")
        stages = len(_read_digests(folder, context.reporter.say))
        return [np.load(_stage(folder, s), mmap_mode="r") for s in range(stages)]


def _stage(folder: Path, stage: int) -> Path:
    """The file of one stage's features."""
    return folder / f"stage{stage}.npy"


def _read_digests(folder: Path, say: Callable[[str], None]) -> list[str]:
    """SHA-256 of every stage's file, as it was written; empty if that is not known."""
    content = read_cached(folder / DIGESTS, say)
    digests: list[str] = json.loads(content) if content else []
    return digests


def _is_whole(folder: Path, say: Callable[[str], None]) -> bool:
    """Whether a folder has every stage's features as they were written; a damaged file is named."""
    digests = _read_digests(folder, say)
    for stage, expected in enumerate(digests):
        path = _stage(folder, stage)
        try:
            present = file_digest(path)
        except OSError:
            present = ""
        if present != expected:
            say(damaged(path))
            return False
    return bool(digests)


def discard(encoder: Encoder, cache: Path) -> None:
    """Remove every feature of an encoder from the cache; arrays that are open stay readable."""
    weights = encoder.weights_sha256()
    for marker in (cache / "features").glob(f"{weights[:16]}-*/{DIGESTS}"):
        folder = marker.parent
        with locked(_lock(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> Path:
    """The file by whose lock other runs are kept from a folder of features."""
    return folder.with_name(f"{folder.name}.lock")


def extract(
    encoder: Encoder,
    batches: Iterable[Tensor],
    count: int,
    dimensions: int,
    folder: Path,
    bar: Bar,
) -> None:
    """Write every stage's features below `folder`, which appears only when they are complete.

    Of several processes the main one writes what all of them extract, a batch of each at a time.

    Args:
        encoder: in evaluation mode.
        batches: this process's, as `loader` has them.
        count: of all images.
        dimensions: most values that a stage may keep.
        folder: appears.
        bar: advances with the images that are written.
    """
    device = encoder.mean.device

    def stages() -> Iterator[list[np.ndarray]]:
        for rgb in batches:
            pooled = pool_features(encoder, rgb.to(device, non_blocking=True), dimensions)
            yield [stage.float().cpu().numpy() for stage in pooled]

    total = math.ceil(count / BATCH)
    if not distributed.is_main():
        distributed.in_rounds(stages(), total, _ignore)
        return
    with naming(folder), partial_folder(folder) as unfinished, ExitStack() as stack:
        files: list[_FeatureFile] = []

        def write(batch: list[np.ndarray]) -> None:
            if not files:
                shapes = [(count, stage.shape[1]) for stage in batch]
                files.extend(_FeatureFile(_stage(unfinished, s), x) for s, x in enumerate(shapes))
                for file in files:
                    stack.callback(file.close)
            for file, stage in zip(files, batch, strict=True):
                file.append(stage)
            bar.advance(len(batch[0]))

        distributed.in_rounds(stages(), total, write)
        stack.close()
        digests = [file.digest() for file in files]
        write_cached(unfinished / DIGESTS, json.dumps(digests).encode())


def _ignore(batch: object) -> None:
    """Take nothing: the main process does."""


class _FeatureFile:
    """A .npy file of float32 whose rows are appended as they come, and the digest of its bytes."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._stream = path.open("wb")
        self._sha256 = hashlib.sha256()
        header = io.BytesIO()
        about = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        self._write(header.getvalue())

    def append(self, rows: np.ndarray) -> None:
        """Append rows, float32 (B, D)."""
        self._write(rows.tobytes())

    def _write(self, content: bytes) -> None:
        self._stream.write(content)
        self._sha256.update(content)

    def close(self) -> None:
        """Flush the file to the disk and close it."""
        flush_to_disk(self._stream)
        self._stream.close()

    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._sha256.hexdigest()


class _Squashed(Dataset[Tensor]):
    """Decoded images at one size."""

    def __init__(self, images: ImageFiles, size: int) -> None:
        self._images = images
        self._size = size

    def __len__(self) -> int:
        return len(self._images.files)

    def __getitem__(self, index: int) -> Tensor:
        return resize_exact(read(self._images.root / self._images.files[index]), self._size)


class _Undecoded(Dataset[tuple[int, bytes]]):
    """The content of plain JPEGs, with their indices; nothing of other files."""

    def __init__(self, images: ImageFiles) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images.files)

    def __getitem__(self, index: int) -> tuple[int, bytes]:
        content = (self._images.root / self._images.files[index]).read_bytes()
        return index, content if jpeg.is_plain(content, MAX_PIXELS) else b""


def loader(images: ImageFiles, size: int, device: torch.device = CPU) -> Iterable[Tensor]:
    """Batches of decoded images in order, uint8 (B, 3, size, size): this process's share of them.

    Args:
        images: the files.
        size: side of the results, pixels.
        device: where torchcodec decodes, if it is the decoder of the images.
    """
    together = images.decoder == "torchcodec"
    batches: DataLoader[Any] = DataLoader(
        _Undecoded(images) if together else _Squashed(images, size),
        batch_sampler=distributed.share(batch_positions(len(images.files))),
        num_workers=loader_workers(),
        worker_init_fn=prepare_loader_worker,
        collate_fn=list if together else None,
    )
    return _decoded(batches, images, size, device) if together else batches


def batch_positions(count: int) -> list[list[int]]:
    """The positions of the images of each batch."""
    return [list(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH)]


def _decoded(
    batches: Iterable[list[tuple[int, bytes]]], images: ImageFiles, size: int, device: torch.device
) -> Iterator[Tensor]:
    """Batches of images, decoded and resized on a device in this process.

    One of which torchcodec cannot decode an image is decoded on the CPU.
    """
    for batch in batches:
        plain = jpeg.decode_together([content for _, content in batch if content], device)
        queue = iter(plain or [])
        resized = []
        for index, content in batch:
            if content and plain is not None:
                image = next(queue)
            else:
                image = read(images.root / images.files[index]).to(device)
            resized.append(resize_exact(image, size))
        yield torch.stack(resized)
