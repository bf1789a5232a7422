"""Low-shot SVMs: the samples, each solution against scikit-learn's, and what the task selects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from bench import plugins
from bench.errors import UserError
from bench.evaluation.features import features
from bench.evaluation.probes import linear_svm, low_shot
from bench.metrics import average_precision, class_average_precisions, registry
from bench.training.method import load_or_pretrain

COSTS = [1e-5, 0.01, 1.0, 100.0]


@pytest.fixture(scope="module")
def problem():
    """Features of length 1 of 300 training and 100 test images, and labels of four classes."""
    rng = np.random.default_rng(0)
    truth = rng.choice([1, -1, 0], p=[0.3, 0.6, 0.1], size=(400, 4)).astype(np.int8)
    raw = np.maximum(rng.normal(size=(400, 60)) + (truth == 1) @ rng.normal(size=(4, 60)), 0)
    vectors = linear_svm.normalize(torch.from_numpy(raw.astype(np.float32)))
    return vectors[:300], truth[:300], vectors[300:]


@pytest.mark.parametrize("shots", [1, 5, 25])
@pytest.mark.parametrize("direct_cost", [0, low_shot.DIRECT_COST, 1e9])  # always direct; never
def test_decision_values_are_those_of_scikit_learn(problem, shots, direct_cost, monkeypatch):
    monkeypatch.setattr(low_shot, "DIRECT_COST", direct_cost)
    monkeypatch.setattr(low_shot, "FEWEST", 0 if direct_cost == 0 else low_shot.FEWEST)
    train, labels, test = problem
    rows = low_shot.draw(labels, range(4), shots, 3, 0)
    fits = low_shot.fit(low_shot.Products(train, test), rows, shots, COSTS)
    assert fits.unconverged == 0
    assert fits.scores.shape == (4, len(COSTS), 400)
    both = torch.cat([train, test]).double().numpy()
    y = np.where(np.arange(rows.shape[1]) < shots, 1, -1)
    for own, scores in zip(rows, fits.scores, strict=True):
        for cost, decisions in zip(COSTS, scores, strict=True):
            svm = LinearSVC(C=cost, dual=False, tol=1e-9, max_iter=10_000, class_weight={1: 2})
            svm.fit(both[own], y)
            scale = np.linalg.norm([*svm.coef_[0], *svm.intercept_])
            bound = 1.5 * linear_svm.ACCURACY * scale  # as in test_linear_svm
            np.testing.assert_allclose(decisions, svm.decision_function(both), atol=bound, rtol=0)


def test_batches_change_no_solution(problem, monkeypatch):
    train, labels, test = problem
    rows = low_shot.draw(labels, range(4), 5, 3, 0)
    products = low_shot.Products(train, test)
    together = low_shot.fit(products, rows, 5, COSTS).scores
    monkeypatch.setattr(low_shot, "PRODUCTS", 1)
    np.testing.assert_allclose(low_shot.fit(products, rows, 5, COSTS).scores, together, atol=1e-4)


def test_a_sample_is_what_the_released_script_draws(problem):
    """k positives and k negatives for each other class, without replacement, never difficult."""
    _, labels, _ = problem
    for shots in (1, 4, 20):
        rows = low_shot.draw(labels, range(4), shots, 3, 2)
        assert rows.shape == (4, 4 * shots)
        for c, own in enumerate(rows):
            assert len({*own}) == len(own)
            assert labels[own, c].tolist() == [1] * shots + [-1] * 3 * shots


def test_samples_are_independent_of_what_else_is_drawn(problem):
    _, labels, _ = problem
    every = low_shot.draw(labels, range(4), 4, 3, 0)
    np.testing.assert_array_equal(low_shot.draw(labels, [2], 4, 3, 0)[0], every[2])
    others = [low_shot.draw(labels, range(4), 4, 3, sample) for sample in range(1, 5)]
    assert all((rows != every).any() for rows in others)


def test_every_image_is_drawn_as_often_as_any_other(problem):
    _, labels, _ = problem
    positive = np.flatnonzero(labels[:, 0] == 1)
    draws = [low_shot.draw(labels, [0], 8, 1, sample)[0, :8] for sample in range(2000)]
    counts = np.bincount(np.concatenate(draws), minlength=len(labels))[positive]
    share = 8 / len(positive)
    assert abs(counts - 2000 * share).max() < 5 * np.sqrt(2000 * share * (1 - share))


def test_the_metric_is_the_mean_over_samples():
    rng = np.random.default_rng(0)
    truth = rng.choice([1, -1, 0], p=[0.3, 0.6, 0.1], size=(50, 3))
    scores = truth + rng.normal(size=(4, 50, 3))
    names = np.array(["a", "b", "c"])
    predictions = {"ids": np.arange(50), "classes": names, "scores": scores, "truth": truth}
    metric = registry.get("mAP_samples")
    each = [class_average_precisions(own, truth) for own in scores]
    assert registry.value(metric, predictions) == pytest.approx(100 * np.mean(each))
    values = registry.per_class(metric, predictions)
    assert list(values.values()) == pytest.approx(list(100 * np.mean(each, axis=0)))
    for wrong, message in (
        (scores[0], r"scores \(50, 3\) must be \(S, N, C\)"),
        (scores[:0], "scores has no sample"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.value(metric, predictions | {"scores": wrong})


def at(context, **changes):
    base = context(method="random_init", task="voc_lowshot")
    section = {**base.suite.tasks["voc_lowshot"], **changes}
    suite = base.suite.model_copy(update={"tasks": {**base.suite.tasks, "voc_lowshot": section}})
    return context(method="random_init", task="voc_lowshot", at=suite)


def run(made):
    return plugins.load("tasks", "voc_lowshot")().evaluate(load_or_pretrain(made), made)


def precision(svm, vectors, label):
    """Average precision of one class; difficult images are ignored."""
    decisions = svm.decision_function(vectors)
    return average_precision(decisions[label != 0], label[label != 0] == 1)


def test_the_whole_task_by_scikit_learn(context):
    """Scores, selected costs and stage, curve and deviations, one SVM after another."""
    made = at(context)
    result = run(made)
    train, test = made.dataset.train, made.dataset.test
    names = result.predictions["classes"]
    classes = [made.dataset.classes.index(name) for name in names]
    encoder, settings = load_or_pretrain(made), made.settings
    both = [
        features(encoder, split.images, settings.size, settings.dimensions, made, "")
        for split in (train, test)
    ]
    found = {}
    for stage, (fitted, scored) in enumerate(zip(*both, strict=True)):
        x, z = (linear_svm.normalize(torch.tensor(np.array(f))).numpy() for f in (fitted, scored))
        for k in settings.shots:
            rows = [low_shot.draw(train.labels, classes, k, 9, s) for s in range(2)]
            for cost in settings.costs:
                means = []
                for own in rows:
                    aps = []
                    for c, images in zip(classes, own, strict=True):
                        svm = LinearSVC(C=cost, dual=False, tol=1e-9, class_weight={1: 2})
                        svm.fit(x[images], np.arange(len(images)) < k)
                        outside = train.labels[:, c].copy()
                        outside[images] = 0
                        pairs = ((x, outside), (z, test.labels[:, c]))
                        aps.append([precision(svm, v, label) for v, label in pairs])
                    means.append(np.mean(aps, axis=0))
                inner, outer = 100 * np.array(means).T
                found[stage, k, cost] = inner.mean(), outer
    stages = range(len(result.per_stage))
    validation = [max(found[s, 2, cost][0] for cost in settings.costs) for s in stages]
    tuned = result.hyperparameters
    assert tuned.tried["stage_validation_mAP"] == pytest.approx(validation, abs=0.5)
    assert result.selected_stage == tuned.selected["stage"] == int(np.argmax(validation))
    for k in settings.shots:
        values = found[result.selected_stage, k, tuned.selected["cost"][f"k{k}"]][1]
        assert result.diagnostics[f"mAP_k{k}"] == pytest.approx(values.mean(), abs=0.5)
        assert result.diagnostics[f"mAP_k{k}_sd"] == pytest.approx(values.std(), abs=0.5)
    value = registry.value(registry.get("mAP_samples"), result.predictions)
    assert value == pytest.approx(result.diagnostics["mAP_k2"])
    assert value == pytest.approx(result.per_stage[result.selected_stage])
    best = max(found[s, 2, cost][1].mean() for s in stages for cost in settings.costs)
    assert result.diagnostics["best_on_test"] == pytest.approx(best, abs=0.5)
    optimism = result.diagnostics["best_on_test"] - value
    assert result.diagnostics["optimism"] == pytest.approx(optimism)


def test_settings_and_images_that_do_not_fit_are_refused(context):
    with pytest.raises(UserError, match=r"main_shots 3 is none of shots"):
        run(at(context, main_shots=3))
    message = r"no class has 50 positive images in both splits; lower tasks\.voc_lowshot\.shots"
    with pytest.raises(UserError, match=message):
        run(at(context, shots=[2, 50]))
    made = at(context)
    train = made.dataset.train
    labels = np.where(np.arange(len(train.labels))[:, None] % 6 == 0, -1, 1).astype(np.int8)
    dataset = replace(made.dataset, train=replace(train, labels=labels))
    message = r"shots: 2 positive images take 18 negative ones, but class '\w+' has 14; lower it"
    with pytest.raises(UserError, match=message):
        run(replace(made, datasets={**made.datasets, "voc": dataset}))
