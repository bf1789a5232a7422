"""The evaluators of image scores: average precision of one class, of each, and the mean.

All functions are pure and need numpy only; anybody's scores and labels will do, tensors included.
What an argument may hold is checked (`metrics.checks`), and anything else is a ValueError of one
line. One core serves the plain value (every image once) and the bootstrap (every image as often as
it was drawn).
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import checks
from bench.metrics.checks import NothingToScoreError

Kind = Literal["area", "11-point", "11-point-exact", "step"]
Difficult = Literal["ignore", "negative", "positive"]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
KINDS: tuple[Kind, ...] = ("area", "11-point", "step")  # those of the literature
# Recalls of 11-point average precision, as released evaluators write them (voc_eval.py of
# py-faster-rcnn, pascal_voc_evaluation.py of detectron2), and the same in exact tenths.
ELEVEN = np.arange(0.0, 1.1, 0.1)
TENTHS = np.arange(11)
LATE = np.flatnonzero(TENTHS / 10 < ELEVEN).tolist()  # 3, 6, 7: rounding puts them above the tenth


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
    at that recall or more (VOC2007 devkit). There recalls are floats, and so are the eleven:
    `ELEVEN`, of which three are above their tenth, so that a recall of exactly .3, .6 or .7 does
    not reach them (the devkit's Matlab, 0:0.1:1, is a matter of its own rounding).
    "11-point-exact" compares integers instead. "step" is the area without an envelope
    (scikit-learn's `average_precision_score`).

    Args:
        scores: (N,) finite, higher is more positive; floats, or integers of at most 2^53.
        positive: (N,) true, or 1, where the image shows the class; false, or 0, where it does not.
        weights: (B, N) integers >= 0. Fortran order is the fast one.
        kind: how the curve becomes a number.
        total: (B,) weight of all positives where some were not ranked at all, as objects without
            a detection; by default the weight of all of `positive`.

    Returns:
        (B,) values in 0..1; nan marks a weighting whose total is 0.

    Raises:
        ValueError: shapes that do not fit, a score that is not finite or no number, a `positive`
            that is neither true nor false, a weight that is no count, a total below the weight of
            the positives ranked, or an unknown kind.
    """
    checks.choice("kind", kind, get_args(Kind))
    scores = checks.scores("scores", scores, "(N,)")
    positive = checks.flags("positive", positive, "(N,)")
    weights = checks.array("weights", weights)
    if positive.shape != scores.shape or weights.ndim != 2 or weights.shape[1:] != scores.shape:
        shapes = f"scores {scores.shape}, positive {positive.shape}, weights {weights.shape}"
        raise ValueError(f"expected scores (N,), positive (N,), weights (B, N); got {shapes}")
    if weights.dtype.kind not in "iu" or (weights.size and weights.min() < 0):
        raise ValueError("weights must be integers of at least 0, how often each image counts")
    if total is None:
        return _precisions(scores, positive, weights, kind)
    total = checks.counts("total", total, "(B,)")
    if total.shape != weights.shape[:1]:
        raise ValueError(f"total {total.shape} must be (B,), weights are {weights.shape}")
    if (total < weights[:, positive].sum(axis=1)).any():
        raise ValueError("total is less than the weight of the positives that were ranked")
    return _precisions(scores, positive, weights, kind, total)


def _precisions(
    scores: NDArray[np.floating],
    positive: Bools,
    weights: NDArray[np.integer] | None,
    kind: Kind,
    total: Floats | None = None,
) -> Floats:
    """`weighted_average_precision` of arguments that were checked; no weights: each image once."""
    if not positive.any():
        nothing = np.zeros(1 if weights is None else len(weights)) if total is None else total
        return np.where(nothing > 0, 0.0, np.nan)
    precision, hits = _curve(scores, positive, weights)
    recalled = hits.cumsum(axis=0)
    every = recalled[-1] if total is None else total
    if kind != "step":
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    if kind in ("11-point", "11-point-exact"):
        # The first threshold of at least that recall; past the last one precision counts as 0.
        columns = zip(recalled.T, np.maximum(every, 1), strict=True)
        reached = [
            np.searchsorted(own / whole, ELEVEN)
            if kind == "11-point"
            else np.searchsorted(10 * own, whole * TENTHS)
            for own, whole in columns
        ]
        padded = np.concatenate([precision, np.zeros_like(precision[:1])])
        value: Floats = padded[np.stack(reached, axis=1), np.arange(len(reached))].mean(axis=0)
    else:
        value = (precision * hits).sum(axis=0) / np.maximum(every, 1)
    return np.where(every > 0, value, np.nan)


