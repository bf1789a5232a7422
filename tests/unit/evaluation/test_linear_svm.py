import inspect

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from bench.evaluation.probes import linear_svm
from bench.metrics import average_precision

COSTS = [0.01, 1.0, 100.0]
SHAPES = [(300, 20), (60, 200), (500, 120)]  # N > D, N < D, and one in between


def problem(n, d, classes=3, seed=0):
    """Features of length 1 that separate the classes in part, and labels with difficult ones."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1, 0], p=[0.3, 0.65, 0.05], size=(2 * n, classes)).astype(np.int8)
    raw = rng.normal(size=(2 * n, d)) + 1.0 * (truth == 1) @ rng.normal(size=(classes, d)) + 1
    features = linear_svm.normalize(torch.from_numpy(np.maximum(raw, 0).astype(np.float32)))
    return features[:n], truth[:n], features[n:]


def reference(features, label, cost):
    """The same SVM in scikit-learn, solved tightly."""
    svm = LinearSVC(C=cost, dual=False, tol=1e-9, max_iter=100_000, class_weight={1: 2, -1: 1})
    return svm.fit(features.double().numpy(), np.where(label == 1, 1, -1))


def objective(w, x, y, weight):
    slack = np.maximum(1 - y * (x @ w), 0)
    value = w @ w / 2 + (weight * slack**2).sum()
    return value, w - 2 * x.T @ (weight * y * slack)


@pytest.mark.parametrize("shape", SHAPES)
def test_decision_values_are_those_of_scikit_learn(shape):
    train, labels, test = problem(*shape)
    result = linear_svm.fit(train, labels, test, COSTS, 3)
    assert result.unconverged == 0 and result.problems == 3 * len(COSTS) * 4
    assert result.scores.shape == (3, len(COSTS), len(test))
    for c, label in enumerate(labels.T):
        for k, cost in enumerate(COSTS):
            svm = reference(train, label, cost)
            expected = svm.decision_function(test.double().numpy())
            scale = np.linalg.norm([*svm.coef_[0], *svm.intercept_])
            # |w - w*| <= ACCURACY |w| and |(x, 1)| = sqrt(2) bound the difference.
            bound = 1.5 * linear_svm.ACCURACY * scale
            np.testing.assert_allclose(result.scores[c, k], expected, atol=bound, rtol=0)


def test_cross_validation_is_scikit_learns():
    train, labels, test = problem(300, 20)
    result = linear_svm.fit(train, labels, test, COSTS, 3)
    x = train.numpy()
    for c, label in enumerate(labels.T):
        y = label == 1
        for k, cost in enumerate(COSTS):
            values = []
            for rows, held in StratifiedKFold(3).split(x, y):
                scores = reference(train[rows], label[rows], cost).decision_function(x[held])
                values.append(average_precision(scores, y[held]))
            assert result.cv[c, k] == pytest.approx(np.mean(values), abs=0.005)


@pytest.mark.parametrize("shape", [*SHAPES, (1500, 300)])
@pytest.mark.parametrize("cost", [1e-4, 1.0, 1000.0, 1e5])
def test_the_objective_is_least(shape, cost):
    train, labels, _ = problem(*shape, classes=1)
    x = np.hstack([train.double().numpy(), np.ones((len(train), 1))])
    y = np.where(labels[:, 0] == 1, 1.0, -1.0)
    weight = cost * np.where(y > 0, 2.0, 1.0)
    span = linear_svm._Span(train)
    theta = torch.zeros(span.z.shape[1], 1, dtype=torch.float64)
    columns = torch.from_numpy(np.stack([y, weight], axis=1))
    decisions = span.z @ theta
    assert linear_svm._solve(span, columns[:, :1], columns[:, 1:], theta, decisions) == 0
    ours = objective(span.weights(theta)[:, 0].numpy(), x, y, weight)[0]
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-14, "gtol": 1e-10}
    best = minimize(
        objective, np.zeros(x.shape[1]), (x, y, weight), "L-BFGS-B", jac=True, options=options
    )
    assert ours <= best.fun * (1 + 1e-5)


def test_iterative_and_direct_directions_agree(monkeypatch):
    train, labels, test = problem(500, 120)
    scores = []
    for direct_cost in (0, 1e9):  # always direct; never direct
        monkeypatch.setattr(linear_svm, "DIRECT_COST", direct_cost)
        scores.append(linear_svm.fit(train, labels, test, COSTS, 2).scores)
    assert np.abs(scores[0] - scores[1]).max() < 2e-2 * np.abs(scores[0]).max()


def test_the_selected_cost_has_the_highest_validation_score_and_is_the_smallest_of_equals():
    train, labels, test = problem(200, 20)
    result = linear_svm.fit(train, labels, test, [100.0, 0.01, 1.0], 3)
    assert (result.cv[range(3), result.selected] == result.cv.max(axis=1)).all()
    # One feature that separates perfectly: every cost ranks alike.
    line = torch.linspace(-1, 1, 40)[:, None]
    label = np.where(line.numpy() > 0, 1, -1).astype(np.int8)
    tied = linear_svm.fit(line, label, line, [10.0, 0.1, 1.0], 2)
    assert (tied.cv == 1).all() and tied.selected.tolist() == [1]


def test_costs_in_any_order_give_the_same_columns():
    train, labels, test = problem(100, 10)
    forward, backward = (
        linear_svm.fit(train, labels, test, costs, 2) for costs in (COSTS, COSTS[::-1])
    )
    np.testing.assert_allclose(forward.scores, backward.scores[:, ::-1], atol=1e-5)
    np.testing.assert_array_equal(forward.cv, backward.cv[:, ::-1])


def test_a_class_does_not_depend_on_the_classes_beside_it():
    train, labels, test = problem(200, 20)
    together = linear_svm.fit(train, labels, test, COSTS, 3)
    turned = linear_svm.fit(train, labels[:, [2, 0, 1]], test, COSTS, 3)
    alone = linear_svm.fit(train, labels[:, :1], test, COSTS, 3)
    np.testing.assert_allclose(turned.scores[[1, 2, 0]], together.scores, atol=1e-4)
    np.testing.assert_allclose(alone.scores, together.scores[:1], atol=1e-4)


def test_the_same_inputs_give_the_same_bits():
    train, labels, test = problem(200, 50)
    one, two = (linear_svm.fit(train, labels, test, COSTS, 3) for _ in range(2))
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.cv, two.cv)


def test_difficult_images_are_negatives_in_training():
    train, labels, test = problem(100, 10)
    negative = np.where(labels == 0, -1, labels).astype(np.int8)
    one, two = (linear_svm.fit(train, y, test, COSTS, 2) for y in (labels, negative))
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.cv, two.cv)


def test_truth_values_are_labels():
    train, labels, test = problem(100, 10)
    one, two = (linear_svm.fit(train, y, test, COSTS, 2) for y in (labels, labels == 1))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_folds_are_stratified_and_leave_the_refit_whole():
    _, labels, _ = problem(90, 2)
    held = linear_svm._held_out(labels == 1, 3).reshape(90, 3, 4)
    assert (held[:, :, :3].sum(axis=2) == 1).all() and not held[:, :, 3].any()
    positives = (held & (labels == 1)[:, :, None]).sum(axis=0)[:, :3]
    assert (np.ptp(positives, axis=1) <= 1).all()


def test_it_cannot_see_test_labels():
    assert list(inspect.signature(linear_svm.fit).parameters)[:3] == ["train", "labels", "test"]
    train, labels, test = problem(100, 10)
    one, two = (linear_svm.fit(train, labels, other, COSTS, 2) for other in (test, -test))
    np.testing.assert_array_equal(one.cv, two.cv)
    np.testing.assert_array_equal(one.selected, two.selected)


def test_unconverged_problems_are_counted(monkeypatch):
    monkeypatch.setattr(linear_svm, "NEWTON_STEPS", 0)
    result = linear_svm.fit(*problem(100, 10), COSTS, 2)
    assert result.unconverged == result.problems == 3 * len(COSTS) * 3


def test_progress_adds_up_to_the_problems():
    solved = []
    result = linear_svm.fit(*problem(100, 10), COSTS, 2, advance=solved.append)
    assert len(solved) == len(COSTS) and sum(solved) == result.problems


def test_features_that_are_all_alike_give_a_constant_score():
    _, labels, _ = problem(100, 1)
    result = linear_svm.fit(torch.zeros(100, 8), labels, torch.zeros(5, 8), COSTS, 2)
    assert result.unconverged == 0 and np.isfinite(result.scores).all()
    assert (np.ptp(result.scores, axis=2) == 0).all()


def test_normalize_gives_rows_of_length_one_and_leaves_zeros():
    rows = linear_svm.normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "features is of torch.int64; expected a tensor"),
        (torch.ones(2, 3, 4), r"features \(2, 3, 4\) must be two-dimensional"),
        (torch.full((2, 3), 6e4, dtype=torch.float16), "a row whose length overflows"),
    ],
)
def test_what_cannot_be_normalized_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        linear_svm.normalize(features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones((5, 1), dtype=np.int8)}, r"labels \(5, 1\)"),
        ({"test": torch.zeros(4, 3)}, r"test \(4, 3\)"),
        ({"costs": []}, "costs must be positive and different"),
        ({"costs": [1.0, 1.0]}, "costs must be positive and different"),
        ({"costs": [0.0]}, "costs must be positive and different"),
        ({"folds": 40}, "class 0 has .* positives .* too few for 40 folds"),
        ({"folds": 1}, "too few for 1 folds of 2 or more"),
        ({"test": torch.full((4, 10), float("nan"))}, "not all finite"),
        ({"test": torch.zeros(4, 10, dtype=torch.uint8)}, "test is of torch.uint8; expected a"),
        ({"train": np.zeros((100, 10))}, "train is of ndarray; expected a tensor"),
        ({"train": torch.zeros(100, 10, 1)}, r"train \(100, 10, 1\) must be two-dimensional"),
        ({"labels": np.full((100, 1), 2)}, r"labels holds 2 at \(0, 0\); expected 1, -1 and 0"),
        ({"labels": np.full((100, 1), "1")}, "labels holds text"),
        ({"labels": np.ones((100, 0))}, r"labels \(100, 0\)"),
        ({"costs": [1.0, float("inf")]}, "costs holds inf at 1; expected finite numbers"),
        ({"costs": [float("nan")]}, "costs holds nan at 0"),
        ({"costs": ["1"]}, "costs holds text"),
        ({"folds": 2.0}, "folds is 2.0; expected an integer"),
    ],
)
def test_what_cannot_be_solved_is_refused(change, message):
    train, labels, test = problem(100, 10)
    inputs = {"train": train, "labels": labels, "test": test, "costs": COSTS, "folds": 2}
    with pytest.raises(ValueError, match=message):
        linear_svm.fit(**{**inputs, **change})
