"""How long `bench leaderboard` takes on many records: 12 methods x 4 tasks x 5 seeds.

    python benchmarks/leaderboard.py [--keep DIR]    # DIR keeps the records, for a closer look

The records are made up, at the sizes of the tiny suite: 1,283 test images; 20 classes for
classification, about 30 detections an image, confusion matrices of 21 x 21. The time is that of
the command, as a user waits for it. Exit status 1 if the claim below does not hold.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Backbone, ImageFolder, Recipe, Suite, Voc
from bench.encoders.pretraining import Pretraining
from bench.metrics import registry
from bench.results import storage
from bench.results.record import EncoderFacts, Record, Role

METHODS = ("imagenet", "random_init", "supervised", "rotation", "colorization", "split_brain",
           "autoencoder", "bigan", "pix2pix", "cyclegan", "jigsaw", "context_encoder")  # fmt: skip
METRICS = {"voc_cls": "mAP", "voc_cls_finetune": "mAP_step", "voc_det": "AP50", "voc_seg": "mIoU"}
ROLES: dict[str, Role] = {"imagenet": "reference", "random_init": "untrained"}
SEEDS, IMAGES, CLASSES = 5, 1283, 20
MAX_SECONDS = 10.0
NAMES = tuple(f"class {number}" for number in range(CLASSES))

Arrays = dict[str, NDArray[Any]]


def classification(quality: float, rng: np.random.Generator) -> Arrays:
    """Scores of every stage, as `voc_cls` keeps them; 1.5 classes an image."""
    truth = np.where(np.random.default_rng(0).random((IMAGES, CLASSES)) < 0.075, 1, -1)
    stages = (quality * truth + rng.normal(size=(5, *truth.shape))).astype(np.float32)
    return {"scores": stages[-1], "stage_scores": stages, "truth": truth.astype(np.int8)}


def detection(quality: float, rng: np.random.Generator) -> Arrays:
    """2.4 objects and 30 detections an image, a third of them near an object."""
    fixed = np.random.default_rng(0)
    objects, total = int(2.4 * IMAGES), 30 * IMAGES
    corner = fixed.integers(1, 60, size=(objects, 2))
    true_box = np.concatenate([corner, corner + fixed.integers(10, 40, size=(objects, 2))], axis=1)
    true_image, true_class = (
        fixed.integers(IMAGES, size=objects),
        fixed.integers(20, size=objects),
    )
    near = rng.integers(objects, size=total // 3)
    far = total - len(near)
    low, high = rng.integers(1, 50, size=(far, 2)), rng.integers(51, 100, size=(far, 2))
    box = np.concatenate([true_box[near] + rng.normal(0, 3, size=(len(near), 4)), np.c_[low, high]])
    box[:, 2:] = np.maximum(box[:, 2:], box[:, :2] + 1)
    return {
        "image": np.r_[true_image[near], rng.integers(IMAGES, size=far)].astype(np.int32),
        "label": np.r_[true_class[near], rng.integers(CLASSES, size=far)].astype(np.int16),
        "score": (rng.random(total) + quality * (np.arange(total) < len(near))).astype(np.float32),
        "box": box.astype(np.float32),
        "true_image": true_image.astype(np.int32),
        "true_class": true_class.astype(np.int16),
        "true_box": true_box.astype(np.float32),
        "true_difficult": np.random.default_rng(1).random(objects) < 0.1,
        "counted": np.arange(CLASSES),
    }


def segmentation(quality: float, rng: np.random.Generator) -> Arrays:
    """A confusion matrix of each image, 128 x 96 pixels of three classes or so."""
    confusion = rng.poisson(3, size=(IMAGES, 21, 21)) + 0
    diagonal = np.arange(21)
    confusion[:, diagonal, diagonal] += rng.poisson(100 * quality, size=(IMAGES, 21))
    return {"confusion": confusion.astype(np.int32)}


def suite() -> Suite:
    """One that is never run."""
    recipe = Recipe(
        views=1,
        batch=1,
        optimizer="sgd",
        weight_decay=0.0,
        schedule="cosine",
        crop=1,
        crop_scale=(1.0, 1.0),
        learning_rate=1.0,
    )
    voc = Voc(kind="voc", train=("VOC2007/trainval",), test=("VOC2007/test",), classes=NAMES)
    return Suite(
        name="made_up",
        summary="made up",
        seeds=SEEDS,
        backbone=Backbone(name="made up", imagenet="timm"),
        datasets={"pretraining": ImageFolder(kind="image_folder", train="images"), "voc": voc},
        pretraining=recipe,
    )


def make(out: Path) -> None:
    """Write all records below OUT."""
    settings = suite()
    kinds = {"voc_det": detection, "voc_seg": segmentation}
    for task in METRICS:
        for rank, method in enumerate(METHODS):
            for seed in range(SEEDS):
                rng = np.random.default_rng([rank, seed])
                arrays = kinds.get(task, classification)(1.0 - 0.05 * rank, rng)
                arrays["ids"] = np.arange(IMAGES).astype(str)
                arrays["classes"] = np.array([*NAMES, "background"] if task == "voc_seg" else NAMES)
                save(settings, out, (method, task, seed), arrays)


def save(settings: Suite, out: Path, cell: tuple[str, str, int], arrays: Mapping[str, Any]) -> None:
    """One record with its predictions."""
    method, task, seed = cell
    metric = registry.get(METRICS[task])
    record = Record(
        suite=settings.name,
        suite_sha256=settings.sha256,
        suite_settings=settings,
        method=method,
        method_version=1,
        role=ROLES.get(method, "pretrained"),
        task=task,
        task_version=1,
        task_settings={"dataset": "voc"},
        seed=seed,
        status="ok",
        metric=metric.name,
        value=registry.value(metric, arrays),
        encoder=EncoderFacts(backbone="made up", weights_sha256="made up", parameters=1),
        pretraining=Pretraining(views_seen=1, seconds=1.0),
        data={"voc_test": "made up"},
        created=storage.now(),
    )
    storage.save(record, storage.path_of(out, settings.name, task, method, seed), dict(arrays))


def main() -> int:
    """Make the records, render them, print the time; 1 if the claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="a folder for the records")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.keep or Path(scratch)
        if not any(out.glob("*/*/*/*.json")):
            make(out)
        cold, busy, torch = render(out, Path(scratch) / "cache")
        warm, _, _ = render(out, Path(scratch) / "cache")
    print(f"records          {len(METHODS) * len(METRICS) * SEEDS}")
    print(
        f"first rendering  {cold:.1f} s (claim: under {MAX_SECONDS:g} s); {busy:.1f} s of processor"
    )
    print(f"any later        {warm:.1f} s, with what the cache keeps")
    print(f"imports torch    {'yes' if torch else 'no'}")
    return int(cold > MAX_SECONDS or torch)


def render(out: Path, cache: Path) -> tuple[float, float, bool]:
    """Run the command: its seconds, the processor's, and whether it imported torch."""
    code = "import sys; from bench import cli; sys.argv = sys.argv[1:]\ntry: cli.main()\n"
    code += "finally: sys.exit(3 * ('torch' in sys.modules))"
    command = [sys.executable, "-c", code, "bench", "leaderboard", "--out", out, "--cache", cache]
    start, before = time.perf_counter(), os.times()
    status = subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode
    seconds, after = time.perf_counter() - start, os.times()
    if status not in (0, 3):
        raise SystemExit(f"bench leaderboard ended with status {status}")
    busy = after.children_user + after.children_system
    return seconds, busy - before.children_user - before.children_system, status == 3


if __name__ == "__main__":
    sys.exit(main())
