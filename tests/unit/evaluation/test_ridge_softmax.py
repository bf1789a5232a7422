import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from bench.evaluation.probes.ridge_softmax import fits

RIDGES = [1e-1, 1e-2, 1e-3]


def problem(n=1500, d=40, classes=5, seed=0):
    """Correlated features of spreads over two decades, off center, and labels that are noisy."""
    torch.manual_seed(seed)
    features = torch.randn(n, d) @ (torch.randn(d, d) * torch.logspace(0, -2, d)) + 3
    scores = features @ torch.randn(d, classes)
    return features, (scores + scores.std() * torch.randn(n, classes)).argmax(1)


def objective(weight, bias, features, labels, ridge):
    """Of standardized features, in float64."""
    logits = features @ weight.T + bias
    losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return losses.mean() + ridge / 2 * (weight**2).sum()


@pytest.mark.parametrize("shape", [{}, {"n": 60, "d": 100}])
def test_layers_are_those_of_scikit_learn(shape):
    features, labels = problem(**shape)
    mean, deviation = features.double().mean(0), features.double().std(0, correction=0)
    standard = ((features - mean) / deviation).numpy()
    classes = int(labels.max()) + 1
    for ridge, layer in zip(RIDGES, fits(features, labels, classes, RIDGES), strict=True):
        peer = LogisticRegression(C=1 / (ridge * len(labels)), tol=1e-10, max_iter=10_000)
        peer.fit(standard, labels.numpy())
        probabilities = layer(features).softmax(1).numpy()
        own = (layer.weight * deviation).double().numpy()
        bias = (layer.bias + layer.weight.double() @ mean).numpy()
        np.testing.assert_allclose(probabilities, peer.predict_proba(standard), atol=5e-3)
        least = objective(peer.coef_, peer.intercept_, standard, labels, ridge)
        assert objective(own, bias, standard, labels, ridge) == pytest.approx(least, abs=2e-5)


def test_a_layer_does_not_depend_on_the_ridges_before_it():
    features, labels = problem()
    *_, last = fits(features, labels, 5, RIDGES)
    (alone,) = fits(features, labels, 5, RIDGES[-1:])
    torch.testing.assert_close(last(features), alone(features), atol=0.05, rtol=0.02)


def test_a_constant_feature_says_nothing_and_no_scale_matters():
    features, labels = problem()
    constant = torch.full((len(features), 1), 1e4)
    (plain,) = fits(features, labels, 5, [1e-2])
    (wider,) = fits(torch.cat([features, constant], 1), labels, 5, [1e-2])
    assert not wider.weight[:, -1].any()
    torch.testing.assert_close(wider.weight[:, :-1], plain.weight, atol=1e-2, rtol=1e-2)
    (larger,) = fits(1e-6 * features, labels, 5, [1e-2])
    torch.testing.assert_close(larger(1e-6 * features), plain(features), atol=1e-2, rtol=1e-2)


def test_a_class_without_a_sample_is_never_predicted():
    features, labels = problem()
    (layer,) = fits(features, labels, 7, [1e-2])
    assert int(layer(features).argmax(1).max()) < 5
