"""What the resamples of a record's predictions give, kept in the cache by content."""

from __future__ import annotations

import io
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import repeat
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from bench.errors import UserError
from bench.metrics import average_precision, detection, resampled
from bench.metrics.average_precision import Floats
from bench.results import storage
from bench.results.record import Record
from bench.runtime.fingerprint import code_digest, digest
from bench.statistics import resampling

RESAMPLES = 1000  # of the test images; percentile ends move by about 3 % of the width
SEED = 0
WORTHWHILE = 50  # records to resample, from which on starting processes saves time
EXACT = 1e-6  # points by which a value may differ when it is computed again elsewhere


def drawn(path: Path, found: Record, cache: Path | None) -> tuple[int, Floats]:
    """How many images a record's predictions are of, and their headline, whole and resampled.

    Args:
        path: of the record.
        found: the record.
        cache: where what the resamples give is kept; None computes it.

    Returns:
        The number of images, and (1 + RESAMPLES,) values in points, the headline first.

    Raises:
        UserError: the predictions are missing or were changed, or give another headline.
    """
    file = storage.predictions_file(path, found)
    kept = cache and _place(found, cache)
    images, values = _load(kept) if kept else (0, np.empty(0))
    if values.shape != (1 + RESAMPLES,) or not _near(found.value, values[0]):
        arrays = storage.load_arrays(file, resampled.READS)
        try:
            images = len(arrays["ids"])
            values = resampled.resampled_scores(arrays, weights(images))
        except (KeyError, ValueError) as error:
            fault = f"cannot be scored ({error}); delete it and run again"
            raise UserError(f"{file}: {fault}") from error
        if kept:
            _keep(kept, images, values)
    if not _near(found.value, values[0]):
        raise UserError(
            f"{path}: says {found.value}, but its predictions give {values[0]:.4f}; "
            "delete it and run again"
        )
    return images, values


def all_drawn(records: Mapping[Path, Record], cache: Path | None) -> dict[Path, tuple[int, Floats]]:
    """`drawn` of every scored record, on all processors where there is much to resample.

    Raises:
        UserError: as `drawn`.
    """
    scored = {path: found for path, found in records.items() if found.status == "ok"}
    missing = [r for r in scored.values() if not cache or not os.access(_place(r, cache), os.R_OK)]
    if len(missing) < WORTHWHILE:
        return {path: drawn(path, found, cache) for path, found in scored.items()}
    # Fresh processes: a forked one inherits locks and threads, torch's among them. Of a thread
    # each: numpy's own would wait for the other processes.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, context, threadpool_limits, (1,)) as pool:
        found = pool.map(drawn, scored, scored.values(), repeat(cache), chunksize=4)
        return dict(zip(scored, found, strict=True))


def _near(value: float | None, again: float) -> bool:
    return value is not None and abs(value - again) <= EXACT


@lru_cache(maxsize=2)
def weights(images: int, seed: int = SEED) -> resampled.Weights:
    """How often each image counts: once, then in every resample, (images, 1 + RESAMPLES)."""
    counts = resampling.resamples(images, RESAMPLES, seed)
    return resampled.resampling_weights(np.concatenate([np.ones_like(counts[:1]), counts]))


@lru_cache(maxsize=1)
def _code() -> str:
    files = (module.__file__ for module in (resampled, detection, average_precision, resampling))
    return code_digest([Path(__file__), *(Path(str(file)) for file in files)])


def _place(found: Record, cache: Path) -> Path:
    """Where what the resamples of a record give is kept."""
    predictions = found.predictions.sha256 if found.predictions else ""
    return cache / "resampled" / f"{digest([predictions, RESAMPLES, SEED, _code()])[:32]}.npz"


def _load(kept: Path) -> tuple[int, Floats]:
    """What was kept; 0 images if there is nothing, or nothing whole (zip has check sums)."""
    try:
        with np.load(kept, allow_pickle=False) as archive:
            return int(archive["images"]), archive["values"]
    except Exception:  # a damaged file of our own, in whatever way zip and npy readers fail on it
        return 0, np.empty(0)


def _keep(kept: Path, images: int, values: Floats) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array(images), values=values)
    partial = kept.with_suffix(f".{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(buffer.getvalue())  # not flushed: what a crash leaves is not read
        partial.replace(kept)
    except OSError:  # a full or read-only cache only costs time
        with suppress(OSError):
            partial.unlink()
