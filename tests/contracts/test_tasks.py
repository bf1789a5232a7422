"""The contract of a task, over every file in tasks/, and what voc_cls reports."""

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import plugins
from bench.config import loader
from bench.data.datasets import Data, open_data
from bench.errors import UserError
from bench.metrics.average_precision import class_average_precisions, mean_average_precision
from bench.metrics.rescore import headline
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.method import load_or_pretrain

TASKS = plugins.names("tasks")


@pytest.fixture(scope="module")
def scored(smoke, smoke_data, cache):
    made = Context(smoke, "random_init", 0, torch.device("cpu"), smoke_data, cache, Reporter())
    encoder = load_or_pretrain(made)
    before = encoder.weights_sha256()
    found = {name: plugins.load("tasks", name)().evaluate(encoder, made) for name in TASKS}
    assert encoder.weights_sha256() == before
    return encoder, made, found


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_is(name):
    constants = plugins.describe("tasks", name).constants
    assert "http" in constants["reference"]
    assert constants["version"] >= 1
    assert constants["metric"]
    assert constants["reads"]


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_points_with_their_predictions(name, scored):
    found = scored[2][name]
    assert 0 <= found.value <= 100
    assert found.value == pytest.approx(headline(found.predictions), abs=1e-9)
    assert found.selection["split"] == scored[1].suite.voc.train
    assert found.selection["candidates"] >= 1
    assert all(len(v) == 64 for v in found.data.values())
    assert len(found.predictions["ids"]) == len(scored[1].voc.test.ids)


@pytest.mark.parametrize("name", TASKS)
def test_the_same_encoder_scores_the_same(name, scored):
    encoder, made, found = scored
    again = plugins.load("tasks", name)().evaluate(copy.deepcopy(encoder), made)
    assert again.scores == found[name].scores
    assert again.selection == found[name].selection
    for key, array in found[name].predictions.items():
        np.testing.assert_array_equal(again.predictions[key], array)


def test_every_score_can_be_computed_from_the_predictions(scored):
    found = scored[2]["voc_cls"]
    p, s = found.predictions, found.scores
    assert found.value == s["mAP"] == 100 * mean_average_precision(p["scores"], p["truth"])
    per_class = 100 * class_average_precisions(p["scores"], p["truth"])
    assert list(s["per_class"].values()) == pytest.approx(list(per_class))
    for stage, curve in zip(p["stage_scores"], s["stage_mAP"], strict=True):
        assert 100 * mean_average_precision(stage, p["truth"]) == curve
    np.testing.assert_array_equal(p["stage_scores"][found.selection["stage"]], p["scores"])
    best = 100 * mean_average_precision(p["best_scores"], p["truth"])
    assert s["optimism"] == pytest.approx(best - found.value)
    for kind in ("area", "11-point", "step"):
        for difficult in ("ignore", "negative", "positive"):
            expected = 100 * mean_average_precision(p["scores"], p["truth"], kind, difficult)
            assert s[f"mAP_{kind}_difficult_{difficult}"] == expected


def test_the_stage_is_the_best_by_cross_validation_not_by_test(scored):
    found = scored[2]["voc_cls"]
    assert found.selection["stage"] == int(np.argmax(found.scores["stage_cv_mAP"]))


def test_nothing_is_chosen_on_the_test_list(scored):
    """Other test labels change the value, and neither costs, stage nor predictions."""
    encoder, made, found = scored
    test = made.voc.test
    other = replace(test, truth=test.truth[np.random.default_rng(0).permutation(len(test.truth))])
    moved = replace(made, data=Data(made.data.corpus, replace(made.voc, test=other)))
    again = plugins.load("tasks", "voc_cls")().evaluate(encoder, moved)
    assert again.selection == found["voc_cls"].selection
    np.testing.assert_array_equal(
        again.predictions["scores"], found["voc_cls"].predictions["scores"]
    )
    assert again.value != found["voc_cls"].value


def test_classes_with_too_few_positives_are_left_out_and_named(scored):
    encoder, made, _ = scored
    train, test = made.voc.train.truth, made.voc.test.truth
    counts = np.minimum((train == 1).sum(0), (test == 1).sum(0))
    least = int(np.sort(counts)[3]) + 1
    voc = made.suite.voc.model_copy(update={"min_positives": least})
    strict = replace(made, suite=made.suite.model_copy(update={"voc": voc}))
    found = plugins.load("tasks", "voc_cls")().evaluate(encoder, strict)
    names = np.array(made.suite.voc.classes)
    assert found.scores["excluded_classes"] == list(names[counts < least])
    assert list(found.predictions["classes"]) == list(names[counts >= least])
    none = voc.model_copy(update={"min_positives": 10_000})
    hopeless = replace(made, suite=made.suite.model_copy(update={"voc": none}))
    with pytest.raises(UserError, match="no class has 10000 positive images"):
        plugins.load("tasks", "voc_cls")().evaluate(encoder, hopeless)


def test_a_collapsed_encoder_is_flagged(scored):
    encoder, made, found = scored
    dead = copy.deepcopy(encoder)
    for parameter in dead.parameters():
        torch.nn.init.zeros_(parameter)
    assert "collapsed features" in plugins.load("tasks", "voc_cls")().evaluate(dead, made).flags
    assert found["voc_cls"].flags == []


def test_the_voc_suite_runs_as_it_stands_on_a_voc07_tree(devkit, cache, tmp_path):
    """ResNet-50 at 224 px on a VOC07 layout; only the class names are the fixture's."""
    mini = loader.load("mini")
    names = "[" + ",".join(f"'{name}'" for name in mini.voc.classes) + "]"
    voc = loader.load("voc", [f"voc.classes={names}"])
    small = tmp_path / "data/VOCdevkit/VOC2007"
    small.parent.mkdir(parents=True)
    small.symlink_to(devkit / "VOCdevkit/VOC2007")
    data = open_data(voc, tmp_path / "data", {"voc"}, cache, Reporter())
    made = Context(voc, "random_init", 0, torch.device("cpu"), data, cache, Reporter())
    found = plugins.load("tasks", "voc_cls")().evaluate(load_or_pretrain(made), made)
    assert len(found.scores["stage_mAP"]) == 5
    assert found.selection["candidates"] == 26 * 5
    assert 0 < found.value < 100


@pytest.mark.skipif("SSL_GAP_DATA_ROOT" not in os.environ, reason="SSL_GAP_DATA_ROOT is not set")
def test_imagenet_beats_chance_on_real_images(cache):
    """The tiny suite's data opens, and its thin classes are left out by name."""
    tiny = loader.load("tiny", ["voc.size=64", "probe.dimensions=320", "probe.costs=[0.1, 1.0]"])
    data = open_data(tiny, Path(os.environ["SSL_GAP_DATA_ROOT"]), {"voc"}, cache, Reporter())
    made = Context(tiny, "imagenet", 0, torch.device("cpu"), data, cache, Reporter())
    found = plugins.load("tasks", "voc_cls")().evaluate(load_or_pretrain(made), made)
    assert "aeroplane" in found.scores["excluded_classes"]
    assert len(found.scores["per_class"]) == 6
    assert found.value > 50
