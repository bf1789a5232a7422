"""Classification by linear SVMs on one stage of the frozen network; AP: area below the envelope.

The protocol of Goyal et al. 2019 (section 4 and the released `tools/svm` scripts): every stage is
average-pooled to at most about 9,000 values and L2-normalized; a squared-hinge linear SVM with
positives weighted 2:1 is trained per class, its cost chosen per class by 3-fold cross-validation
on the training list. Images that hold only `difficult` objects of a class count as negatives in
training and are ignored in testing, as in those scripts.

What changed: the stage is chosen by the same cross-validation instead of being the best on the
test list, which that paper reports; folds are scored by the area under the envelope, the metric of
the headline; pooling windows are adaptive (the same grids).
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, get_args

import numpy as np
import torch

from bench.data.voc import usable_classes
from bench.encoders.encoder import Encoder
from bench.evaluation import linear_svm
from bench.evaluation.features import features
from bench.evaluation.task import TaskResult
from bench.metrics.average_precision import (
    Difficult,
    Kind,
    class_average_precisions,
    mean_average_precision,
)
from bench.training.context import Context


class VocCls:
    """Mean average precision (area under the envelope, difficult ignored) of frozen features."""

    reference: ClassVar[str] = "Goyal et al. 2019, https://arxiv.org/abs/1905.01235"
    metric: ClassVar[str] = "mAP"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("voc",)

    def evaluate(self, encoder: Encoder, context: Context) -> TaskResult:
        """Extract, choose and refit on the training list; score the test list."""
        voc, settings = context.voc, context.suite.probe
        source = context.suite.voc
        enough = max(source.min_positives, settings.folds)
        classes, excluded = usable_classes(voc, source.classes, enough)
        labels, truth = (split.truth[:, classes] for split in (voc.train, voc.test))
        started = time.monotonic()
        train = features(encoder, voc.train.images, context, "train")
        test = features(encoder, voc.test.images, context, "test")
        extracted = time.monotonic()
        fits: list[linear_svm.Probe] = []
        ranks: list[float] = []
        problems = len(classes) * len(settings.costs) * (settings.folds + 1)
        with context.reporter.stage("probing", problems * len(train), "fit") as bar:
            for stage_train, stage_test in zip(train, test, strict=True):
                a, b = (
                    linear_svm.normalize(torch.from_numpy(np.array(f)).to(context.device))
                    for f in (stage_train, stage_test)
                )
                if not (a.isfinite().all() and b.isfinite().all()):
                    raise ValueError(f"the features of stage {len(ranks)} are not all finite")
                ranks.append(effective_rank(a))
                fits.append(
                    linear_svm.fit(a, labels, b, settings.costs, settings.folds, advance=bar.advance)
                )
        names = [context.suite.voc.classes[c] for c in classes]
        scores, selection, predictions = _summary(fits, truth, names, settings.costs)
        chosen_rank = ranks[selection["stage"]]
        scores["effective_rank"] = ranks
        scores["excluded_classes"] = excluded
        selection |= {
            "split": context.suite.voc.train,
            "folds": settings.folds,
            "candidates": len(settings.costs) * len(fits),
            "costs": list(settings.costs),
            "problems": sum(fit.problems for fit in fits),
            "unconverged": sum(fit.unconverged for fit in fits),
        }
        predictions["ids"] = np.array(voc.test.ids)
        return TaskResult(
            value=scores["mAP"],
            scores=scores,
            selection=selection,
            predictions=predictions,
            data={"voc_train": voc.train.fingerprint, "voc_test": voc.test.fingerprint},
            timings={"features": extracted - started, "probe": time.monotonic() - extracted},
            flags=["collapsed features"] if chosen_rank < COLLAPSED_RANK else [],
        )


COLLAPSED_RANK = 2.0  # fewer effective directions than this: the features are one point or a line


def effective_rank(features: torch.Tensor) -> float:
    """How many directions the centerd features spread over: exp of the spectrum's entropy.

    Roy and Vetterli 2007 (EUSIPCO), on every n-th row such that fewer than 2,048 are left.
    """
    rows = features[:: max(1, len(features) // 1024)].double()
    values = torch.linalg.svdvals(rows - rows.mean(0))
    share = values[values > 0] / values.sum()
    return float(torch.exp(-(share * share.log()).sum())) if len(share) else 1.0


def _summary(
    fits: list[linear_svm.Probe], truth: np.ndarray, names: list[str], costs: tuple[float, ...]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """TaskResult, selection and predictions from the probes of all stages."""
    index = np.arange(len(names))
    cv = np.array([fit.cv[index, fit.chosen].mean() for fit in fits])
    stage = int(cv.argmax())
    by_stage = np.stack([fit.scores[index, fit.chosen].T for fit in fits])  # (S, N, C)
    chosen = by_stage[stage]
    best = _best_on_test(fits, truth)
    curve = [_points(mean_average_precision(s, truth)) for s in by_stage]
    value = curve[stage]
    scores: dict[str, Any] = {"mAP": value, "stage_mAP": curve}
    scores["stage_cv_mAP"] = [_points(v) for v in cv]
    for kind in get_args(Kind):
        for difficult in get_args(Difficult):
            name = f"mAP_{kind}_difficult_{difficult}"
            scores[name] = _points(mean_average_precision(chosen, truth, kind, difficult))
    per_class = class_average_precisions(chosen, truth)
    scores["per_class"] = dict(zip(names, map(_points, per_class), strict=True))
    best_value = _points(mean_average_precision(best, truth))
    scores["best_on_test"] = best_value
    scores["optimism"] = best_value - value
    picked = [costs[k] for k in fits[stage].chosen]
    selection = {"stage": stage, "cost": dict(zip(names, picked, strict=True))}
    predictions = {"scores": chosen, "truth": truth, "classes": np.array(names)}
    return scores, selection, predictions | {"stage_scores": by_stage, "best_scores": best}


def _best_on_test(fits: list[linear_svm.Probe], truth: np.ndarray) -> np.ndarray:
    """TaskResult (N, C) had stage and costs been chosen on the test list: reported, never used."""
    candidates = []
    for fit in fits:
        table = np.array(
            [class_average_precisions(fit.scores[:, k].T, truth) for k in range(fit.cv.shape[1])]
        )
        best = table.argmax(0)
        index = np.arange(len(best))
        candidates.append((table[best, index].mean(), fit.scores[index, best].T))
    best_scores: np.ndarray = max(candidates, key=lambda pair: float(pair[0]))[1]
    return best_scores


def _points(value: float) -> float:
    """A share as points 0-100."""
    return 100 * float(value)
