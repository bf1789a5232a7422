"""`bench check`: planted faults, each caught and named, though every cache is full.

The reference is a shrunken `smoke`: three methods that are trained and one that is not, the linear
probe, and one fine-tuned task, whole and with the encoder frozen. What a fault cannot reach is left
out of its run.
"""

import copy
import functools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import SHORT
from torch.nn import functional as F
from torchvision.transforms import v2

import bench
from bench import plugins
from bench.commands import check as command
from bench.commands.execute import compute, open_for
from bench.commands.request import Cell, Locations, Request
from bench.config import loader, schema
from bench.data import stream, transforms
from bench.encoders.encoder import Encoder
from bench.evaluation import features, finetuned_task
from bench.evaluation.probes import linear_svm
from bench.metrics import registry
from bench.results import storage
from bench.runtime import device
from bench.runtime.progress import Reporter
from bench.training import finetuning, trainer
from bench.training.pretext import PretextTask

pytestmark = pytest.mark.slow

Rotation = plugins.load("methods", "rotation")
TRAINED = ("rotation", "supervised", "colorization")
METHODS = (*TRAINED, "random_init")
PROBED = tuple(("smoke", "voc_cls", method) for method in METHODS)
TUNED = (("smoke", "voc_cls_finetune", "rotation"), ("smoke", "voc_cls_finetune", "random_init"))
FROZEN = (("frozen", "voc_cls_finetune", "random_init"),)
ALL = (*PROBED, *TUNED, *FROZEN)

SETTINGS = [*SHORT, "tasks.voc_cls_finetune.views=32"]
# A head that learns fast on an encoder that must not.
FROZEN_SETTINGS = [
    "name='frozen'",
    "tasks.voc_cls_finetune.frozen=true",
    "tasks.voc_cls_finetune.learning_rates=[1e-2]",
]


@dataclass(frozen=True)
class Outcome:
    """What a check says.

    Attributes:
        failed: whether its status is 1.
        text: all messages, in one line.
        changed: the cells that are said to have changed.
    """

    failed: bool
    text: str
    changed: set


