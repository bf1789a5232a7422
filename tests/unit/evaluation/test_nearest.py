"""The vote of neighbors against scikit-learn's, and the task on labeled folders and on VOC."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

from bench import plugins
from bench.errors import UserError
from bench.evaluation.probes.nearest import vote
from bench.metrics import mean_average_precision, registry
from bench.training.method import load_or_pretrain

TEMPERATURE = 0.07


@pytest.fixture(scope="module")
def vectors():
    """Training and test vectors of length 1, and the classes of both."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, size=700)
    raw = rng.normal(size=(700, 24)) + 0.8 * rng.normal(size=(6, 24))[labels]
    unit = F.normalize(torch.from_numpy(raw.astype(np.float32)), dim=1)
    return unit[:400], labels[:400], unit[400:], labels[400:]


def codes_of(labels):
    return np.where(labels[:, None] == np.arange(6), 1, -1)


def peer(bank, labels, k):
    """scikit-learn's classifier: Euclidean distances d of unit vectors, similarity 1 - d^2 / 2."""

    def weights(distances):
        return np.exp((1 - distances**2 / 2) / TEMPERATURE)

    neighbors = KNeighborsClassifier(k, weights=weights, algorithm="brute")
    return neighbors.fit(bank.double().numpy(), labels)


def test_shares_are_scikit_learns_probabilities(vectors):
    bank, labels, queries, _ = vectors
    ks = (1, 10, 50, 400)
    shares = vote(queries, bank, codes_of(labels), ks, TEMPERATURE)
    assert shares.shape == (4, 300, 6)
    for k, own in zip(ks, shares, strict=True):
        expected = peer(bank, labels, k).predict_proba(queries.double().numpy())
        np.testing.assert_allclose(own, expected, atol=1e-4)


def test_a_training_image_is_none_of_its_own_neighbors(vectors):
    bank, labels, *_ = vectors
    own = np.arange(0, 400, 7)
    (shares,) = vote(bank[own], bank, codes_of(labels), (20,), TEMPERATURE, own)
    for position, share in zip(own[:20], shares, strict=False):
        rest = np.arange(400) != position
        alone = peer(bank[rest], labels[rest], 20)
        expected = alone.predict_proba(bank[[position]].double().numpy())[0]
        np.testing.assert_allclose(share, expected, atol=1e-4)


def test_a_difficult_neighbor_is_left_out_of_its_class():
    bank = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=1)
    codes = np.array([[1, 0, 0], [-1, 1, 0], [1, 1, 1]])
    (shares,) = vote(bank[:1], bank, codes, (2,), TEMPERATURE)
    near = np.exp((float(bank[0] @ bank[1]) - 1) / TEMPERATURE)
    np.testing.assert_allclose(shares[0], [1 / (1 + near), 1, 0], atol=1e-6)


def test_small_temperatures_do_not_overflow(vectors):
    bank, labels, queries, _ = vectors
    (sharp,) = vote(queries, bank, codes_of(labels), (50,), 1e-4)
    nearest = labels[(queries @ bank.T).argmax(1).numpy()]
    assert np.isfinite(sharp).all()
    assert (sharp.argmax(1) == nearest).mean() > 0.99


def run(context, **changes):
    """The result of the task on an untrained encoder."""
    base = context(method="random_init", task="knn")
    section = {**base.suite.tasks["knn"], **changes}
    suite = base.suite.model_copy(update={"tasks": {**base.suite.tasks, "knn": section}})
    made = context(method="random_init", task="knn", at=suite)
    return plugins.load("tasks", "knn")().evaluate(load_or_pretrain(made), made)


def test_k_is_selected_by_leave_one_out_and_every_k_is_recorded(context):
    result = run(context, neighbors=(1, 5, 10))
    tuned, diagnostics = result.hyperparameters, result.diagnostics
    tried = dict(zip(tuned.tried["neighbors"], tuned.tried["validation_score"], strict=True))
    best = tuned.selected["neighbors"]
    assert best == min(k for k in tried if tried[k] == max(tried.values()))
    value = registry.value(registry.get("top1"), result.predictions)
    assert diagnostics[f"top1_k{best}"] == value
    assert diagnostics["best_on_test"] == max(diagnostics[f"top1_k{k}"] for k in (1, 5, 10))
    assert diagnostics["optimism"] == diagnostics["best_on_test"] - value


def test_several_labels_are_scored_by_map(context):
    result = run(context, dataset="voc", metric="mAP", neighbors=(5,))
    scores, truth = result.predictions["scores"], result.predictions["truth"]
    assert 0 <= scores.min() <= scores.max() <= 1
    assert {*np.unique(truth)} == {-1, 0, 1}
    assert result.diagnostics["mAP_k5"] == pytest.approx(
        100 * mean_average_precision(scores, truth)
    )


def test_folders_and_metrics_that_do_not_fit_are_refused(context):
    message = r"tasks\.knn\.metric: 'top1' cannot score data set 'voc' of kind voc; use 'mAP'"
    with pytest.raises(UserError, match=message):
        run(context, dataset="voc")
    message = r"tasks\.knn\.metric: 'mAP' cannot score .* of kind image_folder; use 'top1'"
    with pytest.raises(UserError, match=message):
        run(context, metric="mAP")
    with pytest.raises(UserError, match=r"tasks\.knn\.neighbors: 500 of 40 training images; use f"):
        run(context, neighbors=(5, 500))
    with pytest.raises(UserError, match=r"datasets\.pretraining\.test: is empty; knn needs a test"):
        run(context, dataset="pretraining")


def test_a_folder_without_classes_is_refused(context):
    made = context(method="random_init", task="knn")
    flat = replace(made.dataset, classes=())
    made = replace(made, datasets={**made.datasets, "labeled": flat})
    with pytest.raises(UserError, match=r"datasets\.labeled\.train: .* has no folder for each cla"):
        plugins.load("tasks", "knn")().evaluate(None, made)
