"""Records that no run made: scores of a chosen quality, for boards and what reads them."""

import numpy as np

from bench.metrics.average_precision import mean_average_precision
from bench.results import storage
from bench.results.record import EncoderFacts, PretrainingFacts, Record

SETTINGS = {
    "summary": "made up",
    "backbone": {"name": "net"},
    "corpus": {"folder": "corpus"},
    "pretraining": {"images": 100, "crop": 8, "learning_rate": 0.1},
    "recipes": {},
    "voc": {
        "folder": "VOC",
        "train": "train",
        "test": "val",
        "classes": ["ape", "bee", "cat"],
        "size": 32,
        "min_positives": 2,
    },
}
OTHER_RECIPE = SETTINGS | {
    "recipes": {"rotation": {"images": 200, "crop": 8, "learning_rate": 0.1}}
}
TUNING = {
    "images": 640,
    "size": 64,
    "batch": 8,
    "optimizer": "sgd",
    "schedule": "step",
    "learning_rates": [0.01, 0.1],
    "held_out": 0.2,
    "trial": 0.25,
    "frozen": False,
}


def save(folder, method, quality, seed=0, **changes):
    """A record whose scores are the truth times `quality`, plus noise."""
    rng = np.random.default_rng(7)
    truth = np.where(rng.random((120, 3)) < 0.3, 1, -1).astype(np.int8)
    noise = np.random.default_rng([seed, *method.encode()]).normal(size=truth.shape)
    scores = (quality * truth + noise).astype(np.float32)
    value = 100 * mean_average_precision(scores, truth)
    entry = Record(
        suite="made",
        suite_sha256="a" * 64,
        suite_settings=SETTINGS,
        method=method,
        method_code="b" * 64,
        task="voc_cls",
        task_version=1,
        task_code="f" * 64,
        seed=seed,
        status="ok",
        metric="mAP",
        value=value,
        scores={"optimism": 0.5, "stage_mAP": [value - 1, value], "excluded_classes": ["yak"]},
        selection={"stage": 1, "candidates": 10, "unconverged": 0},
        encoder=EncoderFacts(backbone="net", weights_sha256="c" * 64, parameters=1),
        pretraining=PretrainingFacts(
            views_seen=100, seconds=1.0, images_per_second=100.0, logged={}
        ),
        data={"voc_test": "d" * 64},
        created="2020-01-01T00:00:00+00:00",
    ).model_copy(update=changes)
    path = storage.path_of(folder, "made", entry.task, method, seed)
    ids = np.arange(len(truth)).astype(str)
    arrays = {"scores": scores, "truth": truth, "ids": ids} if entry.status == "ok" else None
    return storage.save(entry, path, arrays)