@dataclass(frozen=True)
class Reference:
    """Records and the cache that they were computed with."""

    folder: Path
    cache: Path

    def check(self, rows, where):
        """`bench check` of some rows, in this process, below a folder of its own."""
        selected = where / "reference"
        for suite, task, method in rows:
            source = self.folder / suite / task / method
            shutil.copytree(source, selected / suite / task / method)
        locations = Locations(where / "out", self.cache, None, "cpu")
        verdicts, pairs = command.check(selected, locations, Reporter())
        text = [part for part in command.render(verdicts, pairs) if isinstance(part, str)]
        changed = {(v.suite, v.cell.task, v.cell.method) for v in verdicts if v.changes}
        return Outcome(command.failed(verdicts, pairs), " ".join(text), changed)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The reference, after a clean check that found nothing and filled the cache."""
    made = Reference(tmp_path_factory.mktemp("reference"), tmp_path_factory.mktemp("cache"))
    for overrides in (SETTINGS, [*SETTINGS, *FROZEN_SETTINGS]):
        suite = loader.load("smoke", overrides)
        rows = [row for row in ALL if row[0] == suite.name]
        cells = sorted((Cell(method, task, 0) for _, task, method in rows), key=str)
        methods = tuple({cell.method for cell in cells})
        tasks = tuple({cell.task for cell in cells})
        request = Request(suite, methods, tasks, (0,), None, made.folder, made.cache, "cpu")
        compute(cells, request, Reporter(), open_for(cells, request, Reporter()))
    clean = made.check(ALL, tmp_path_factory.mktemp("clean"))
    assert clean.changed == set(), clean.text
    assert not clean.failed
    for kind in ("encoders", "finetuned"):
        assert list((made.cache / kind).iterdir()), "the cache is full"
    return made


@pytest.fixture
def check(reference, tmp_path):
    return lambda rows: reference.check(rows, tmp_path)


def harness(outcome, what):
    """Whether a kind of change is laid to the harness."""
    return re.search(rf"\b{what}: changed in all \d plug-ins, so it is the harness", outcome.text)


def test_half_the_budget_of_fine_tuning(check, monkeypatch):
    whole = schema.FineTuning.recipe

    def half(settings, learning_rate, share):
        return whole(settings, learning_rate, share / 2)

    monkeypatch.setattr(schema.FineTuning, "recipe", half)
    outcome = check([*PROBED[:1], *TUNED])
    assert outcome.failed
    assert outcome.changed == {*TUNED}
    assert "tasks/voc_cls_finetune.py: views: changed from 32 to 16" in outcome.text
    assert "raise `version` in tasks/voc_cls_finetune.py, or undo" in outcome.text


def test_half_the_budget_of_pretraining(check, monkeypatch):
    whole = trainer.Trainer.__init__

    def half(self, module, job):
        if isinstance(module, PretextTask):
            recipe = job.recipe.model_copy(update={"views": job.recipe.views // 2})
            job = replace(job, recipe=recipe)
        whole(self, module, job)

    monkeypatch.setattr(trainer.Trainer, "__init__", half)
    outcome = check(PROBED)
    assert outcome.failed
    assert outcome.changed == {*PROBED[: len(TRAINED)]}
    assert harness(outcome, "views") and harness(outcome, "views seen")


def test_half_the_budget_of_one_method(check, monkeypatch):
    whole = trainer.Trainer.__init__

    def half(self, module, job):
        if isinstance(module, Rotation):
            recipe = job.recipe.model_copy(update={"views": job.recipe.views // 2})
            job = replace(job, recipe=recipe)
        whole(self, module, job)

    monkeypatch.setattr(trainer.Trainer, "__init__", half)
    outcome = check(PROBED)
    assert outcome.failed
    assert outcome.changed == {PROBED[0]}
    assert "methods/rotation.py: views: changed from 64 to 32" in outcome.text
    assert "raise `version` in methods/rotation.py, or undo" in outcome.text
    assert "harness" not in outcome.text


def test_another_seed_of_the_stream(check, monkeypatch):
    true = stream.Stream.__init__

    def other(self, images, labels, seed, *rest):
        true(self, images, labels, seed + 1, *rest)

    monkeypatch.setattr(stream.Stream, "__init__", other)
    outcome = check([*PROBED, TUNED[0]])
    assert outcome.failed
    assert outcome.changed == {*PROBED[: len(TRAINED)], TUNED[0]}
    assert harness(outcome, "order of the images")


def test_another_seed_of_the_augmentation_alone(check, monkeypatch):
    true = stream._position_seed
    monkeypatch.setattr(stream, "_position_seed", lambda seed, place: true(seed + 1, place))
    outcome = check(PROBED)
    assert outcome.failed
    assert outcome.changed == {*PROBED[: len(TRAINED)]}
    assert harness(outcome, "pixels")
    assert "order of the images" not in outcome.text


def test_images_read_in_another_order(check, monkeypatch):
    true = stream.Stream.index

    def backwards(self, position):
        return len(self._labels) - 1 - true(self, position)

    monkeypatch.setattr(stream.Stream, "index", backwards)
    outcome = check(PROBED)
    assert outcome.failed
    assert harness(outcome, "order of the images")


def test_the_file_beside_the_one_that_was_drawn(check, monkeypatch):
    """The order is right, what is read is not."""

    def neighbor(path, *rest):
        siblings = sorted(path.parent.iterdir())
        return true(siblings[(siblings.index(path) + 1) % len(siblings)], *rest)

    true = stream.read_pixels
    monkeypatch.setattr(stream, "read_pixels", neighbor)
    outcome = check(PROBED)
    assert outcome.failed
    assert harness(outcome, "pixels")


def test_an_encoder_without_normalization(check, monkeypatch):
    true = Encoder._input

    def as_it_is(self, name, rgb):
        return rgb if name == "rgb" else true(self, name, rgb)

    monkeypatch.setattr(Encoder, "_input", as_it_is)
    outcome = check(PROBED)
    assert outcome.failed
    rgb = {("smoke", "voc_cls", name) for name in ("rotation", "supervised", "random_init")}
    assert outcome.changed == rgb, "all that see RGB"
    assert "methods/rotation.py: losses: loss of step 0 changed" in outcome.text
    assert "methods/supervised.py: losses: loss of step 0 changed" in outcome.text
    assert "tasks/voc_cls.py: scores: the same weights give other scores" in outcome.text


def test_a_schedule_that_is_off_by_one_step(check, monkeypatch):
    true = trainer.rate_factor
    monkeypatch.setattr(trainer, "rate_factor", lambda step, *rest: true(step + 1, *rest))
    outcome = check([*PROBED, TUNED[0]])
    assert outcome.failed
    assert outcome.changed == {*PROBED[: len(TRAINED)], TUNED[0]}
    assert harness(outcome, "learning rates")


def test_crops_at_another_scale(check, monkeypatch):
    @functools.cache
    def smaller(side, scale):
        return v2.RandomResizedCrop([side] * 2, scale=(scale[0] / 2, scale[1]), antialias=True)

    monkeypatch.setattr(transforms, "_cropper", smaller)
    outcome = check(PROBED)
    assert outcome.failed
    assert outcome.changed == {*PROBED[: len(TRAINED)]}
    assert harness(outcome, "pixels")


def test_permuted_labels(check, monkeypatch):
    def permuted(self, batch):
        rotated = torch.cat([batch.rot90(k, (2, 3)) for k in range(4)])
        labels = torch.tensor([1, 0, 3, 2]).repeat_interleave(len(batch))
        logits = self.head(self.encoder(transforms.to_unit_range(rotated))[-1])
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())
        return F.cross_entropy(logits, labels)

    monkeypatch.setattr(Rotation, "loss", permuted)
    outcome = check(PROBED)
    assert outcome.failed
    assert outcome.changed == {PROBED[0]}
    assert "methods/rotation.py: losses: loss of step 0 changed" in outcome.text
    assert "harness" not in outcome.text


def test_a_probe_that_reads_test_labels(check, monkeypatch, reference):
    suite = loader.load("smoke", SETTINGS)
    cells = [Cell("random_init", "voc_cls", 0)]
    request = Request(
        suite, ("random_init",), ("voc_cls",), (0,), None, reference.folder, reference.cache, "cpu"
    )
    voc, fit = open_for(cells, request, Reporter())["voc"], linear_svm.fit
    least = suite.datasets["voc"].min_positives

    def on_both_splits(train, labels, test, costs, folds, **rest):
        positives = [(split.labels == 1).sum(0) for split in (voc.train, voc.test)]
        enough = np.minimum(*positives) >= max(folds, least)
        leaked = np.concatenate([labels, voc.test.labels[:, enough]])
        return fit(torch.cat([train, test]), leaked, test, costs, folds, **rest)

    monkeypatch.setattr(linear_svm, "fit", on_both_splits)
    outcome = check([*PROBED, TUNED[0]])
    assert outcome.failed
    assert outcome.changed == {*PROBED}
    assert "tasks/voc_cls.py: scores: the same weights give other scores" in outcome.text


def test_another_kind_of_average_precision(check, monkeypatch):
    other = registry.MeanAveragePrecision("mAP", "11-point")
    monkeypatch.setitem(registry._registered, "mAP", other)
    outcome = check([*PROBED, TUNED[0]])
    assert outcome.failed
    assert outcome.changed == {*PROBED}
    assert "bench/metrics (mAP): metric: the reference's predictions give" in outcome.text


def changed_plugin(monkeypatch, kind, name, path):
    """Put a file in the place of a shipped plug-in."""
    sources = plugins._sources
    own = replace(sources(kind)[name], path=path, module="")
    monkeypatch.setattr(
        plugins, "_sources", lambda k: sources(k) | ({name: own} if k == kind else {})
    )


def test_a_task_that_names_another_metric(check, monkeypatch, tmp_path):
    text = plugins.source("tasks", "voc_cls").path.read_text()
    changed = tmp_path / "voc_cls.py"
    changed.write_text(
        text.replace('metric: ClassVar[str] = "mAP"', 'metric: ClassVar[str] = "mAP_step"')
    )
    changed_plugin(monkeypatch, "tasks", "voc_cls", changed)
    outcome = check(PROBED[-1:])
    assert outcome.failed
    assert "tasks/voc_cls.py: metric: changed from mAP to mAP_step" in outcome.text


@pytest.mark.parametrize("how", ["weights", "statistics"])
def test_a_frozen_encoder_that_trains(check, monkeypatch, how):
    if how == "weights":
        true = finetuning.FineTunedNetwork.__init__

        def thawed(self, encoder, frozen):
            true(self, encoder, frozen)
            encoder.requires_grad_(True)

        monkeypatch.setattr(finetuning.FineTunedNetwork, "__init__", thawed)
    else:
        monkeypatch.delattr(finetuning.FineTunedNetwork, "train")
    outcome = check([*FROZEN, *PROBED[-1:]])
    assert outcome.failed
    assert outcome.changed == {*FROZEN}
    assert "tasks/voc_cls_finetune.py: losses: loss of step" in outcome.text


def test_another_initialization(check, monkeypatch):
    true = device.seed_everything
    for module in [m for name, m in sys.modules.items() if name.startswith("bench.")]:
        if getattr(module, "seed_everything", None) is true:
            monkeypatch.setattr(module, "seed_everything", lambda seed: true(seed + 1))
    outcome = check(PROBED[: len(TRAINED)])
    assert outcome.changed == {*PROBED[: len(TRAINED)]}
    assert harness(outcome, "losses")


def test_batch_norm_in_evaluation_mode(check, monkeypatch):
    true = trainer.TrainableModule.train
    monkeypatch.setattr(trainer.TrainableModule, "train", lambda self, mode=True: true(self, False))
    outcome = check(PROBED)
    assert outcome.changed == {*PROBED[: len(TRAINED)]}
    assert harness(outcome, "losses")


def test_labels_of_the_neighbor_in_fine_tuning(check, monkeypatch):
    true = stream.Stream.__init__

    def rolled(self, images, labels, *rest):
        true(self, images, np.roll(labels, 1), *rest)

    monkeypatch.setattr(stream.Stream, "__init__", rolled)
    outcome = check(TUNED)
    assert outcome.changed == {*TUNED}
    assert "tasks/voc_cls_finetune.py: losses: loss of step 0 changed" in outcome.text


def test_fine_tuning_of_an_encoder_that_forgot_its_weights(check, monkeypatch):
    def forget(encoder):
        copied = copy.deepcopy(encoder)
        for parameter in copied.parameters():
            torch.nn.init.trunc_normal_(parameter.data, std=0.02)
        return copied

    monkeypatch.setattr(finetuned_task, "copy", SimpleNamespace(deepcopy=forget))
    outcome = check(TUNED)
    assert outcome.changed == {*TUNED}
    assert "tasks/voc_cls_finetune.py: losses: loss of step 0 changed" in outcome.text


def test_one_more_learning_rate_that_is_tried(check, monkeypatch):
    true = finetuned_task.tune

    def tune(task, make, score, images, settings, *rest):
        rates = (*settings.learning_rates, 2 * settings.learning_rates[-1])
        more = settings.model_copy(update={"learning_rates": rates})
        return true(task, make, score, images, more, *rest)

    monkeypatch.setattr(finetuned_task, "tune", tune)
    outcome = check(TUNED)
    assert outcome.changed == {*TUNED}
    assert "tasks/voc_cls_finetune.py: settings tried: changed from 1 to 2" in outcome.text


@pytest.mark.parametrize("how", ["training mode", "twice the size"])
def test_a_probe_of_other_features(check, monkeypatch, how):
    if how == "training mode":
        true = features.pool_features

        def in_training(encoder, *rest):
            return true(encoder.train(), *rest)

        monkeypatch.setattr(features, "pool_features", in_training)
    else:
        load = features.loader
        monkeypatch.setattr(
            features, "loader", lambda images, size, *rest: load(images, 2 * size, *rest)
        )
    outcome = check(PROBED[-1:])
    assert outcome.changed == {*PROBED[-1:]}
    assert "tasks/voc_cls.py: scores: the same weights give other scores" in outcome.text


def test_the_cache_hides_a_fault_from_a_run_and_not_from_check(
    reference, check, monkeypatch, tmp_path
):
    true = trainer.Trainer.__init__

    def half(self, module, job):
        recipe = job.recipe.model_copy(update={"views": job.recipe.views // 2})
        true(self, module, replace(job, recipe=recipe))

    monkeypatch.setattr(trainer.Trainer, "__init__", half)
    cell = Cell("rotation", "voc_cls", 0)
    suite = loader.load("smoke", SETTINGS)
    request = Request(
        suite, ("rotation",), ("voc_cls",), (0,), None, tmp_path / "run", reference.cache, "cpu"
    )
    compute([cell], request, Reporter())
    assert storage.read(cell.path(request)).pretraining.views_seen == 64, "the cached encoder"
    outcome = check(PROBED[:1])
    assert "methods/rotation.py: views: changed from 64 to 32" in outcome.text


class Ascent(torch.optim.AdamW):
    """Steps that increase the loss."""

    def step(self, *_, **__):
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None if weight.grad is None else -weight.grad
        super().step()


class NoStep(torch.optim.AdamW):
    """Steps that change nothing."""

    def step(self, *_, **__):
        return


FAULTY = {
    "no step": (NoStep, {}, "descents"),
    "ascent": (Ascent, {}, "descents"),
    "decay of biases and norms": (torch.optim.AdamW, {"weight_decay": 0.05}, "optimizer"),
    "other betas": (torch.optim.AdamW, {"betas": (0.5, 0.999)}, "optimizer"),
    "another kind": (torch.optim.SGD, {}, "descents"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_an_optimizer_that_updates_otherwise(check, monkeypatch, fault):
    """At rates at which rounding does not grow, ten losses do not show what a step did."""
    true = trainer.make_optimizer
    kind, settings, what = FAULTY[fault]

    def other(parameters, recipe, *shares):
        own = true(parameters, recipe, *shares)
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]} | settings
            for group in own.param_groups
        ]
        shared = {} if kind is torch.optim.SGD else {"betas": recipe.betas}
        optimizer = kind(groups, recipe.learning_rate, **shared)
        if what == "descents":  # under its right name and settings
            optimizer.__class__ = type(type(own).__name__, (kind,), {})
        return optimizer

    monkeypatch.setattr(trainer, "make_optimizer", other)
    outcome = check([*PROBED[:1], *TUNED])
    assert outcome.failed
    assert outcome.changed == {PROBED[0], *TUNED}
    assert f"methods/rotation.py: {what}: " in outcome.text
    assert f"tasks/voc_cls_finetune.py: {what}: " in outcome.text


def test_training_that_stops_after_the_traced_steps(check, monkeypatch):
    """Half of the steps, at a rate at which no score shows them."""

    class Stops(torch.optim.AdamW):
        def step(self, *_, **__):
            self.taken = getattr(self, "taken", 0) + 1
            if self.taken <= 2:
                super().step()

    true = trainer.make_optimizer

    def other(parameters, recipe, *shares):
        optimizer = true(parameters, recipe, *shares)
        optimizer.__class__ = type("AdamW", (Stops,), {})
        return optimizer

    monkeypatch.setattr(trainer, "make_optimizer", other)
    outcome = check(PROBED[:1])
    assert outcome.changed == {PROBED[0]}
    assert "methods/rotation.py: updates: " in outcome.text


def test_a_renamed_variable_changes_nothing(check, monkeypatch, tmp_path):
    text = plugins.source("methods", "rotation").path.read_text()
    changed = tmp_path / "rotation.py"
    changed.write_text(text.replace("rotated", "upright_and_turned"))
    before = plugins.code("methods", "rotation")
    changed_plugin(monkeypatch, "methods", "rotation", changed)
    assert plugins.code("methods", "rotation") != before
    assert plugins.load("methods", "rotation") is not Rotation
    outcome = check([*PROBED[:1], *TUNED[:1]])
    assert (outcome.failed, outcome.changed) == (False, set()), outcome.text


# Faults of two processes, as `bench` of a module that plants them first.
PLANTED = {
    "clean": "",
    "statistics of each process alone": """
