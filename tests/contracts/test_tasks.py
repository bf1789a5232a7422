"""The contract of a task: the checks of `bench test` over every file in tasks/."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import plugins
from bench.commands import contracts, execute
from bench.commands.request import Cell, Request
from bench.config import loader
from bench.data.datasets import open_datasets
from bench.errors import UserError
from bench.metrics import class_average_precisions, mean_average_precision, registry
from bench.results import storage
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.method import load_or_pretrain

TASKS = plugins.names("tasks")
CASES = [(name, check) for name in TASKS for check in contracts.checks("tasks", name)]


def evaluate(encoder, context):
    return plugins.load("tasks", context.task)().evaluate(encoder, context)


@pytest.fixture(scope="module")
def contexts(smoke, smoke_data, cache):
    """For each task, the context of an untrained encoder."""
    made = Context(smoke, "random_init", 0, torch.device("cpu"), smoke_data, cache, Reporter())
    return {name: replace(made, task=name) for name in TASKS}


@pytest.fixture(scope="module")
def encoder(contexts):
    return load_or_pretrain(contexts["voc_cls"])


@pytest.fixture(scope="module")
def results(contexts, encoder):
    """What each task predicts of one untrained encoder, which it leaves as it is."""
    before = encoder.weights_sha256()
    results = {name: evaluate(encoder, context) for name, context in contexts.items()}
    assert encoder.weights_sha256() == before
    return results


@pytest.fixture
def result(results):
    return results["voc_cls"]


@pytest.fixture(scope="module")
def benches(smoke, smoke_data, cache):
    return {name: contracts.Bench(name, smoke, smoke_data, cache, Reporter()) for name in TASKS}


@pytest.mark.parametrize(("name", "check"), CASES, ids=[f"{n}-{c.__name__}" for n, c in CASES])
def test_a_task_keeps_its_contract(name, check, benches):
    check(benches[name], "tasks")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_is(name, smoke, contexts):
    constants = plugins.describe("tasks", name).constants
    assert constants["version"] >= 1
    assert registry.get(constants["metric"]).name == constants["metric"]
    assert smoke.datasets[contexts[name].settings.dataset].kind in constants["dataset_kinds"]


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_points_of_the_test_split_tuned_on_the_training_split(name, results, contexts):
    result = results[name]
    dataset = contexts[name].dataset
    metric = registry.get(plugins.describe("tasks", name).constants["metric"])
    assert 0 <= registry.value(metric, result.predictions) <= 100
    assert result.hyperparameters.split.endswith(f"of {dataset.name} train")
    assert result.hyperparameters.num_settings >= 1
    assert tuple(result.predictions["ids"]) == dataset.test.ids


@pytest.mark.parametrize("name", TASKS)
def test_the_same_encoder_scores_the_same(name, results, contexts, encoder):
    first, second = results[name], evaluate(copy.deepcopy(encoder), contexts[name])
    for part in ("hyperparameters", "diagnostics", "per_stage", "selected_stage", "warnings"):
        assert getattr(second, part) == getattr(first, part)
    for key, array in first.predictions.items():
        np.testing.assert_array_equal(second.predictions[key], array)


def test_every_score_can_be_computed_from_the_predictions(result):
    predictions, diagnostics = result.predictions, result.diagnostics
    scores, truth = predictions["scores"], predictions["truth"]
    value = 100 * mean_average_precision(scores, truth)
    assert registry.value(registry.get("mAP"), predictions) == pytest.approx(value, abs=1e-9)
    assert diagnostics["mAP_area_difficult_ignore"] == value
    per_class = registry.per_class(registry.get("mAP"), predictions)
    assert list(per_class) == list(predictions["classes"])
    expected = 100 * class_average_precisions(scores, truth)
    assert list(per_class.values()) == pytest.approx(list(expected))
    for stage, stage_value in zip(predictions["stage_scores"], result.per_stage, strict=True):
        assert 100 * mean_average_precision(stage, truth) == stage_value
    np.testing.assert_array_equal(predictions["stage_scores"][result.selected_stage], scores)
    best = 100 * mean_average_precision(predictions["best_scores"], truth)
    assert diagnostics["optimism"] == pytest.approx(best - value)
    assert diagnostics["best_on_test"] == pytest.approx(best)
    for kind in ("area", "11-point", "step"):
        for difficult in ("ignore", "negative", "positive"):
            expected = 100 * mean_average_precision(scores, truth, kind, difficult)
            assert diagnostics[f"mAP_{kind}_difficult_{difficult}"] == expected


def test_the_stage_is_the_best_by_cross_validation_not_by_test(result):
    tuned = result.hyperparameters
    assert result.selected_stage == tuned.selected["stage"]
    assert result.selected_stage == int(np.argmax(tuned.tried["stage_validation_mAP"]))


def test_nothing_is_selected_on_the_test_split(result, contexts, encoder):
    """Other test labels change the value, and neither costs, stage nor predictions."""
    context = contexts["voc_cls"]
    test = context.dataset.test
    order = np.random.default_rng(0).permutation(len(test.labels))
    dataset = replace(context.dataset, test=replace(test, labels=test.labels[order]))
    permuted = evaluate(encoder, replace(context, datasets={**context.datasets, "voc": dataset}))
    assert permuted.hyperparameters == result.hyperparameters
    np.testing.assert_array_equal(permuted.predictions["scores"], result.predictions["scores"])
    metric = registry.get("mAP")
    value = registry.value(metric, result.predictions)
    assert registry.value(metric, permuted.predictions) != value


def with_min_positives(context, least):
    section = context.dataset.section.model_copy(update={"min_positives": least})
    dataset = replace(context.dataset, section=section)
    return replace(context, datasets={**context.datasets, "voc": dataset})


def test_classes_with_too_few_positives_are_left_out_and_named(contexts, encoder):
    context = contexts["voc_cls"]
    train, test = context.dataset.train.labels, context.dataset.test.labels
    counts = np.minimum((train == 1).sum(0), (test == 1).sum(0))
    least = int(np.sort(counts)[3]) + 1
    result = evaluate(encoder, with_min_positives(context, least))
    names = np.array(context.dataset.classes)
    assert result.excluded_classes == list(names[counts < least])
    assert list(result.predictions["classes"]) == list(names[counts >= least])
    with pytest.raises(UserError, match="no class has 10000 positive images"):
        evaluate(encoder, with_min_positives(context, 10_000))


def test_a_collapsed_encoder_is_flagged(result, contexts, encoder):
    dead = copy.deepcopy(encoder)
    for parameter in dead.parameters():
        torch.nn.init.zeros_(parameter)
    assert "collapsed features" in evaluate(dead, contexts["voc_cls"]).warnings
    assert result.warnings == []


def test_settings_may_name_the_metric(smoke, smoke_data, tmp_path, monkeypatch):
    """Learning rates are selected by it, and it is the record's."""
    section = {**smoke.tasks["voc_det"], "metric": "AP50_area"}
    suite = smoke.model_copy(update={"tasks": {"voc_det": section}})
    cell = Cell("random_init", "voc_det", 0)
    request = Request(
        *(suite, ("random_init",), ("voc_det",), (0,), None, tmp_path / "out", tmp_path / "cache"),
        device="cpu",
    )
    used = []
    value = registry.value
    monkeypatch.setattr(plugins.load("tasks", "voc_det"), "diagnostics", lambda *_: {})
    monkeypatch.setattr(registry, "value", lambda m, p: used.append(m.name) or value(m, p))
    execute.compute([cell], request, Reporter(), smoke_data)
    record = storage.read(cell.path(request))
    assert (record.status, record.metric) == ("ok", "AP50_area")
    rates = smoke.tasks["voc_det"]["learning_rates"]
    assert used.count("AP50_area") > len(rates)
    assert {*used} == {"AP50_area"}


