"""The contract of a method: the checks of `bench test`, over every file in methods/."""

import inspect

import pytest
from support import TILED

from bench import plugins
from bench.commands import contracts
from bench.runtime.progress import Reporter
from bench.training.method import load_or_pretrain
from bench.training.pretext import PretextTask

METHODS = plugins.names("methods")
PRETEXTS = [name for name in METHODS if issubclass(plugins.load("methods", name), PretextTask)]
UNTRAINED = [name for name in METHODS if not plugins.describe("methods", name).trains_on_suite]
CASES = [(name, check) for name in METHODS for check in contracts.checks("methods", name)]


@pytest.fixture
def on_smoke(smoke, smoke_data, cache):
    """What the checks of a method run on."""
    return lambda name: contracts.Bench(name, smoke, smoke_data, cache, Reporter())


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{n}-{c.__name__}" for n, c in CASES])
def test_a_method_keeps_its_contract(name, check, on_smoke):
    check(on_smoke(name), "methods")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_one_short_file_with_a_version(name):
    assert plugins.describe("methods", name).version >= 1
    assert len(plugins.source("methods", name).path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", sorted({*UNTRAINED} - {"imagenet"}))
def test_weights_that_are_drawn_differ_by_seed(name, context):
    first, second = (load_or_pretrain(context(name, seed)) for seed in (0, 1))
    assert first.weights_sha256() != second.weights_sha256()


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_batch_of_one_image(name, on_smoke):
    """At 64 pixels: a batch norm cannot train on a single value, whatever the task."""
    on_smoke = on_smoke(name)
    pretext = on_smoke.pretext({"crop": 144 if name in TILED else 64})
    batch = on_smoke.batch(pretext, images=1)
    for objective in pretext.objectives().values():
        assert objective.loss(batch).isfinite()


def test_labels_are_for_supervised_training_alone():
    uses_labels = {n for n in PRETEXTS if getattr(plugins.load("methods", n), "uses_labels", 0)}
    assert uses_labels == {"supervised"}


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_pretext_task_inherits_the_only_training_loop(name):
    plugin = plugins.load("methods", name)
    assert plugin.pretrain is PretextTask.pretrain
    assert "optim" not in inspect.getsource(plugin)
