"""Main scores on every resample of the test images, cached by content."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.errors import UserError
from bench.metrics import registry
from bench.metrics.average_precision import Floats
from bench.metrics.registry import Metric
from bench.metrics.resampled import Weights, resampling_weights
from bench.results import storage
from bench.results.record import Record
from bench.runtime.files import read_cached, write_cached
from bench.runtime.fingerprint import code_digest, digest, file_digest
from bench.runtime.pool import fresh_processes
from bench.statistics import resampling

RESAMPLES = 1000  # of the test images; percentile ends move by about 3% of the width
SEED = 0
WORTHWHILE = 50  # records to resample, from which on starting processes saves time
STAGES = "stage_scores"  # array of predictions with the scores of every stage, (S, N, C)
EXACT = 1e-6  # points by which a value may differ when it is computed again elsewhere

Records = Mapping[Path, Record]


@dataclass(frozen=True)
class Resampled:
    """The main score of one record, whole and resampled.

    Attributes:
        num_images: how many images its predictions are of.
        values: (1 + RESAMPLES,) in points, that of all images first; None without the metric.
        reason: why there are no values.
        per_class: the score of every class that has something to score, in points.
        per_stage: the score of every stage of the encoder, in points; empty where the predictions
            are of one stage.
        truth: digest of the images' names, the classes and the ground truth; empty without the
            metric.
    """

    num_images: int
    values: Floats | None
    reason: str = ""
    per_class: Mapping[str, float] = field(default_factory=dict)
    per_stage: Sequence[float] = ()
    truth: str = ""


def resampled_scores(path: Path, record: Record, cache: Path | None) -> Resampled:
    """The main score of a scored record on all test images and on every resample.

    Args:
        path: of the record.
        record: the record.
        cache: where resampled scores are kept; None computes them.

    Raises:
        UserError: the predictions are missing or were changed, cannot be scored, or give another
            value than the record has.
    """
    file = storage.predictions_file(path, record)
    metric, reason = find_metric(record.metric)
    if metric is None:
        return Resampled(_num_images(file), None, reason)
    kept = _file(record, metric, cache) if cache else None
    resampled = _load(kept) if kept else None
    if resampled is None or resampled.values is None or not _near(record, resampled.values[0]):
        resampled = _compute(file, metric)
        if kept:
            _keep(kept, resampled)
    value = resampled.values[0] if resampled.values is not None else np.nan
    if not _near(record, value):
        raise UserError(
            f"{path}: value {record.value}, but its predictions give {value:.4f}; "
            "delete it and run again"
        )
    _check_parts(path, record, resampled)
    return resampled


def _check_parts(path: Path, record: Record, resampled: Resampled) -> None:
    """Refuse scores of classes or stages that are not those of the predictions.

    Raises:
        UserError: names the first.
    """
    for name in sorted(record.per_class.keys() | resampled.per_class.keys()):
        own, given = (scores.get(name) for scores in (record.per_class, resampled.per_class))
        if own is None or given is None or abs(own - given) > EXACT:
            raise UserError(
                f"{path}: {_points(own)} of the class '{name}', but its predictions give "
                f"{_points(given)}; delete it and run again"
            )
    stages = record.per_stage if resampled.per_stage else None
    if stages is not None and not (
        len(stages) == len(resampled.per_stage)
        and np.allclose(stages, resampled.per_stage, 0, EXACT)
    ):
        raise UserError(
            f"{path}: its scores of the stages are not those of its predictions; delete it and run "
            "again"
        )


def _points(value: float | None) -> str:
    return "no score" if value is None else f"{value:.4f}"


def all_resampled_scores(
    records: Records, cache: Path | None
) -> tuple[dict[Path, Resampled], dict[Path, UserError]]:
    """`resampled_scores` of every scored record, on all processors where there is much to do.

    Returns:
        The scores, and of the other records the reason why they cannot be used.
    """
    scored = {path: record for path, record in records.items() if record.status == "ok"}
    elsewhere = {path: r for path, r in scored.items() if _costs(r, cache)}
    if len(elsewhere) < WORTHWHILE:
        elsewhere = {}
    outcomes = {p: _attempt(p, r, cache) for p, r in scored.items() if p not in elsewhere}
    if elsewhere:
        # Of a thread each: numpy's own would wait for the other processes.
        with fresh_processes(os.cpu_count() or 1, threadpool_limits, (1,)) as pool:
            arguments = (elsewhere, elsewhere.values(), repeat(cache))
            computed = pool.map(_attempt, *arguments, chunksize=4)
            outcomes |= dict(zip(elsewhere, computed, strict=True))
    scores = {p: outcomes[p] for p in scored}
    return (
        {p: outcome for p, outcome in scores.items() if isinstance(outcome, Resampled)},
        {p: outcome for p, outcome in scores.items() if isinstance(outcome, UserError)},
    )


def _attempt(path: Path, record: Record, cache: Path | None) -> Resampled | UserError:
    try:
        return resampled_scores(path, record, cache)
    except UserError as error:
        return error


def _costs(record: Record, cache: Path | None) -> bool:
    """Whether a record is worth another process: one that knows the metric, and no kept scores."""
    metric, _ = find_metric(record.metric)
    if metric is None or not _ships(metric):
        return False
    kept = _file(record, metric, cache) if cache else None
    return kept is None or not os.access(kept, os.R_OK)


def find_metric(name: str) -> tuple[Metric | None, str]:
    """A metric by name; without it, None and the reason."""
    try:
        metric = registry.find(name)
    except Exception as error:  # whatever the module of an installed package raises
        return None, f"metric '{name}' cannot be loaded ({_one_line(error)})"
    return metric, "" if metric else f"metric '{name}' is not installed"


def _compute(file: Path, metric: Metric) -> Resampled:
    """The scores from the predictions in a file.

    Raises:
        UserError: the metric cannot score them.
    """
    try:
        predictions = storage.load_arrays(file, {"ids", STAGES, *metric.arrays})
        num_images = len(predictions["ids"])
        values = registry.resampled_values(metric, predictions, weights(num_images))
        if values.shape != (1 + RESAMPLES,):
            raise ValueError(f"values of shape {values.shape}, not {(1 + RESAMPLES,)}")
        if not np.isfinite(values[1:]).any():
            raise ValueError("no half of the images has a score")
        per_class = registry.per_class(metric, predictions)
        stages = predictions.get(STAGES, ()) if "scores" in metric.arrays else ()
        per_stage = [registry.value(metric, {**predictions, "scores": own}) for own in stages]
        names = np.array(metric.classes(predictions))
        truth = _content([predictions["ids"], names, *metric.ground_truth(predictions)])
    except Exception as error:  # whatever a damaged file or somebody's metric raises
        problem = f"cannot be scored by '{metric.name}' ({_one_line(error)})"
        raise UserError(f"{file}: {problem}; delete it and run again") from error
    return Resampled(num_images, values, "", per_class, per_stage, truth)


def _content(arrays: Sequence[NDArray[Any]]) -> str:
    """SHA-256 of arrays: the same for equal values, of whatever number of bits."""
    found = hashlib.sha256()
    for array in map(np.asarray, arrays):
        numbers = array.dtype.kind in "biuf"
        values = (array.astype(float) + 0.0).tobytes() if numbers else repr(array.tolist()).encode()
        found.update(f"{array.shape} {len(values)} ".encode() + values)
    return found.hexdigest()


def _num_images(file: Path) -> int:
    """Number of images in the predictions of an unknown metric; 0 if they do not say.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return len(storage.load_arrays(file, {"ids"}).get("ids", ()))
    except Exception as error:  # in whatever way zip and npy readers fail on a damaged file
        problem = f"cannot be read ({_one_line(error)})"
        raise UserError(f"{file}: {problem}; delete it and run again") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _near(record: Record, value: float) -> bool:
    return record.value is not None and abs(record.value - value) <= EXACT