from bench.training import trainer
trainer.synchronize = lambda network: None
""",
    "the sum in place of the mean": """
from bench.runtime import distributed
average = distributed.average
distributed.average = lambda value: average(value) * distributed.world_size()
""",
    "the same half of each batch": """
import torch
from bench.training import trainer
step = trainer.Trainer._take_step
def shared(self, batch):
    batch = batch.clone()
    torch.distributed.broadcast(batch, 0)
    return step(self, batch)
trainer.Trainer._take_step = shared
""",
    "each process its own seed": """
import os
from bench.data import stream
seed = stream._position_seed
stream._position_seed = lambda s, place: seed(s + int(os.environ["RANK"]), place)
""",
}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The record of one method, from two processes."""
    made = Reference(tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("cache"))
    places = ["--out", made.folder, "--cache", made.cache, "--device", "cpu", "--suite", "smoke"]
    sets = [part for key in SETTINGS for part in ("--set", key)]
    launch = command._launcher(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(bench.__file__).parents[1]))
        patch.setenv("OMP_NUM_THREADS", "1")
        what = ["run", "--methods", "rotation", "--tasks", "voc_cls", *places, *sets]
        done = subprocess.run([*launch, *map(str, what)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    entry = json.loads((made.folder / "smoke/voc_cls/rotation/seed0.json").read_text())
    assert entry["environment"]["processes"] == 2
    return made


@pytest.mark.parametrize("fault", PLANTED)
def test_two_processes(two_processes, monkeypatch, tmp_path, fault):
    launched = tmp_path / "launched.py"
    launched.write_text(f"{PLANTED[fault]}\nfrom bench import cli\ncli.main()\n")
    launcher = [*command._launcher(2)[:-2], str(launched)]
    assert launcher[-2].startswith("--nproc")
    monkeypatch.setattr(command, "_launcher", lambda processes: launcher)
    monkeypatch.setenv("PYTHONPATH", str(Path(bench.__file__).parents[1]))
    outcome = two_processes.check(PROBED[:1], tmp_path)
    if fault == "clean":
        assert (outcome.failed, outcome.changed) == (False, set()), outcome.text
        return
    assert outcome.failed
    assert outcome.changed == {PROBED[0]}
    what = "pixels" if "seed" in fault or "half" in fault else "losses"
    assert f"methods/rotation.py: {what}:" in outcome.text
    assert "2 processes" in outcome.text
