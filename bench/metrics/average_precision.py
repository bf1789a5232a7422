"""The evaluators: average precision of images and of detections, mean intersection over union.

All functions are pure and need numpy only; anybody's scores, boxes and label maps will do. One
core, `weighted_average_precision`, serves the plain value (every image once) and the bootstrap
(every image as often as it was drawn).
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["area", "11-point", "step"]
Difficult = Literal["ignore", "negative", "positive"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def weighted_average_precision(
    scores: ArrayLike,
    positive: ArrayLike,
    weights: NDArray[np.integer],
    kind: Kind = "area",
    total: ArrayLike | None = None,
) -> Floats:
    """Average precision of one ranking under many integer weightings of its images.

    Precision and recall are taken only at distinct scores, after all images of equal score, so
    the order of tied images never matters. A weight k equals k copies of the image.

    Kinds: "area" is the area under the monotone envelope of precision (VOC2010 devkit, section
    3.4.1; Goyal et al. 2019); "11-point" the mean over recall 0, .1, ..., 1 of the best precision
    at that recall or more (VOC2007 devkit), with recalls compared exactly, as integers; "step" the
    area without an envelope (scikit-learn's `average_precision_score`).

    Args:
        scores: (N,) finite, higher is more positive; of a signed type.
        positive: (N,) true where the image shows the class.
        weights: (B, N) integers >= 0. Fortran order is the fast one.
        kind: how the curve becomes a number.
        total: (B,) weight of all positives where some were not ranked at all, as objects without
            a detection; by default the weight of all of `positive`.

    Returns:
        (B,) values in 0..1; nan where the total is 0.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite, an unknown kind.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, dtype=bool)
    _check_choice("kind", kind, get_args(Kind))
    check_scores(scores)
    if scores.ndim != 1 or positive.shape != scores.shape or weights.shape[1:] != scores.shape:
        shapes = f"scores {scores.shape}, positive {positive.shape}, weights {weights.shape}"
        raise ValueError(f"expected scores (N,), positive (N,), weights (B, N); got {shapes}")
    if not positive.any():
        nothing = np.zeros(len(weights)) if total is None else np.asarray(total)
        return np.where(nothing > 0, 0.0, np.nan)
    precision, hits = _curve(scores, positive, weights)
    recalled = hits.cumsum(axis=0)
    total = recalled[-1] if total is None else np.asarray(total)
    if kind != "step":
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if kind == "11-point":
        # The first threshold of at least that recall; past the last one precision counts as 0.
        reached = [(10 * recalled < step * total).sum(axis=0) for step in range(11)]
        padded = np.vstack([precision, np.zeros_like(precision[:1])])
        value: Floats = np.take_along_axis(padded, np.array(reached), axis=0).mean(axis=0)
    else:
        value = (precision * hits).sum(axis=0) / np.maximum(total, 1)
    return np.where(total > 0, value, np.nan)


def average_precision(scores: ArrayLike, positive: ArrayLike, kind: Kind = "area") -> float:
    """Average precision of one ranking, in 0..1; nan without a positive image.

    The value does not depend on the order of tied images; see `weighted_average_precision` for
    the kinds, the arguments and the errors.
    """
    once = np.ones((1, np.size(scores)), dtype=np.uint8)
    return float(weighted_average_precision(scores, positive, once, kind)[0])


def labels(truth: ArrayLike, difficult: Difficult = "ignore") -> tuple[Bools, Bools]:
    """Split VOC image labels into what is positive and what counts at all.

    Args:
        truth: (N, C) of 1 (shows the class), -1 (does not), 0 (only instances marked difficult), as
            in VOC's ImageSets/Main.
        difficult: what a 0 is. "ignore" leaves the image out of that class (VOC; Goyal et al.
            2019 at test time), "negative" is Ericsson et al. 2021, "positive" is for completeness.

    Returns:
        positive (N, C) and counted (N, C), both bool.

    Raises:
        ValueError: a label other than 1, -1, 0, or an unknown choice for `difficult`.
    """
    truth = np.asarray(truth)
    _check_choice("difficult", difficult, get_args(Difficult))
    if not np.isin(truth, (1, -1, 0)).all():
        raise ValueError("truth must hold 1, -1 and 0 only")
    positive = truth >= 0 if difficult == "positive" else truth > 0
    counted = truth != 0 if difficult == "ignore" else np.ones(truth.shape, dtype=bool)
    return positive, counted


