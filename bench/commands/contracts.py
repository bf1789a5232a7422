"""What every method and every task must do, as checks over any of them.

`bench test` runs them on somebody's own file, the project's tests on everything that ships.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from bench import plugins
from bench.commands import execute, plan
from bench.commands.request import Cell, Request
from bench.config.schema import Backbone, Suite
from bench.data.datasets import Datasets
from bench.data.stream import Stream
from bench.encoders.kinds import KINDS
from bench.errors import UserError
from bench.evaluation.task import TaskResult
from bench.metrics import registry
from bench.plugins import Kind
from bench.results import storage
from bench.results.record import Record
from bench.runtime.device import seed_everything
from bench.runtime.partial import temporary_folder
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.method import load_or_pretrain
from bench.training.pretext import PretextTask
from bench.training.trainer import TrainableModule, TrainingJob

IMAGES = 4  # in a batch of the checks


class ContractError(AssertionError):
    """A method or task does not do what every method or task must."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the checks run on: a suite of seconds, its data sets, and a cache.

    Attributes:
        name: of the method or task.
        suite: the experiment.
        datasets: opened.
        cache: empty at first, so that what it holds was trained by this code on this machine.
        reporter: for progress.
    """

    name: str
    suite: Suite
    datasets: Datasets
    cache: Path
    reporter: Reporter

    def context(self, kind: Kind, seed: int = 0, cache: Path | None = None) -> Context:
        """A context in which the method, or the task on an untrained encoder, is at work."""
        method = self.name if kind == "methods" else plugins.UNTRAINED
        task = self.name if kind == "tasks" else ""
        where = cache or self.cache
        cpu = torch.device("cpu")
        return Context(
            self.suite, method, seed, cpu, self.datasets, where, self.reporter, task=task
        )

    @cached_property
    def result(self) -> TaskResult:
        """What the task predicts of an untrained encoder, computed once for all checks."""
        return _predict(self)

    def pretext(self, recipe: dict[str, Any] | None = None) -> PretextTask:
        """The pretext task with its networks, in training mode."""
        context = self.context("methods")
        if recipe:
            own = {**self.suite.recipes.get(self.name, {}), **recipe}
            recipes = {**self.suite.recipes, self.name: own}
            changed = self.suite.model_copy(update={"recipes": recipes})
            context = dataclasses.replace(context, suite=changed)
        seed_everything(0)
        pretext: PretextTask = plugins.load("methods", self.name)()
        pretext.build(context)
        return pretext

    def batch(self, pretext: PretextTask, images: int = IMAGES) -> Any:
        """What a loader collates of the first pretraining images."""
        labeled = self.context("methods").images
        labels = self.first_labels(pretext, labeled.labels)
        stream = Stream(labeled.images, labels, 0, pretext.transform, images)
        return default_collate([stream[i] for i in range(images)])

    def first_labels(self, pretext: PretextTask, classes: np.ndarray) -> np.ndarray:
        """The labels of the first pass: those that `start_epoch` makes, or the images' classes."""
        context = self.context("methods")
        job = TrainingJob(
            name=self.name,
            recipe=pretext.recipe,
            images=context.images.images,
            labels=classes,
            seed=context.seed,
            device=context.device,
            checkpoint=self.cache / "none.pt",
            key="",
            remedy="",
        )
        training = pretext.training
        seed_everything(0)
        made = pretext.start_epoch(0, job)
        pretext.train(training)
        return classes if made is None else made


def fitting(suite: Suite, method: str) -> Suite:
    """The suite, on a backbone that a method can train."""
    needed = plan.needed_backbone(method, suite)
    if not needed:
        return suite
    backbone = Backbone(name=KINDS[needed].smallest, imagenet="timm")
    return suite.model_copy(update={"backbone": backbone})


def first_task(suite: Suite) -> str:
    """The task on which methods are checked: the first that the suite has a section of.

    Raises:
        UserError: it has none.
    """
    if not suite.tasks:
        raise UserError(f"suite {suite.name}: has no task to check a method on")
    return next(iter(suite.tasks))


def require(condition: bool, message: str) -> None:
    """Raise unless a condition holds.

    Raises:
        ContractError: it does not.
    """
    if not condition:
        raise ContractError(message)


def describes_itself(bench: Bench, kind: Kind) -> None:
    """A docstring, a reference with a link, a version."""
    described = plugins.describe(kind, bench.name)
    require(bool(described.summary), "the file has no docstring: its first line is the summary")
    require("http" in described.constants["reference"], "`reference` has no link to the paper")


