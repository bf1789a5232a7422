"""What the fine-tuned tasks share: that they learn, choose on the training list, and go on."""

import copy
import dataclasses

import pytest
import torch

from bench import plugins, suite
from bench.data import open_data
from bench.masks import Masks
from bench.method import Context, obtain
from bench.progress import Reporter
from bench.voc import Voc

TASKS = suite.TUNED
EIGHT = ["scenes.train=8", "scenes.test=1", "scenes.corpus=1", "voc.min_positives=1"]
SHORT = [f"{task}.{key}" for task in TASKS for key in ("images=16", "batch=4", "size=32")]


@pytest.fixture(scope="module")
def eight(cache):
    """A context that trains and tests on the same eight pictures."""

    def make(*sets, method="random_init"):
        chosen = suite.load("mini", [*EIGHT, *sets])
        chosen = chosen.model_copy(update={"probe": chosen.probe.model_copy(update={"folds": 1})})
        data = open_data(chosen, None, {"voc", "masks"}, cache, Reporter())
        same = dataclasses.replace(
            data,
            voc=Voc(data.voc.train, data.voc.train),
            masks=Masks(data.masks.train, data.masks.train),
        )
        return Context(chosen, method, 0, torch.device("cpu"), same, cache, Reporter())

    return make


def evaluate(task, context):
    return plugins.load("tasks", task)().evaluate(copy.deepcopy(obtain(context)), context)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "settings", "least"),
    [
        ("voc_det", ["images=3200", "trial=0.01", "scale=[1.0, 1.0]"], 90),
        ("voc_seg", ["images=3200", "trial=0.01", "scale=[1.0, 1.0]"], 80),
        ("voc_cls_finetune", ["images=1600", "trial=0.01", "crop_scale=[0.9, 1.0]"], 95),
    ],
)
def test_a_task_learns_eight_pictures_by_heart(task, settings, least, eight):
    sets = [f"{task}.{key}" for key in (*settings, "batch=8", "learning_rates=[0.001]")]
    assert evaluate(task, eight(*sets)).value > least