@pytest.mark.slow
def test_the_voc_suite_runs_as_it_is_on_a_voc07_tree(devkit, cache, tmp_path):
    """ResNet-50 at 224 px on a VOC07 layout; only the class names are the fixture's."""
    names = list(loader.load("mini").datasets["voc"].classes)
    voc = loader.load("voc", [f"datasets.voc.classes={names}"])
    small = tmp_path / "data/VOCdevkit/VOC2007"
    small.parent.mkdir(parents=True)
    small.symlink_to(devkit / "VOCdevkit/VOC2007")
    datasets = open_datasets(voc, {"voc"}, tmp_path / "data", cache, Reporter())
    cpu = torch.device("cpu")
    context = Context(voc, "random_init", 0, cpu, datasets, cache, Reporter(), task="voc_cls")
    result = evaluate(load_or_pretrain(context), context)
    assert len(result.per_stage) == 5
    assert result.hyperparameters.num_settings == 26 * 5
    assert 0 < registry.value(registry.get("mAP"), result.predictions) < 100


@pytest.mark.skipif("SSL_GAP_DATA_ROOT" not in os.environ, reason="SSL_GAP_DATA_ROOT is not set")
def test_imagenet_beats_chance_on_real_images(cache):
    """The tiny suite's data opens, and its thin classes are left out by name."""
    section = {"size": 64, "dimensions": 320, "costs": "[0.1, 1.0]"}
    tiny = loader.load("tiny", [f"tasks.voc_cls.{key}={value}" for key, value in section.items()])
    root = Path(os.environ["SSL_GAP_DATA_ROOT"])
    datasets = open_datasets(tiny, {"voc"}, root, cache, Reporter())
    cpu = torch.device("cpu")
    context = Context(tiny, "imagenet", 0, cpu, datasets, cache, Reporter(), task="voc_cls")
    result = evaluate(load_or_pretrain(context), context)
    assert "aeroplane" in result.excluded_classes
    assert len(result.predictions["classes"]) == 6
    assert registry.value(registry.get("mAP"), result.predictions) > 50