def fits_every_task(bench: Bench, kind: Kind) -> None:
    """Feature maps of the promised channels and strides, at even and odd sizes."""
    encoder = load_or_pretrain(bench.context(kind))
    require(not encoder.training, "the encoder is not in evaluation mode")
    for height, width in ((64, 64), (33, 47)):
        maps = encoder(torch.rand(1, 3, height, width))
        require(
            len(maps) == len(encoder.channels) == len(encoder.strides),
            f"{len(maps)} maps, {len(encoder.channels)} channels, {len(encoder.strides)} strides",
        )
        for stage, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
            promised = (1, channels, -(-height // stride), -(-width // stride))
            shape = tuple(stage.shape)
            require(shape == promised, f"a map is {shape}, its channels and stride say {promised}")
            require(bool(stage.isfinite().all()), "a map is not finite")


def same_seed_same_weights(bench: Bench, kind: Kind) -> None:
    """Two runs with one seed give the same weights; another seed gives others, if any is drawn."""
    first = load_or_pretrain(bench.context(kind))
    with temporary_folder() as folder:
        second = load_or_pretrain(bench.context(kind, cache=Path(folder)))
        other = load_or_pretrain(bench.context(kind, seed=1, cache=Path(folder)))
    same = first.weights_sha256() == second.weights_sha256()
    require(same, "two runs with the same seed gave different weights")
    if plugins.describe(kind, bench.name).trains_on_suite:
        differs = other.weights_sha256() != first.weights_sha256()
        require(differs, "another seed gave the same weights")


def gradients_reach_the_encoder(bench: Bench, kind: Kind) -> None:
    """Gradients reach the first and the last layers of every branch."""
    pretext = bench.pretext()
    batch = bench.batch(pretext)
    for objective in pretext.objectives().values():
        objective.loss(batch).backward()
    for branch in pretext.encoder.branches:
        reached = [p.grad is not None and bool(p.grad.any()) for p in branch.parameters()]
        share = sum(reached) / len(reached)
        require(share > 0.9, f"only {share:.0%} of the encoder's parameters have a gradient")
        require(reached[0], "the first layer of the encoder has no gradient")
        require(any(reached[-3:]), "the last layer of the encoder has no gradient")


def budget_counts_views(bench: Bench, kind: Kind) -> None:
    """As many images go through the encoder as `views_per_image` says."""
    pretext = bench.pretext()
    batch = bench.batch(pretext)
    shown: list[int] = []
    layers = (m for m in pretext.encoder.branches[0].modules() if not list(m.children()))
    first = next(layer for layer in layers if list(layer.parameters()))
    first.register_forward_pre_hook(lambda _, x: shown.append(len(x[0])))
    for objective in pretext.objectives().values():
        objective.loss(batch)
    views = pretext.views_per_image
    count = sum(shown) / IMAGES
    require(count == views, f"views_per_image is {views}, but the encoder is shown {count:g}")


def finite_in_half_precision(bench: Bench, kind: Kind) -> None:
    """Losses are finite in float16 and bfloat16, gradients in bfloat16."""
    pretext = bench.pretext()
    batch = bench.batch(pretext)
    for name, objective in pretext.objectives().items():
        with torch.autocast("cpu", torch.float16):
            require(bool(objective.loss(batch).isfinite()), f"{name} is not finite in float16")
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective.loss(batch)
        require(bool(loss.isfinite()), f"{name} is not finite in bfloat16")
        loss.backward()
    gradients = [p.grad for p in pretext.parameters() if p.grad is not None]
    require(bool(gradients), "no parameter has a gradient")
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    require(finite, "a gradient is not finite in bfloat16")


def odd_and_gray_images(bench: Bench, kind: Kind) -> None:
    """Images of odd sizes and without color are trained on."""
    pretext = bench.pretext()
    for shape in ((3, 20, 90), (3, 31, 17)):
        gray = torch.randint(0, 256, shape[1:], dtype=torch.uint8).expand(shape)
        batch = default_collate([pretext.transform(gray, 0) for _ in range(IMAGES)])
        for name, objective in pretext.objectives().items():
            size = f"{shape[1]} x {shape[2]}"
            finite = bool(objective.loss(batch).isfinite())
            require(finite, f"{name} is not finite on gray images of {size}")


def labels_unseen(bench: Bench, kind: Kind) -> None:
    """The class of an image changes nothing, unless the class says `uses_labels = True`."""
    pretext = bench.pretext()
    if getattr(pretext, "uses_labels", False):
        return
    if type(pretext).start_epoch is not TrainableModule.start_epoch:
        classes = bench.context(kind).images.labels
        own, others = (bench.first_labels(pretext, each) for each in (classes, classes[::-1]))
        same = np.array_equal(own, others)
        hint = "if that is meant, say `uses_labels = True`"
        require(same, f"the labels of `start_epoch` depend on the classes; {hint}")
        return
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    examples = []
    for label in (0, 1):
        seed_everything(0)
        examples.append(pretext.transform(image, label))
    pairs = zip(*map(_tensors, examples), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs)
    require(same, "`transform` depends on the label; if that is meant, say `uses_labels = True`")


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a nesting, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    else:
        yield torch.as_tensor(value)


def visualizes_images(bench: Bench, kind: Kind) -> None:
    """What `visualize` returns, if anything, are rows of RGB images in [0, 1]."""
    pretext = bench.pretext().eval()
    with torch.no_grad():
        rows = pretext.visualize(bench.batch(pretext))
    if rows is None:
        return
    shape = tuple(rows.shape)
    right = rows.ndim == 5 and shape[1:3] == (IMAGES, 3)
    require(right, f"`visualize` returns {shape}, not (rows, {IMAGES}, 3, h, w)")
    inside = float(rows.min()) >= 0 and float(rows.max()) <= 1
    require(inside, "`visualize` returns values outside [0, 1]")


def becomes_a_row(bench: Bench, kind: Kind) -> None:
    """A run of the suite records a score."""
    method = bench.name if kind == "methods" else plugins.UNTRAINED
    task = bench.name if kind == "tasks" else first_task(bench.suite)
    with temporary_folder() as folder:
        request = Request(
            suite=bench.suite,
            methods=(method,),
            tasks=(task,),
            seeds=(0,),
            data_root=None,
            out=Path(folder),
            cache=bench.cache,
            device="cpu",
        )
        cells = [Cell(method, task, 0)]
        execute.compute(cells, request, bench.reporter, bench.datasets, announce=_silent)
        record = storage.read(Cell(method, task, 0).path(request))
    require(record.status == "ok", f"the run failed: {record.error}")
    inside = record.value is not None and 0 <= record.value <= 100
    require(inside, f"the score is {record.value}, not in 0 to 100")


def _silent(cell: Cell, record: Record) -> None:
    """Print no score: those of these tests mean nothing."""


def same_predictions(bench: Bench, kind: Kind) -> None:
    """Two evaluations with one seed predict the same."""
    first = bench.result.predictions
    second = _predict(bench)
    for name, array in first.items():
        same = np.array_equal(array, second.predictions[name])
        require(same, f"two evaluations with the same seed gave different `{name}`")


def predictions_fit_the_metric(bench: Bench, kind: Kind) -> None:
    """The metric finds its arrays, and as many classes as it has values."""
    result = bench.result
    metric = _metric(bench)
    absent = {"ids", *metric.arrays} - result.predictions.keys()
    require(not absent, f"predictions lack {', '.join(sorted(absent))}")
    weights = registry.once(result.predictions)
    values = metric.per_class(result.predictions, weights)
    names = metric.classes(result.predictions)
    shape = values.shape
    require(shape == (len(names), 1), f"per_class returns {shape} for {len(names)} classes")
    present = values[np.isfinite(values)]
    inside = bool(present.size) and 0 <= present.min() <= present.max() <= 1
    require(inside, "per_class returns values outside [0, 1], or none")
    require(bool(metric.ground_truth(result.predictions)), "ground_truth returns nothing")


def test_labels_unseen(bench: Bench, kind: Kind) -> None:
    """Other labels of the test images change no prediction."""
    context = bench.context("tasks")
    dataset = context.dataset
    if not hasattr(dataset.test, "labels"):
        return
    test: Any = dataset.test
    order = np.roll(np.arange(len(test.labels)), 1)
    changed = dataclasses.replace(test, labels=test.labels[order])
    datasets = {**bench.datasets, dataset.name: dataclasses.replace(dataset, test=changed)}
    first = bench.result.predictions
    second = _predict(dataclasses.replace(bench, datasets=datasets)).predictions
    metric = _metric(bench)
    truth = [id(array) for array in metric.ground_truth(first)]
    for name in metric.arrays:
        if id(first[name]) not in truth:
            same = np.array_equal(first[name], second[name])
            require(same, f"other labels of the test images changed `{name}`")


def _metric(bench: Bench) -> registry.Metric:
    settings = bench.context("tasks").settings
    fallback = plugins.describe("tasks", bench.name).constants["metric"]
    return registry.get(getattr(settings, "metric", fallback))


def _predict(bench: Bench) -> TaskResult:
    """The task on an untrained encoder."""
    with temporary_folder() as folder:
        context = bench.context("tasks", cache=Path(folder))
        encoder = load_or_pretrain(context)
        seed_everything(0)
        result: TaskResult = plugins.load("tasks", bench.name)().evaluate(encoder, context)
        return result


Check = Callable[[Bench, Kind], None]
METHOD: tuple[Check, ...] = (
    describes_itself,
    fits_every_task,
    same_seed_same_weights,
    becomes_a_row,
)
PRETEXT: tuple[Check, ...] = (
    gradients_reach_the_encoder,
    budget_counts_views,
    finite_in_half_precision,
    odd_and_gray_images,
    labels_unseen,
    visualizes_images,
)
TASK: tuple[Check, ...] = (
    describes_itself,
    predictions_fit_the_metric,
    same_predictions,
    test_labels_unseen,
    becomes_a_row,
)


def checks(kind: Kind, name: str) -> tuple[Check, ...]:
    """The checks that concern a plug-in."""
    if kind == "tasks":
        return TASK
    pretext = issubclass(plugins.load(kind, name), PretextTask)
    return METHOD + PRETEXT if pretext else METHOD
