"""How much faster the frozen probes are than scikit-learn's, on features of one pass.

    python benchmarks/probes.py          # 1,000 + 1,000 images of 10 classes; a minute or two
    python benchmarks/probes.py --full   # VOC07: 5,011 + 4,952 images of 20 classes, five stages

Features are those of benchmarks/probe.py, synthetic and seeded; each stage has the same. The peers:
LinearSVC, one SVM after another; KNeighborsClassifier with a callable for weights;
LogisticRegression at one regularization, to its minimum: other weights than those after some epochs
of SGD, so that the agreement, of accuracies, is no claim.
A peer solves a part of the problems, and its time is scaled up. Exit status 1 if all probes of a
pass take more than two minutes, or a peer disagrees.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from probe import FOLDS, Data, note, svc, synthetic
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from bench.config import loader
from bench.evaluation.probes import linear_svm, low_shot, nearest, softmax_regression

MAX_SECONDS = 120.0  # of all probes of a pass
AGREEMENT = 0.98  # correlation of scores, share of equal predictions, or 1 - their difference
SAMPLES = 5
NEIGHBORS = (10, 20, 100, 200)
TEMPERATURE = 0.07
EPOCHS, BATCH, WEIGHT_DECAY = 30, 64, 1e-4

Floats = NDArray[np.floating]
T = TypeVar("T")


@dataclass
class Optimization:
    """How `imagenet_linear` trains."""

    epochs: int = EPOCHS
    batch: int = BATCH
    weight_decay: float = WEIGHT_DECAY
    milestones: tuple[float, ...] = (0.6, 0.8)
    learning_rates: tuple[float, ...] = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Timed:
    """What one probe takes for one stage, and its peer for the same work."""

    name: str
    seconds: float
    peer: float
    agreement: float


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """The result of a function, and its seconds."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def tensors(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of both splits."""
    return torch.from_numpy(data.train), torch.from_numpy(data.test)


def voc_cls(data: Data, costs: Sequence[float]) -> Timed:
    """The SVMs of every class, cost and fold."""
    train, test = tensors(data)
    scores, seconds = timed(
        lambda: linear_svm.fit(train, data.train_labels, test, costs, FOLDS).scores
    )
    cost = costs[len(costs) // 2]
    expected, one = timed(
        lambda: svc(cost, data.train, data.train_labels[:, 0]).decision_function(data.test)
    )
    agreement = np.corrcoef(scores[0, len(costs) // 2], expected)[0, 1]
    problems = data.train_labels.shape[1] * len(costs) * (FOLDS + 1)
    return Timed("voc_cls", seconds, one * problems, float(agreement))


def voc_lowshot(data: Data, costs: Sequence[float], shots: Sequence[int]) -> Timed:
    """The SVMs of every class, sample, cost and number of positive images."""
    labels = data.train_labels
    classes = range(labels.shape[1])
    products, seconds = timed(lambda: low_shot.Products(*tensors(data)))
    peer, agreement = 0.0, 1.0
    for k in shots:
        rows = np.concatenate(
            [low_shot.draw(labels, classes, k, len(classes) - 1, s) for s in range(SAMPLES)]
        )
        fits, own = timed(partial(low_shot.fit, products, rows, k, costs))
        seconds += own
        y = np.where(np.arange(rows.shape[1]) < k, 1, -1).astype(np.int8)
        for place, cost in enumerate(costs):
            svm, one = timed(partial(svc, cost, data.train[rows[0]], y))
            expected = svm.decision_function(data.test)
            peer += one * len(rows)
            found = fits.scores[0, place, len(labels) :]
            agreement = min(agreement, float(np.corrcoef(found, expected)[0, 1]))
        note(f"voc_lowshot: k = {k} of {shots[-1]}, {own:.1f} s")
    return Timed("voc_lowshot", seconds, peer, agreement)


def knn(data: Data) -> Timed:
    """The vote of neighbors, for the selection of k and for the test split."""
    train, test = tensors(data)
    label = data.train_labels.argmax(1)
    codes = np.where(label[:, None] == np.arange(data.train_labels.shape[1]), 1, -1)
    arguments = (train, codes.astype(np.int8), NEIGHBORS, TEMPERATURE)

    def both() -> Floats:
        nearest.vote(train, *arguments, np.arange(len(train)))
        return nearest.vote(test, *arguments)

    shares, seconds = timed(both)

    def weights(distances: Floats) -> Floats:
        return np.exp((1 - distances**2 / 2) / TEMPERATURE)

    found, one = timed(
        lambda: (
            KNeighborsClassifier(NEIGHBORS[0], weights=weights, algorithm="brute")
            .fit(data.train, label)
            .predict(data.test)
        )
    )
    agreement = float((found == shares[0].argmax(1)).mean())
    return Timed("knn", seconds, one * 2 * len(NEIGHBORS), agreement)


def imagenet_linear(data: Data) -> Timed:
    """Softmax regression at three rates, for the selection and on the whole split."""
    label = data.train_labels.argmax(1)
    rows, classes = np.arange(len(label)), data.train_labels.shape[1]
    how = Optimization()

    def both() -> NDArray[np.int64]:
        for _ in range(2):
            scale = softmax_regression.scale_of(data.train, rows, data.train.shape[1])
            weights = softmax_regression.fit(
                data.train, label, rows, classes, how, scale, 0, torch.device("cpu")
            )
        best = softmax_regression.best_classes(
            data.test, np.arange(len(data.test)), weights, scale, 1
        )
        return best[1, :, 0]

    predicted, seconds = timed(both)
    mean, deviation = data.train.mean(0), data.train.std(0)
    train, test = ((split - mean) / deviation for split in (data.train, data.test))
    peer = LogisticRegression(C=1 / (len(train) * WEIGHT_DECAY), max_iter=1000)
    expected, one = timed(lambda: peer.fit(train, label).predict(test))
    true = data.test_labels.argmax(1)
    agreement = 1 - abs(float((predicted == true).mean() - (expected == true).mean()))
    return Timed("imagenet_linear", seconds, one * 2 * len(how.learning_rates), agreement)


def main() -> int:
    """Run all, print seconds, ratios and agreement; 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="VOC07's size and costs")
    parser.add_argument("--stages", type=int, default=5, help="whose time is summed")
    options = parser.parse_args()
    tasks = loader.load("voc" if options.full else "mini").tasks
    data = synthetic(20) if options.full else synthetic(10, 1000, 1000)
    shots = (1, 2, 4, 8, 16, 32, 64, 96) if options.full else tasks["voc_lowshot"]["shots"]
    probes = [
        voc_cls(data, tasks["voc_cls"]["costs"]),
        voc_lowshot(data, tasks["voc_lowshot"]["costs"], shots),
        imagenet_linear(data),
    ]
    total = options.stages * sum(each.seconds for each in probes)
    probes.append(knn(data))
    total += probes[-1].seconds  # of the last stage alone
    for each in probes:
        print(
            f"{each.name:16} {each.seconds:7.2f} s a stage; scikit-learn {each.peer:8.1f} s, "
            f"ratio {each.peer / each.seconds:6.1f}; agreement {each.agreement:.3f}"
        )
    print(f"all of {options.stages} stages {total:.0f} s (target: at most {MAX_SECONDS:.0f})")
    equal = [each.agreement for each in probes if each.name != "imagenet_linear"]
    return int(total > MAX_SECONDS or min(equal) < AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