def average_precision(scores: ArrayLike, positive: ArrayLike, kind: Kind = "area") -> float:
    """Average precision of one ranking, in 0..1.

    The value does not depend on the order of tied images; see `weighted_average_precision` for
    the kinds.

    Args:
        scores: (N,) finite, higher is more positive; floats, or integers of at most 2^53.
        positive: (N,) true, or 1, where the image shows the class; false, or 0, where it does not.
            VOC's -1 is refused: pass `labels == 1`.
        kind: how the curve becomes a number.

    Raises:
        NothingToScoreError: no image is positive; a ValueError too.
        ValueError: shapes that do not fit, a score that is not finite or no number, a `positive`
            that is neither true nor false, or an unknown kind.
    """
    checks.choice("kind", kind, get_args(Kind))
    scores = checks.scores("scores", scores, "(N,)")
    positive = checks.flags("positive", positive, "(N,)")
    checks.alike(scores=scores, positive=positive)
    value = float(_precisions(scores, positive, None, kind)[0])
    if np.isnan(value):
        count = len(scores)
        raise NothingToScoreError(f"positive has no true value among {count}: nothing to score")
    return value


def labels(truth: ArrayLike, difficult: Difficult = "ignore") -> tuple[Bools, Bools]:
    """Split VOC image labels into what is positive and what counts at all.

    A truth of 1 and 0 without any -1 is read as a mistake: its zeros are most likely negatives,
    which would not count, and every class would score 1. One -1 anywhere shows that the codes are
    VOC's, and then 0 is difficult. Where zeros are negatives anyway ("negative"), or nothing is
    positive, all readings agree and none is refused.

    Args:
        truth: (N, C) of 1 (shows the class), -1 (does not), 0 (only instances marked difficult), as
            in VOC's ImageSets/Main; any numeric type but booleans.
        difficult: what a 0 is. "ignore" leaves the image out of that class (VOC; Goyal et al.
            2019 at test time), "negative" is Ericsson et al. 2021, "positive" is for completeness.

    Returns:
        positive (N, C) and counted (N, C), both bool.

    Raises:
        ValueError: a label other than 1, -1, 0, booleans, 1 and 0 without any -1, or an unknown
            choice for `difficult`.
    """
    checks.choice("difficult", difficult, get_args(Difficult))
    codes = checks.codes("truth", truth)
    positive = codes >= 0 if difficult == "positive" else codes > 0
    counted = codes != 0 if difficult == "ignore" else np.ones(codes.shape, dtype=bool)
    if difficult != "negative" and positive.any() and (codes == 0).any() and codes.min() == 0:
        raise ValueError(
            "truth holds 1 and 0 but no -1, and 0 means difficult; if its zeros are negatives pass "
            "2 * truth - 1"
        )
    return positive, counted


def class_average_precisions(
    scores: ArrayLike, truth: ArrayLike, kind: Kind = "area", difficult: Difficult = "ignore"
) -> Floats:
    """Average precision of every class, (C,), each in 0..1.

    Args:
        scores: (N, C) finite, higher is more positive; floats, or integers of at most 2^53.
        truth: (N, C) of 1, -1, 0; see `labels`.
        kind: see `weighted_average_precision`.
        difficult: see `labels`.

    Returns:
        A masked array where some classes have no positive image, which are masked.

    Raises:
        ValueError: shapes that differ or are not (N, C), a score that is not finite or no number,
            a bad label, or an unknown kind.
    """
    return checks.masked(_class_precisions(scores, truth, kind, difficult))


