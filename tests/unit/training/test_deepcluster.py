"""DeepCluster: whitening, clusters, what an image weighs, and labels that survive a resume."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bench.methods import deepcluster
from sklearn.decomposition import PCA
from support import built

from bench.errors import UserError
from bench.training import trainer


def test_whitening_is_that_of_a_principal_component_analysis():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    found = deepcluster.whiten(features, 3)
    expected = PCA(3, whiten=True, svd_solver="full").fit_transform(features.astype(float))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    order = np.abs(expected.T @ found).argmax(1)
    signs = np.sign((expected * found[:, order]).sum(0))
    np.testing.assert_allclose(found[:, order] * signs, expected, atol=1e-3)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_whitening_of_channels_that_never_change_is_finite():
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    features[:, 2:6] = 0
    assert np.isfinite(deepcluster.whiten(features, 8)).all()
    assert np.isfinite(deepcluster.whiten(np.ones((5, 3), np.float32), 9)).all()


def test_an_empty_cluster_gets_an_image():
    """Centers begin on images, nearly all of which are the same: all but one would stay empty."""
    vectors = np.zeros((100, 2), np.float32)
    vectors[:3] = [[1, 0], [0, 1], [1, 1]]
    for seed in range(5):
        labels = deepcluster.cluster(vectors, 4, seed)
        assert np.bincount(labels, minlength=4).tolist().count(0) == 0
        assert len({*labels[:3].tolist(), int(labels[3])}) == 4


def test_fewer_kinds_of_image_than_clusters_leave_some_empty():
    labels = deepcluster.cluster(np.repeat(np.eye(2, dtype=np.float32), 10, 0), 5, 0)
    assert labels[0] != labels[10]
    weights = deepcluster.balance(labels, 5)
    assert np.isfinite(weights).all()
    assert weights[labels].mean() == pytest.approx(1)


def test_all_clusters_weigh_the_same():
    labels = np.array([0, 0, 0, 2, 3, 3])
    weights = deepcluster.balance(labels, 4)
    assert weights[[0, 2, 3]] == pytest.approx([2 / 3, 2, 1])
    assert np.bincount(labels, weights[labels])[[0, 2, 3]] == pytest.approx(2)


def test_the_center_of_an_oblong_image():
    ruler = torch.arange(64).to(torch.uint8).expand(3, 32, 64)
    cropped = deepcluster.center(ruler, 0, 28)  # the shorter side is 32 already
    assert torch.equal(cropped, ruler[:, 2:30, 18:46])


def test_more_clusters_than_images_are_refused(context):
    plain = context("deepcluster")
    recipes = plain.suite.recipes | {"deepcluster": {"clusters": 41}}
    asked = replace(plain, suite=plain.suite.model_copy(update={"recipes": recipes}))
    with pytest.raises(UserError, match=r"recipes\.deepcluster\.clusters = 41: there are 40 im"):
        built("deepcluster", lambda name: asked)


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


@pytest.fixture
def run(context, monkeypatch):
    """Pretrain for seven steps of 16 views; the labels of each pass, and the method."""
    made = []
    start = deepcluster.DeepCluster.start_epoch

    def noted(task, epoch, job):
        made.append((epoch, start(task, epoch, job)))
        return made[-1][1]

    monkeypatch.setattr(deepcluster.DeepCluster, "start_epoch", noted)
    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)

    def train(cache):
        plain = context("deepcluster")
        own = plain.suite.recipes["deepcluster"] | {"views": 112, "learning_rate": 1e-3}
        suite = plain.suite.model_copy(update={"recipes": {"deepcluster": own}})
        task = deepcluster.DeepCluster()
        torch.manual_seed(0)
        encoder = task.pretrain(replace(plain, suite=suite, cache=cache))
        return task, encoder.pretraining

    return train, made


@pytest.mark.slow
def test_clusters_are_made_anew_and_the_same_on_resume(run, tmp_path, monkeypatch):
    train, made = run
    whole, history = train(tmp_path / "a")
    labels = list(made)
    assert [epoch for epoch, _ in labels] == [0, 1, 2]  # 40 images
    assert all({*each.tolist()} == {*range(8)} for _, each in labels)
    assert not np.array_equal(labels[0][1], labels[1][1])
    assert 0 < history.logged["mutual_information"] < 1
    assert torch.equal(whole.clusters, torch.from_numpy(labels[-1][1]))
    np.testing.assert_allclose(whole.weights, deepcluster.balance(labels[-1][1], 8))
    assert whole.head.linear.weight.std().item() == pytest.approx(0.01, rel=0.3), "a new one"
    made.clear()
    save = trainer.Trainer._save

    def save_then_stop(run):
        save(run)
        if run.step == 4:  # inside the second pass
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(trainer.Trainer, "_save", save_then_stop)
        train(tmp_path / "b")
    resumed, again = train(tmp_path / "b")
    assert [epoch for epoch, _ in made] == [0, 1, 2]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(labels, made, strict=True))
    before, after = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.logged == history.logged


def test_workers_change_neither_clusters_nor_classifier(context, monkeypatch):
    states = []
    for workers in (0, 1):
        monkeypatch.setattr(deepcluster, "loader_workers", lambda count=workers: count)
        pretext = built("deepcluster", context)
        source = context("deepcluster").images
        job = SimpleNamespace(images=source.images, labels=source.labels, seed=0)
        torch.manual_seed(1)
        pretext.start_epoch(1, job)
        states.append(pretext.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_loss_weighs_every_image_by_its_cluster(context):
    pretext = built("deepcluster", context).eval()
    pretext.weights.copy_(torch.arange(8.0))
    crops = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 2, 5])
    with torch.no_grad():
        logits = pretext._classify(crops / 255).double().numpy()
        found = float(pretext.loss((crops, labels)))
    losses = [np.log(np.exp(row).sum()) - row[k] for row, k in zip(logits, labels, strict=True)]
    assert found == pytest.approx(np.mean([0, 2, 5] * np.array(losses)), rel=1e-5)
