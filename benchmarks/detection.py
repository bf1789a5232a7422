"""VOC evaluation of detections against COCO's, by pycocotools, on the same detections.

    python benchmarks/detection.py

5,000 images, 20 classes, 100 detections an image, three objects an image, half of the
detections near an object. Ours is the mean average precision of all classes at one overlap; theirs
is evaluate and accumulate at that overlap alone. Claim: ours is at least three times as fast.
"""

import contextlib
import io
import sys
import time

import numpy as np
from pycocotools.cocoeval import COCOeval

from bench.metrics import registry
from bench.metrics.coco import load

IMAGES, CLASSES, DETECTIONS, OBJECTS, CLAIM = 5000, 20, 100, 3, 3.0


def main() -> int:
    """Make detections, evaluate them twice, compare the times."""
    predictions = make(np.random.default_rng(0))
    started = time.perf_counter()
    ours = registry.value(registry.get("AP50_area"), predictions) / 100
    middle = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth, detections = load(predictions)
        loaded = time.perf_counter()
        evaluation = COCOeval(truth, detections, "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    done = time.perf_counter()
    theirs = evaluation.eval["precision"].mean()
    ratio = (done - loaded) / (middle - started)
    print(f"ours {middle - started:.2f} s (AP {ours:.3f})")
    print(
        f"pycocotools {done - loaded:.2f} s (AP {theirs:.3f}), and {loaded - middle:.2f} s to load"
    )
    print(f"ratio {ratio:.1f} (claim: at least {CLAIM:g})")
    return int(ratio < CLAIM)


def make(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Predictions as `tasks/voc_det.py` saves them."""

    def boxes(count: int) -> np.ndarray:
        corners = rng.integers(1, 400, (count, 2))
        return np.hstack([corners, corners + rng.integers(20, 100, (count, 2))]).astype(np.float32)

    true = boxes(IMAGES * OBJECTS)
    labels = rng.integers(0, CLASSES, len(true))
    image = np.repeat(np.arange(IMAGES), DETECTIONS)
    near = rng.random(len(image)) < 0.5
    target = image * OBJECTS + rng.integers(0, OBJECTS, len(image))
    shifted = true[target] + rng.integers(-8, 9, (len(image), 4))
    box = np.where(near[:, None], shifted, boxes(len(image)))
    label = np.where(near, labels[target], rng.integers(0, CLASSES, len(image)))
    return {
        "ids": np.arange(IMAGES).astype(str),
        "classes": np.arange(CLASSES).astype(str),
        "counted": np.arange(CLASSES),
        "image": image,
        "label": label,
        "score": rng.random(len(image)).astype(np.float32),
        "box": box,
        "true_image": np.repeat(np.arange(IMAGES), OBJECTS),
        "true_class": labels,
        "true_box": true,
        "true_difficult": rng.random(len(true)) < 0.1,
    }


if __name__ == "__main__":
    sys.exit(main())