def class_average_precisions(
    scores: ArrayLike, truth: ArrayLike, kind: Kind = "area", difficult: Difficult = "ignore"
) -> Floats:
    """Average precision of every class, (C,), each in 0..1 or nan for a class with no positive.

    Args:
        scores: (N, C) finite, of a signed type.
        truth: (N, C) of 1, -1, 0; see `labels`.
        kind: see `weighted_average_precision`.
        difficult: see `labels`.

    Raises:
        ValueError: shapes that differ or are not (N, C), a score that is not finite, a bad label.
    """
    scores, positive, counted = checked(scores, truth, difficult)
    return np.array(
        [
            average_precision(scores[keep, c], positive[keep, c], kind)
            for c, keep in enumerate(counted.T)
        ]
    )


def mean_average_precision(
    scores: ArrayLike, truth: ArrayLike, kind: Kind = "area", difficult: Difficult = "ignore"
) -> float:
    """Mean of `class_average_precisions` over the classes that have a positive image, in 0..1."""
    values = class_average_precisions(scores, truth, kind, difficult)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def mean_average_precisions(scores: ArrayLike, truth: ArrayLike) -> dict[str, float | None]:
    """`mean_average_precision` of every kind and treatment of difficult images, in points 0-100.

    Returns:
        `mAP_KIND_difficult_TREATMENT` -> value; None where no class has a positive image.
    """
    values: dict[str, float | None] = {}
    for kind in get_args(Kind):
        for difficult in get_args(Difficult):
            value = 100 * mean_average_precision(scores, truth, kind, difficult)
            values[f"mAP_{kind}_difficult_{difficult}"] = value if np.isfinite(value) else None
    return values


def checked(
    scores: ArrayLike, truth: ArrayLike, difficult: Difficult
) -> tuple[NDArray[np.floating], Bools, Bools]:
    """Validate an (N, C) problem; return its scores, positive and counted (see `labels`).

    Raises:
        ValueError: shapes that differ or are not (N, C), a score that is not finite, a bad label.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape != np.shape(truth):
        raise ValueError(f"scores {scores.shape} and truth {np.shape(truth)} must be (N, C) alike")
    check_scores(scores)
    return scores, *labels(truth, difficult)


def _curve(
    scores: NDArray[np.floating], positive: Bools, weights: NDArray[np.integer]
) -> tuple[Floats, NDArray[np.int64]]:
    """Precision at, and positives gained since the last of, T thresholds: both (T, B).

    Thresholds that gain no positive are left out: they can only lower precision and add no recall,
    so no kind of average precision sees them. This is what makes the bootstrap fast.
    """
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    drawn = weights.T[order]  # (N, B)
    hit = np.flatnonzero(positive)
    ends = np.unique(np.searchsorted(-scores, -scores[hit], side="right"))
    starts = np.concatenate([[0], ends[:-1]])
    seen = np.add.reduceat(drawn[: ends[-1]], starts, axis=0, dtype=np.int64).cumsum(axis=0)
    hits = np.add.reduceat(drawn[hit], np.searchsorted(hit, starts), axis=0, dtype=np.int64)
    return hits.cumsum(axis=0) / np.maximum(seen, 1), hits


def check_scores(scores: NDArray[np.floating]) -> None:
    """Refuse scores that are not finite.

    Raises:
        ValueError: one is not; names the first.
    """
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        raise ValueError(f"{len(bad)} scores are not finite, the first at {tuple(bad[0].tolist())}")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
