"""Records that no run made: scores of a chosen quality, for leaderboards and what reads them."""

import numpy as np

from bench.config.schema import Backbone, ImageFolder, Recipe, Suite, Voc
from bench.encoders.pretraining import Pretraining
from bench.metrics import registry
from bench.reporting import leaderboard, publish
from bench.results import storage
from bench.results.record import EncoderFacts, HyperparameterFacts, Record
from bench.statistics import calibration

CLASSES = ("ape", "bee", "cat")
RECIPE = {
    "views": 100,
    "batch": 10,
    "crop": 8,
    "crop_scale": (0.5, 1.0),
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 0.0,
    "schedule": "cosine",
}
SUITE = Suite(
    name="made",
    summary="made up",
    seeds=1,
    backbone=Backbone(name="net", imagenet="timm"),
    datasets={
        "pretraining": ImageFolder(kind="image_folder", train="corpus"),
        "voc": Voc(kind="voc", train=("VOC/train",), test=("VOC/val",), classes=CLASSES),
    },
    pretraining=Recipe(**RECIPE),
)
COMMON_RECIPE = SUITE.pretraining.model_dump(mode="json")
OTHER_RECIPE = COMMON_RECIPE | {"views": 200}
PROBE = {"dataset": "voc", "costs": [0.1, 1.0]}
TUNING = {
    "dataset": "voc",
    "views": 640,
    "size": 64,
    "batch": 8,
    "optimizer": "sgd",
    "betas": [0.9, 0.999],
    "weight_decay": 0.0,
    "schedule": "step",
    "warmup": 0.0,
    "milestones": [],
    "precision": "auto",
    "learning_rates": [0.01, 0.1],
    "validation_fraction": 0.2,
    "selection_fraction": 0.25,
    "frozen": False,
}
TUNED = {
    "per_stage": None,
    "selected_stage": None,
    "diagnostics": {},
    "hyperparameters": HyperparameterFacts(selected={"learning_rate": 0.1}, num_settings=2),
}
FAILED = {"status": "failed", "value": None, "encoder": None} | TUNED
ROLES = {"imagenet": "reference", "random_init": "untrained"}


def encoder(*inputs, backbone="net"):
    return EncoderFacts(
        backbone=backbone, inputs=list(inputs), weights_sha256="c" * 64, parameters=1
    )


def arrays_of(method, quality, seed=0):
    """Predictions of 120 images whose scores are the truth times `quality`, plus noise."""
    rng = np.random.default_rng(7)
    truth = np.where(rng.random((120, 3)) < 0.3, 1, -1).astype(np.int8)
    noise = np.random.default_rng([seed, *method.encode()]).normal(size=truth.shape)
    return {
        "scores": (quality * truth + noise).astype(np.float32),
        "truth": truth,
        "classes": np.array(CLASSES),
        "ids": np.arange(len(truth)).astype(str),
    }


def save(folder, method, quality, seed=0, **changes):
    """A record of a method whose predictions have a quality; `changes` of its fields."""
    arrays = arrays_of(method, quality, seed)
    metric = registry.get("mAP")
    value = registry.value(metric, arrays)
    entry = Record(
        suite="made",
        suite_sha256="a" * 64,
        suite_settings=SUITE,
        method=method,
        method_version=1,
        role=ROLES.get(method, "pretrained"),
        recipe={} if method in ROLES else COMMON_RECIPE,
        task="voc_cls",
        task_version=1,
        task_settings=PROBE,
        seed=seed,
        status="ok",
        metric="mAP",
        value=value,
        per_class=registry.per_class(metric, arrays),
        excluded_classes=["yak"],
        per_stage=[value - 1, value],
        selected_stage=1,
        diagnostics={"optimism": 0.5},
        hyperparameters=HyperparameterFacts(selected={"cost": {"ape": 0.1}}, num_settings=10),
        encoder=encoder("rgb"),
        pretraining=Pretraining(views_seen=100, seconds=1.0),
        data={"voc_test": "d" * 64},
        num_images={"voc_test": 120},
        created="2020-01-01T00:00:00+00:00",
    ).model_copy(update=changes)
    path = storage.path_of(folder, "made", entry.task, method, seed)
    return storage.save(entry, path, arrays if entry.status == "ok" else None)


def calibrate(folder, moves=(0.0, 0.5, -0.5), tasks=None):
    """A calibration beside the records, of every row whose runs vary.

    Args:
        folder: with the records.
        moves: of each seed's score from that of the record, in points.
        tasks: those that it has; None: all.
    """
    records = [
        record.model_copy(
            update={"seed": seed, "value": float(np.clip(record.value + move, 0, 100))}
        )
        for record in storage.read_all(folder / "made").values()
        if record.status == "ok" and record.role != "reference"
        if tasks is None or record.task in tasks
        for seed, move in enumerate(moves)
    ]
    section = calibration.to_toml(calibration.calibrate(records, {}))
    (folder / "made" / calibration.FILE).write_text(section)


def text_of(folder):
    """LEADERBOARD.md of the records in a folder."""
    return publish.texts(leaderboard.load(folder / "made"))["LEADERBOARD.md"].decode()