@lru_cache(maxsize=2)
def weights(num_images: int, seed: int = SEED) -> Weights:
    """Weights of the images: once each, then in every resample, (num_images, 1 + RESAMPLES)."""
    counts = resampling.resamples(num_images, RESAMPLES, seed)
    return resampling_weights(np.concatenate([np.ones_like(counts[:1]), counts]))


@lru_cache(maxsize=1)
def _code() -> str:
    """Digest of the packages that compute resampled scores."""
    folders = (Path(__file__).parent, Path(registry.__file__).parent)
    return code_digest(sorted(file for folder in folders for file in folder.glob("*.py")))


def _ships(metric: Metric) -> bool:
    return any(metric is shipped for shipped in registry.SHIPPED)


def _file(record: Record, metric: Metric, cache: Path) -> Path | None:
    """The file of a record's resampled scores in the cache; None of a metric without a file."""
    own_code = ""
    if not _ships(metric):
        try:
            own_code = file_digest(Path(inspect.getfile(type(metric))))
        except (OSError, TypeError):
            return None
    predictions = record.predictions.sha256 if record.predictions else ""
    content = [predictions, record.metric, own_code, RESAMPLES, SEED, _code()]
    return cache / "resampled" / f"{digest(content)[:32]}.npz"


def _load(kept: Path) -> Resampled | None:
    """Cached arrays; None if there are none, or none that are whole."""
    content = read_cached(kept)
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        num_images = int(archive["images"])
        values = archive["values"]
        per_class = dict(
            zip(archive["classes"].tolist(), archive["class_values"].tolist(), strict=True)
        )
        per_stage = archive["stage_values"].tolist()
        truth = str(archive["truth"])
    if values.shape != (1 + RESAMPLES,):
        return None
    return Resampled(num_images, values, "", per_class, per_stage, truth)


def _keep(kept: Path, resampled: Resampled) -> None:
    assert resampled.values is not None
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=np.array(resampled.num_images),
        values=resampled.values,
        classes=np.array(list(resampled.per_class), str),
        class_values=np.array(list(resampled.per_class.values())),
        stage_values=np.array(resampled.per_stage),
        truth=np.array(resampled.truth),
    )
    with suppress(OSError):  # a full or read-only cache only costs time
        write_cached(kept, buffer.getvalue())
