"""How much faster the batched probe is than scikit-learn's LinearSVC, at the same accuracy.

    python benchmarks/probe.py                    # the whole sweep; the peer takes ten minutes
    python benchmarks/probe.py --peer-classes 1   # the peer on one class, its time scaled up

The work is VISSL's sweep for VOC07: 20 classes x 11 costs x (3 folds + refit) = 880 SVMs on 5,011
x 2,048 features. Features are synthetic (seeded): rectified, low-rank plus noise, with the class
frequencies of VOC07. Exit status 1 if a claim below does not hold.
"""

import argparse
import sys
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from bench.evaluation.probes import linear_svm
from bench.metrics import average_precision, class_average_precisions

COSTS = (0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000)  # VISSL's VOC07 linear SVM configuration
FOLDS = 3
MIN_RATIO = 15.0
MAX_AP_DIFFERENCE = 0.005


class Data(NamedTuple):
    """Features of length 1 and labels (1, -1) of the training and the test images."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int8]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int8]


def synthetic(classes: int, n_train: int = 5011, n_test: int = 4952, dim: int = 2048) -> Data:
    """Non-negative features with a decaying spectrum, on which the probe reaches mAP 0.8 to 0.9.

    The scatter's eigenvalues 1 to 600 are within a factor of two of those of EfficientNet-Lite0's
    pooled features of VOC images (0.29, 0.046, ... 0.0014 the 100th, 0.00012 the 600th).
    """
    rng = np.random.default_rng(0)
    n, rank = n_train + n_test, 300
    frequency = rng.uniform(0.04, 0.09, 20)
    frequency[14] = 0.4  # "person"
    truth = rng.random((n, 20)) < frequency
    directions = rng.normal(size=(20, rank))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strength = 0.6 * rng.gamma(2, 0.5, size=(n, 1))  # some images show their objects clearly
    latent = rng.normal(size=(n, rank)) / np.sqrt(np.arange(1, rank + 1))
    latent += strength * (truth @ directions)
    noise = 0.5 * rng.normal(size=(n, dim))
    raw = np.maximum(latent @ rng.normal(size=(rank, dim)) - 0.5 + noise, 0)
    features = linear_svm.normalize(torch.from_numpy(raw.astype(np.float32))).numpy()
    labels = np.where(truth, 1, -1).astype(np.int8)[:, :classes]
    return Data(features[:n_train], labels[:n_train], features[n_train:], labels[n_train:])


def ours(data: Data, device: str) -> NDArray[np.float64]:
    """Test average precision of every class, (C,), at the cost the probe chose."""
    train, test = torch.from_numpy(data.train).to(device), torch.from_numpy(data.test)
    count = 0

    def advance(solved: int) -> None:
        nonlocal count
        count += solved
        note(f"ours: {count} SVMs")

    result = linear_svm.fit(train, data.train_labels, test, COSTS, FOLDS, advance=advance)
    note(f"ours: {result.unconverged} of {result.problems} not converged")
    scores = [result.scores[c, k] for c, k in enumerate(result.selected)]
    return class_average_precisions(np.array(scores).T, data.test_labels)


def peer(data: Data, classes: int) -> NDArray[np.float64]:
    """The same with LinearSVC, one SVM after another, for the first classes."""
    values = []
    for c in range(classes):
        y, cv = data.train_labels[:, c], np.zeros(len(COSTS))
        for k, cost in enumerate(COSTS):
            for rows, held in StratifiedKFold(FOLDS).split(y, y):
                scores = svc(cost, data.train[rows], y[rows]).decision_function(data.train[held])
                cv[k] += average_precision(scores, y[held] == 1) / FOLDS
            note(f"peer: class {c + 1} of {classes}, cost {cost}, validation AP {cv[k]:.4f}")
        finals = [svc(cost, data.train, y).decision_function(data.test) for cost in COSTS]
        test = average_precision(finals[int(cv.argmax())], data.test_labels[:, c] == 1)
        values.append(test)
    return np.array(values)


def svc(cost: float, features: NDArray[np.float32], y: NDArray[np.int8]) -> LinearSVC:
    """One SVM with the settings of Goyal et al. 2019."""
    settings = {"class_weight": {1: 2, -1: 1}, "dual": True, "tol": 1e-4, "max_iter": 2000}
    return LinearSVC(C=cost, random_state=0, **settings).fit(features, y)


def note(text: str) -> None:
    """Say on stderr how far the run is."""
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run both, print seconds, ratio and agreement; 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=20, choices=range(1, 21), metavar="N")
    parser.add_argument("--peer-classes", type=int, default=20, choices=range(1, 21), metavar="N")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    peer_classes = min(options.peer_classes, options.classes)
    data = synthetic(options.classes)
    start = time.perf_counter()
    values = ours(data, options.device)
    seconds = time.perf_counter() - start
    note(f"ours: {seconds:.1f} s, mAP {values.mean():.4f}")
    start = time.perf_counter()
    expected = peer(data, peer_classes)
    per_class = (time.perf_counter() - start) / peer_classes
    ratio = per_class * options.classes / seconds
    difference = float(np.abs(values[:peer_classes] - expected).max())
    svms = options.classes * len(COSTS) * (FOLDS + 1)
    print(f"SVMs           {svms} on {options.device}, mAP {values.mean():.4f}")
    print(f"ours           {seconds:.1f} s")
    print(f"LinearSVC      {per_class * options.classes:.1f} s (measured: {peer_classes} classes)")
    print(f"ratio          {ratio:.1f} (claim: at least {MIN_RATIO:g})")
    print(f"AP difference  {difference:.4f} (claim: at most {MAX_AP_DIFFERENCE:g})")
    return int(ratio < MIN_RATIO or difference > MAX_AP_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
