"""What the training loop offers to modern methods: teachers, multi-crop, labels made anew."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.data.transforms import random_crop, to_unit_range
from bench.training import trainer
from bench.training.parts.heads import Classifier
from bench.training.pretext import PretextTask


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


def train(method, context, cache, views=160):
    """A method after some steps of 16 views, and its encoder."""
    plain = context("rotation")
    recipes = plain.suite.recipes | {"rotation": {"views": views}}
    suite = plain.suite.model_copy(update={"recipes": recipes})
    task = method()
    torch.manual_seed(0)
    return task, task.pretrain(replace(plain, suite=suite, cache=cache))


def train_in_two_runs(method, context, cache, monkeypatch, stop, **settings):
    """The same, killed right after it took `stop` steps and saved them."""
    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)
    save = trainer.Trainer._save

    def save_then_stop(run):
        save(run)
        if run.step == stop:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(trainer.Trainer, "_save", save_then_stop)
        train(method, context, cache, **settings)
    return train(method, context, cache, **settings)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class Teacher(PretextTask):
    """A linear layer that matches a teacher, which is its exponential moving average."""

    momentum: ClassVar[float] = 0.9
    calls: ClassVar[list] = []
    students: ClassVar[list] = []

    def build(self, context):
        super().build(context)
        self.student = nn.Linear(self.encoder.channels[-1], 8)
        self.teacher = nn.Linear(self.encoder.channels[-1], 8).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())

    def loss(self, batch):
        features = self.encoder(to_unit_range(batch))[-1].mean((2, 3))
        return F.mse_loss(self.student(features), self.teacher(features.detach()) + 1)

    def after_step(self, step, steps):
        assert not torch.is_grad_enabled()
        self.calls.append((step, steps))
        self.students.append(self.student.weight.clone())
        for own, student in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            own.lerp_(student, 1 - self.momentum)


@pytest.fixture
def teacher():
    """A fresh class, as it notes what it was called with."""
    return type("FreshTeacher", (Teacher,), {"calls": [], "students": []})


def test_a_teacher_is_the_average_of_all_steps(teacher, context, tmp_path):
    task, _ = train(teacher, context, tmp_path)
    assert task.calls == [(step, 10) for step in range(10)]
    torch.manual_seed(0)
    start = teacher()
    start.build(context("rotation"))
    expected = start.student.weight.detach()
    for student in task.students:
        expected = 0.9 * expected + 0.1 * student
    torch.testing.assert_close(task.teacher.weight, expected)
    assert not torch.equal(task.teacher.weight, task.student.weight)


@pytest.mark.slow
def test_a_teacher_goes_on_after_a_resume(teacher, context, tmp_path, monkeypatch):
    whole, _ = train(teacher, context, tmp_path / "a")
    students = list(teacher.students)
    teacher.students.clear()
    resumed, _ = train_in_two_runs(teacher, context, tmp_path / "b", monkeypatch, stop=4)
    assert all(map(torch.equal, teacher.students, students))
    assert len(teacher.students) == len(students) == 10
    before, after = weights(whole), weights(resumed)
    assert all(torch.equal(before[name], after[name]) for name in before)


class MultiCrop(PretextTask):
    """Two large crops and two small ones of each image, all through the encoder."""

    views_per_image: ClassVar[int] = 4
    shapes: ClassVar[list] = []

    def build(self, context):
        super().build(context)
        self.small = self.recipe.model_copy(update={"crop": 16})

    def transform(self, image, label):
        large = [random_crop(image, self.recipe) for _ in range(2)]
        small = [random_crop(image, self.small) for _ in range(2)]
        return {"crops": [*large, *small], "index": (label, torch.tensor(label))}

    def loss(self, batch):
        self.shapes.append([tuple(crop.shape) for crop in batch["crops"]])
        assert torch.equal(*batch["index"])
        maps = [self.encoder(to_unit_range(crop))[-1].mean((2, 3)) for crop in batch["crops"]]
        return torch.stack(maps).var(0).mean()


def test_crops_of_several_sizes_count_as_views(context, tmp_path):
    method = type("FreshMultiCrop", (MultiCrop,), {"shapes": []})
    _, encoder = train(method, context, tmp_path)
    large, small = (4, 3, 32, 32), (4, 3, 16, 16)  # 16 views a step are 4 images
    assert method.shapes == [[large, large, small, small]] * 10
    assert encoder.pretraining.views_seen == 160
    trace = encoder.pretraining.trace
    assert len(trace.order) == 12
    assert [len(values) for values in trace.pixels] == [8, 8, 8]  # mean and deviation of each crop


class Clusters(PretextTask):
    """Labels made anew for each pass, from the weights of that moment."""

    calls: ClassVar[list] = []
    batches: ClassVar[list] = []

    def build(self, context):
        super().build(context)
        self.head = Classifier(self.encoder.channels[-1], 4)

    def start_epoch(self, epoch, job):
        weight = self.head.linear.weight.detach().sum().item()
        rng = np.random.default_rng([int(abs(weight) * 1e6), epoch])
        labels = rng.integers(4, size=len(job.labels))
        self.calls.append((epoch, labels))
        return labels

    def transform(self, image, label):
        return random_crop(image, self.recipe), label

    def loss(self, batch):
        crops, labels = batch
        self.batches.append(labels.tolist())
        return F.cross_entropy(self.head(self.encoder(to_unit_range(crops))[-1]), labels)


@pytest.fixture
def clusters():
    return type("FreshClusters", (Clusters,), {"calls": [], "batches": []})


def test_every_pass_is_trained_on_its_own_labels(clusters, context, tmp_path):
    """40 images in batches of 16: passes start at the steps 0, 3, 5 and 8."""
    _, encoder = train(clusters, context, tmp_path)
    assert [epoch for epoch, _ in clusters.calls] == [0, 1, 2, 3]
    first_steps = [0, 3, 5, 8, 10]
    for k, (_, labels) in enumerate(clusters.calls):
        steps = range(first_steps[k], first_steps[k + 1])
        for step in steps:
            passes = [divmod(position, 40) for position in range(16 * step, 16 * (step + 1))]
            images = [np.random.default_rng([0, p]).permutation(40)[offset] for p, offset in passes]
            assert clusters.batches[step] == labels[images].tolist()
    assert not np.array_equal(clusters.calls[0][1], clusters.calls[1][1])
    assert (
        encoder.pretraining.trace.order[:3]
        == np.random.default_rng([0, 0]).permutation(40)[:3].tolist()
    )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 4])  # at the first step of a pass, and inside it
def test_a_resumed_run_keeps_the_labels_of_its_pass(clusters, stop, context, tmp_path, monkeypatch):
    whole, _ = train(clusters, context, tmp_path / "a")
    batches = list(clusters.batches)
    clusters.batches.clear()
    cache = tmp_path / "b"
    resumed, _ = train_in_two_runs(clusters, context, cache, monkeypatch, stop=stop)
    assert clusters.batches == batches
    before, after = weights(whole), weights(resumed)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_more_passes_than_steps(clusters, context, tmp_path):
    """A batch that is larger than the set of images belongs to the pass of its first image."""
    plain = context("rotation")
    recipes = {"rotation": {"views": 300, "batch": 100}}
    suite = plain.suite.model_copy(update={"recipes": recipes})
    clusters().pretrain(replace(plain, suite=suite, cache=tmp_path))
    assert [epoch for epoch, _ in clusters.calls] == [0, 2, 5]