def _class_precisions(
    scores: ArrayLike, truth: ArrayLike, kind: Kind, difficult: Difficult
) -> Floats:
    """`class_average_precisions`, with nan for a class without a positive image."""
    checks.choice("kind", kind, get_args(Kind))
    scores, positive, counted = checked(scores, truth, difficult)
    # A class at a time is read from beginning to end.
    columns = zip(np.array(scores.T), np.array(positive.T), np.array(counted.T), strict=True)
    kept = ((own, hits) if keep.all() else (own[keep], hits[keep]) for own, hits, keep in columns)
    return np.array([_precisions(own, hits, None, kind)[0] for own, hits in kept])


def mean_average_precision(
    scores: ArrayLike, truth: ArrayLike, kind: Kind = "area", difficult: Difficult = "ignore"
) -> float:
    """Mean of `class_average_precisions` over the classes that have a positive image, in 0..1.

    The arguments and errors are those of `class_average_precisions`.

    Raises:
        NothingToScoreError: no class has a positive image; a ValueError too.
    """
    values = _class_precisions(scores, truth, kind, difficult)
    if not np.isfinite(values).any():
        shape = checks.array("truth", truth).shape
        raise NothingToScoreError(f"truth {shape} has no positive image in any class")
    return float(np.nanmean(values))


def mean_average_precisions(scores: ArrayLike, truth: ArrayLike) -> dict[str, float | None]:
    """`mean_average_precision` of `KINDS` and every treatment of difficult images, in points.

    The arguments and errors are those of `class_average_precisions`.

    Returns:
        `mAP_KIND_difficult_TREATMENT` -> value; None where no class has a positive image.
    """
    values: dict[str, float | None] = {}
    for kind in KINDS:
        for difficult in get_args(Difficult):
            name = f"mAP_{kind}_difficult_{difficult}"
            try:
                values[name] = 100 * mean_average_precision(scores, truth, kind, difficult)
            except NothingToScoreError:
                values[name] = None
    return values


def checked(
    scores: Any, truth: Any, difficult: Difficult
) -> tuple[NDArray[np.floating], Bools, Bools]:
    """Validate an (N, C) problem; return its scores, positive and counted (see `labels`).

    Raises:
        ValueError: shapes that differ or are not (N, C), no image or class, a score that is not
            finite or no number, or a bad label.
    """
    shapes = [checks.array(n, v).shape for n, v in (("scores", scores), ("truth", truth))]
    if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise ValueError(f"scores {shapes[0]} and truth {shapes[1]} must be (N, C) alike")
    if 0 in shapes[0]:
        raise ValueError(f"scores {shapes[0]} must be (N, C) of at least one image and class")
    return checks.scores("scores", scores, "(N, C)"), *labels(truth, difficult)


def _curve(
    scores: NDArray[np.floating], positive: Bools, weights: NDArray[np.integer] | None
) -> tuple[Floats, NDArray[np.int64]]:
    """Precision at, and positives gained since the last of, T thresholds: both (T, B).

    Thresholds that gain no positive are left out: they can only lower precision and add no recall,
    so no kind of average precision sees them. This is what makes the bootstrap fast.
    """
    descending = -scores
    order = np.argsort(descending, kind="stable")
    descending = descending[order]
    hit = np.flatnonzero(positive[order])
    ends = np.searchsorted(descending, descending[hit], side="right")
    ends = ends[np.append(ends[1:] > ends[:-1], True)]
    if weights is None:
        gained = np.searchsorted(hit, ends)[:, None]
        return gained / ends[:, None], np.diff(gained, axis=0, prepend=0)
    drawn = weights.T[order]  # (N, B)
    starts = np.concatenate([[0], ends[:-1]])
    seen = np.add.reduceat(drawn[: ends[-1]], starts, axis=0, dtype=np.int64).cumsum(axis=0)
    hits = np.add.reduceat(drawn[hit], np.searchsorted(hit, starts), axis=0, dtype=np.int64)
    return hits.cumsum(axis=0) / np.maximum(seen, 1), hits
