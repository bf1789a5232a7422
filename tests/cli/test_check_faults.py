"""Planted faults: each is one change of the code that `bench check` must name.

A clean run fills the cache and writes the reference. Only then is a fault planted, so that what is
cached could hide it.
"""

import copy
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from bench.commands.execute import compute
from bench.commands.request import Cell, Request
from bench.config import loader
from bench.config.schema import FineTuning
from bench.data import stream, transforms
from bench.encoders.encoder import Encoder
from bench.evaluation import features, finetuned_task, linear_svm
from bench.metrics import registry
from bench.results import storage
from bench.runtime.progress import Reporter
from bench.training import finetuning, trainer

pytestmark = pytest.mark.slow

# `smoke`, shrunk to twelve steps of pretraining and ten of fine-tuning.
SMALL = [
    "pretraining.views=192",
    "recipes.rotation.views=192",
    "tasks.voc_seg.views=80",
    "tasks.voc_seg.selection_fraction=0.1",
    "tasks.voc_cls_finetune.views=80",
    "tasks.voc_cls_finetune.selection_fraction=0.1",
    "tasks.voc_cls_finetune.frozen=true",
]
# Adam's steps do not depend on the scale of a gradient, those of SGD do.
SGD = ["recipes.rotation.optimizer=sgd", "recipes.rotation.learning_rate=0.01"]
CELLS = {
    "pretext": Cell("rotation", "voc_cls", 0),
    "probe": Cell("imagenet", "voc_cls", 0),
    "tuned": Cell("imagenet", "voc_seg", 0),
    "frozen": Cell("imagenet", "voc_cls_finetune", 0),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A cache that a clean run filled, and a reference folder for each cell of `CELLS`."""
    folder = tmp_path_factory.mktemp("clean")
    suite = loader.load("smoke", SMALL)
    for name, cell in CELLS.items():
        out, cache = folder / name, folder / "cache"
        asked = Request(suite, (cell.method,), (cell.task,), (0,), None, out, cache, "cpu")
        compute([cell], asked, Reporter())
        assert storage.read(cell.path(asked)).status == "ok"
    return folder


@pytest.fixture
def check(clean, bench):
    """`bench check` of one cell of `CELLS`, with the cache of the clean run."""

    def call(name):
        where = ["--reference", clean / name, "--cache", clean / "cache", "--device", "cpu"]
        return bench("check", *where)

    return call


@pytest.mark.parametrize("name", CELLS)
def test_the_unchanged_code_passes(check, name):
    done = check(name)
    assert (done.status, "same bytes" in done.out) == (0, True), done.out


def half_the_budget(monkeypatch):
    true = trainer.Trainer.__init__

    def init(self, module, job):
        recipe = job.recipe.model_copy(update={"views": job.recipe.views // 2})
        true(self, module, replace(job, recipe=recipe))

    monkeypatch.setattr(trainer.Trainer, "__init__", init)


def half_the_budget_of_fine_tuning(monkeypatch):
    true = FineTuning.recipe
    monkeypatch.setattr(FineTuning, "recipe", lambda self, r, share: true(self, r, share / 2))


def another_seed_of_the_order(monkeypatch):
    true = trainer.Stream

    def other(images, labels, seed, transform, length):
        return true(images, labels, seed + 1, transform, length)

    monkeypatch.setattr(trainer, "Stream", other)


def another_seed_of_the_crops(monkeypatch):
    true = stream._position_seed
    monkeypatch.setattr(stream, "_position_seed", lambda seed, position: true(seed + 1, position))


def images_in_another_order(monkeypatch):
    true = trainer.DataLoader

    def reverse(dataset, sampler, **rest):
        return true(dataset, sampler=sampler[::-1], **rest)

    monkeypatch.setattr(trainer, "DataLoader", reverse)


def crops_at_another_scale(monkeypatch):
    true = transforms._cropper
    monkeypatch.setattr(transforms, "_cropper", lambda side, scale: true(side, (0.9, 1.0)))


def a_normalization_dropped(monkeypatch):
    monkeypatch.setattr(Encoder, "_input", lambda self, name, rgb: rgb)


def a_schedule_off_by_one(monkeypatch):
    true = trainer.rate_factor

    def late(step, steps, recipe):
        return true(step + 1, steps, recipe)

    monkeypatch.setattr(trainer, "rate_factor", late)


def a_schedule_by_the_other_half(monkeypatch):
    """The same first, last and largest rate; another rate between them."""
    true = trainer.rate_factor

    def bent(step, steps, recipe):
        return true(step, steps, recipe) * (0.9 if step == steps // 2 else 1.0)

    monkeypatch.setattr(trainer, "rate_factor", bent)


def another_initialization(monkeypatch):
    true = torch.manual_seed
    monkeypatch.setattr("bench.runtime.device.torch.manual_seed", lambda seed: true(seed + 1))


def batch_norm_in_evaluation_mode(monkeypatch):
    true = trainer.TrainableModule.train
    monkeypatch.setattr(trainer.TrainableModule, "train", lambda self, mode=True: true(self, False))


def gradients_that_add_up(monkeypatch):
    monkeypatch.setattr(AdamW, "zero_grad", lambda self, set_to_none=True: None)


def labels_permuted(monkeypatch):
    true = stream.Stream.__init__

    def init(self, images, labels, *rest):
        true(self, images, np.roll(labels, 1), *rest)

    monkeypatch.setattr(stream.Stream, "__init__", init)


def a_rate_that_is_not_tried(monkeypatch):
    true = finetuning.tune

    def first_rate(task, make, score, images, settings, *rest):
        fewer = settings.model_copy(update={"learning_rates": settings.learning_rates[:1]})
        return true(task, make, score, images, fewer, *rest)

    monkeypatch.setattr(finetuned_task, "tune", first_rate)


def fine_tuning_of_random_weights(monkeypatch):
    def forget(encoder):
        copied = copy.deepcopy(encoder)
        for parameter in copied.parameters():
            torch.nn.init.trunc_normal_(parameter.data, std=0.02)
        return copied

    monkeypatch.setattr(finetuned_task, "copy", SimpleNamespace(deepcopy=forget))


def decay_of_biases_and_norms(monkeypatch):
    true = trainer.make_optimizer

    def decayed(parameters, recipe):
        optimizer = true(parameters, recipe)
        for group in optimizer.param_groups:
            group["weight_decay"] = recipe.weight_decay
        return optimizer

    monkeypatch.setattr(trainer, "make_optimizer", decayed)


def a_frozen_encoder_that_trains(monkeypatch):
    true = finetuning.FineTunedNetwork.__init__
    monkeypatch.setattr(
        finetuning.FineTunedNetwork, "__init__", lambda self, encoder, _: true(self, encoder, False)
    )


def a_probe_of_an_encoder_in_training_mode(monkeypatch):
    true = features.pool_features
    monkeypatch.setattr(
        features, "pool_features", lambda encoder, *rest: true(encoder.train(), *rest)
    )


def a_probe_at_another_size(monkeypatch):
    true = features.loader
    monkeypatch.setattr(features, "loader", lambda images, size: true(images, size * 2))


def a_probe_that_reads_test_labels(monkeypatch):
    true = linear_svm.fit

    def fit(train, labels, test, costs, folds, **rest):
        half = len(labels) // 2
        leaked = np.concatenate([labels, LEAKED["labels"][half:, : labels.shape[1]]])
        return true(torch.cat([train, test[half:]]), leaked, test, costs, folds, **rest)

    monkeypatch.setattr(linear_svm, "fit", fit)


LEAKED = {}


def another_kind_of_metric(monkeypatch):
    monkeypatch.setattr(
        registry, "get", lambda name: registry.MeanAveragePrecision(name, "11-point")
    )


@dataclass(frozen=True)
class Fault:
    """A fault, the cell that it touches, and what `bench check` must say."""

    plant: object
    cell: str
    message: str


ROTATION = "methods/rotation.py"
SEGMENTATION = "tasks/voc_seg.py"
FAULTS = [
    Fault(half_the_budget, "pretext", f"{ROTATION}: views: changed from 192 to 96"),
    Fault(half_the_budget, "tuned", f"{SEGMENTATION}: views: changed from 80 to 40"),
    Fault(half_the_budget_of_fine_tuning, "tuned", f"{SEGMENTATION}: views: changed from 80 to 40"),
    Fault(another_seed_of_the_order, "pretext", f"{ROTATION}: order of the images:"),
    Fault(another_seed_of_the_order, "tuned", f"{SEGMENTATION}: order of the images:"),
    Fault(another_seed_of_the_crops, "pretext", f"{ROTATION}: pixels:"),
    Fault(images_in_another_order, "pretext", f"{ROTATION}: pixels:"),
    Fault(crops_at_another_scale, "pretext", f"{ROTATION}: pixels:"),
    Fault(a_normalization_dropped, "pretext", f"{ROTATION}: losses: loss of step 0 changed"),
    Fault(a_normalization_dropped, "probe", "tasks/voc_cls.py: scores:"),
    Fault(a_schedule_off_by_one, "pretext", f"{ROTATION}: learning rates: first, largest and"),
    Fault(a_schedule_off_by_one, "tuned", f"{SEGMENTATION}: learning rates: first, largest and"),
    Fault(a_schedule_by_the_other_half, "pretext", f"{ROTATION}: learning rates: the rate of some"),
    Fault(another_initialization, "pretext", f"{ROTATION}: losses: loss of step 0 changed"),
    Fault(batch_norm_in_evaluation_mode, "pretext", f"{ROTATION}: losses: loss of step 0 changed"),
    Fault(gradients_that_add_up, "pretext", f"{ROTATION}: losses: loss of step"),
    Fault(labels_permuted, "tuned", f"{SEGMENTATION}: losses: loss of step 0 changed"),
    Fault(a_rate_that_is_not_tried, "tuned", f"{SEGMENTATION}: settings tried: changed from 2 to"),
    Fault(fine_tuning_of_random_weights, "tuned", f"{SEGMENTATION}: losses: loss of step 0"),
    Fault(decay_of_biases_and_norms, "pretext", f"{ROTATION}: losses: loss of step"),
    Fault(decay_of_biases_and_norms, "tuned", f"{SEGMENTATION}: losses: loss of step"),
    Fault(a_frozen_encoder_that_trains, "frozen", "tasks/voc_cls_finetune.py: losses: loss of"),
    Fault(a_probe_of_an_encoder_in_training_mode, "probe", "tasks/voc_cls.py: scores:"),
    Fault(a_probe_at_another_size, "probe", "tasks/voc_cls.py: scores:"),
    Fault(a_probe_that_reads_test_labels, "probe", "tasks/voc_cls.py: scores:"),
    Fault(another_kind_of_metric, "probe", "bench/metrics (mAP): metric: the reference's"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.plant.__name__}-{f.cell}")
def test_a_planted_fault_is_named(check, clean, monkeypatch, fault):
    record = CELLS["probe"]
    (path,) = (clean / "probe").glob(f"*/{record.task}/{record.method}/seed0.json")
    LEAKED["labels"] = storage.read_predictions(path, storage.read(path))["truth"]
    fault.plant(monkeypatch)
    done = check(fault.cell)
    said = " ".join(done.out.split())
    assert (done.status, fault.message in said) == (1, True), done.out


def test_the_cache_hides_a_fault_from_a_run_but_not_from_check(
    clean, check, monkeypatch, bench, tmp_path
):
    half_the_budget(monkeypatch)
    cell = CELLS["pretext"]
    asked = Request(
        *(loader.load("smoke", SMALL), (cell.method,), (cell.task,), (0,), None),
        *(tmp_path, clean / "cache", "cpu"),
    )
    compute([cell], asked, Reporter())
    assert storage.read(cell.path(asked)).pretraining.views_seen == 192, "the old encoder"
    done = check("pretext")
    assert (done.status, "views: changed from 192 to 96" in done.out) == (1, True)


SCRIPT = """
import torch
from accelerate import Accelerator
from bench.cli import main
from bench.runtime import distributed
from bench.training import trainer


def batch_norm_of_one_process():
    trainer.synchronize = lambda network: None


def gradients_summed():
    true = Accelerator.backward
    Accelerator.backward = lambda self, loss: true(self, loss * distributed.world_size())


def losses_summed():
    true = distributed.average
    distributed.average = lambda value: true(value) * distributed.world_size()


def the_same_half_of_each_batch():
    true = trainer.Trainer._take_step
    def first_half(self, batch):
        shared = batch.clone()
        torch.distributed.broadcast(shared, 0)
        return true(self, shared)
    trainer.Trainer._take_step = first_half


def no_fault():
    pass


if __name__ == "__main__":
    FAULT()
    main()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A reference of two processes, and its cache."""
    folder = tmp_path_factory.mktemp("two")
    settings = [part for key in (*SMALL, *SGD) for part in ("--set", key)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "bench", "run", "--methods", "rotation", "--tasks", "voc_cls"]
    command += ["--suite", "smoke", "--device", "cpu", "--out", str(folder / "reference")]
    command += ["--cache", str(folder / "cache"), *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_fault", "0 of 2 cells changed"),
        ("batch_norm_of_one_process", f"{ROTATION}: losses: loss of step 0 changed"),
        ("gradients_summed", f"{ROTATION}: losses: loss of step"),
        ("losses_summed", f"{ROTATION}: losses: loss of step 0 changed"),
        ("the_same_half_of_each_batch", f"{ROTATION}: pixels: mean and standard deviation"),
    ],
)
def test_a_fault_on_two_processes_is_named(two, bench, monkeypatch, tmp_path, fault, message):
    script = tmp_path / "faulty.py"
    script.write_text(SCRIPT.replace("FAULT()", f"{fault}()"))
    true = subprocess.run

    def run(command, **rest):
        entry = command.index("bench")
        assert command[entry - 1] == "-m"
        planted = [*command[: entry - 1], str(script), *command[entry + 1 :]]
        environment = rest.pop("env") | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return true(planted, env=environment, **rest)

    monkeypatch.setattr("bench.commands.check.subprocess.run", run)
    where = ["--reference", two / "reference", "--cache", two / "cache", "--device", "cpu"]
    done = bench("check", *where)
    said = " ".join(done.out.split())
    assert (done.status, message in said) == (int(fault != "no_fault"), True), done.out
