"""The contract of a method: the checks of `bench test`, over every file in methods/."""

import inspect
import math

import pytest
import torch
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
    return lambda name: contracts.Bench(
        name, contracts.fitting(smoke, name), smoke_data, cache, Reporter()
    )


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


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_score_at_its_own_task_repeats_and_changes_nothing(name, on_smoke, context):
    pretext = on_smoke(name).pretext()
    weights = {key: tensor.clone() for key, tensor in pretext.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (pretext.score_on(context(name).validation) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    for key, tensor in pretext.state_dict().items():
        assert torch.equal(tensor, weights[key]), key
    assert first.num_images == 40
    numbers = (first.value, first.trivial, first.low, first.high)
    assert all(map(math.isfinite, numbers))
    gain = first.value - first.trivial
    assert first.low <= (gain if first.higher_is_better else -gain) <= first.high
    assert pretext.measure.name == first.measure and first.trivial > 0


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_score_is_two_numbers_for_each_image(name, on_smoke):
    on_smoke = on_smoke(name)
    pretext = on_smoke.pretext().eval()
    with torch.no_grad():
        for images in (1, 4):
            for part in pretext.score(on_smoke.batch(pretext, images)):
                assert part.shape == (images,) and part.isfinite().all()


def test_labels_are_for_supervised_training_alone():
    uses_labels = {n for n in PRETEXTS if getattr(plugins.load("methods", n), "uses_labels", 0)}
    assert uses_labels == {"supervised"}


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_pretext_task_inherits_the_only_training_loop(name):
    plugin = plugins.load("methods", name)
    assert plugin.pretrain is PretextTask.pretrain
    assert "optim" not in inspect.getsource(plugin)
