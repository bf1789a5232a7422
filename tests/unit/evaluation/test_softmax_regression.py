"""The linear classifier against torch's SGD and scikit-learn, and what its task selects."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from bench import plugins
from bench.errors import UserError
from bench.evaluation.features import features
from bench.evaluation.probes import softmax_regression
from bench.metrics import registry
from bench.training.method import load_or_pretrain
from bench.training.trainer import NonFiniteLossError

CPU = torch.device("cpu")


@dataclass
class How:
    epochs: int = 10
    batch: int = 7
    weight_decay: float = 0.01
    milestones: tuple[float, ...] = (0.6, 0.8)
    learning_rates: tuple[float, ...] = (0.01, 0.3)


@pytest.fixture(scope="module")
def problem():
    """Features (120, 12) of three channels and the labels of four classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=120)
    found = rng.normal(size=(120, 12)) * 3 + 2 + rng.normal(size=(4, 12))[labels]
    return found.astype(np.float32), labels


def fit(problem, how, rows=None, scale=None):
    rows = np.arange(120) if rows is None else rows
    return softmax_regression.fit(*problem, rows, 4, how, scale, 5, CPU)


def test_steps_are_those_of_torch(problem):
    """The same batches through nn.Linear, cross-entropy and torch.optim.SGD."""
    found, labels = problem
    how, rows = How(), np.arange(0, 120, 2)
    weights = fit(problem, how, rows)
    for place, rate in enumerate(how.learning_rates):
        linear = nn.Linear(12, 4)
        for parameter in linear.parameters():
            nn.init.zeros_(parameter)
        settings = {"momentum": 0.9, "weight_decay": how.weight_decay}
        optimizer = torch.optim.SGD(linear.parameters(), lr=rate, **settings)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6, 8])
        for epoch in range(10):
            order = np.random.default_rng([5, epoch]).permutation(rows)
            for chosen in np.split(order, range(7, len(order), 7)):
                logits = linear(torch.from_numpy(found[chosen]))
                optimizer.zero_grad()
                nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen])).backward()
                optimizer.step()
            schedule.step()
        expected = torch.cat([linear.weight, linear.bias[:, None]], dim=1).T
        torch.testing.assert_close(weights[:, place], expected, atol=1e-4, rtol=1e-3)


def test_the_minimum_is_scikit_learns(problem):
    """With whole batches and many steps. Its intercept is not regularized, so the constant 1 is
    one of its features; its C is 1 / (images x weight decay)."""
    found, labels = problem
    scale = softmax_regression.scale_of(found, np.arange(120), 12)
    how = How(3000, 120, 0.01, (0.9,), (0.3,))
    weights = fit(problem, how, scale=scale)[:, 0]
    x = ((torch.from_numpy(found) - scale.mean) / scale.deviation).double().numpy()
    x = np.hstack([x, np.ones((120, 1))])
    peer = LogisticRegression(C=1 / (120 * 0.01), fit_intercept=False, tol=1e-10, max_iter=10_000)
    expected = torch.from_numpy(peer.fit(x, labels).coef_.T).float()
    torch.testing.assert_close(weights, expected, atol=1e-3, rtol=1e-2)
    (best,) = softmax_regression.best_classes(found, np.arange(120), weights[:, None], scale, 4)
    np.testing.assert_array_equal(best, np.argsort(-peer.decision_function(x), axis=1))


def test_a_channels_scale_is_that_of_batch_norm(problem, monkeypatch):
    monkeypatch.setattr(softmax_regression, "ROWS", 13)
    found, _ = problem
    rows = np.arange(10, 90)
    scale = softmax_regression.scale_of(found, rows, 3)
    cells = torch.from_numpy(found[rows]).unflatten(1, (3, 2, 2))
    expected = nn.BatchNorm2d(3, affine=False)(cells).flatten(1)
    ours = (torch.from_numpy(found[rows]) - scale.mean) / scale.deviation
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_rates_do_not_touch_one_another(problem):
    together = fit(problem, How())
    alone = fit(problem, How(learning_rates=(0.3,)))
    torch.testing.assert_close(together[:, 1:], alone, atol=1e-5, rtol=1e-4)


def at(context, **changes):
    base = context(method="random_init", task="imagenet_linear")
    section = {**base.suite.tasks["imagenet_linear"], **changes}
    tasks = {**base.suite.tasks, "imagenet_linear": section}
    suite = base.suite.model_copy(update={"tasks": tasks})
    return context(method="random_init", task="imagenet_linear", at=suite)


def run(made):
    return plugins.load("tasks", "imagenet_linear")().evaluate(load_or_pretrain(made), made)


def test_stage_and_rate_are_the_best_on_held_out_images(context):
    result = run(at(context, validation_fraction=0.5))
    tuned = result.hyperparameters
    tried = tuned.tried["stage_validation_top1"]
    assert result.selected_stage == tuned.selected["stage"] == int(np.argmax(tried))
    value = registry.value(registry.get("top1"), result.predictions)
    assert result.per_stage[result.selected_stage] == pytest.approx(value)
    assert result.diagnostics["best_on_test"] >= max(result.per_stage)
    assert result.diagnostics["optimism"] == pytest.approx(
        result.diagnostics["best_on_test"] - value
    )
    assert result.diagnostics["top5"] >= value
    assert tuned.num_settings == 2 * len(result.per_stage)


def test_the_last_stage_alone_is_what_one_classifier_predicts(context):
    """MoCo's protocol, with torch's own layers on the same features."""
    changes = {"stages": "last", "batch_norm": False, "learning_rates": (0.1,), "batch": 40}
    made = at(context, **changes)
    result = run(made)
    assert (result.per_stage, result.selected_stage) == (None, None)
    encoder, settings, dataset = load_or_pretrain(made), made.settings, made.dataset
    fitted, tested = (
        torch.tensor(
            np.array(
                features(encoder, split.images, settings.size, settings.dimensions, made, "")[-1]
            )
        )
        for split in (dataset.train, dataset.test)
    )
    linear = nn.Linear(fitted.shape[1], 10)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    for _ in range(3):
        optimizer.zero_grad()
        labels = torch.from_numpy(dataset.train.labels)
        nn.functional.cross_entropy(linear(fitted), labels).backward()
        optimizer.step()
        schedule.step()
    expected = linear(tested).argmax(1).numpy()
    assert (result.predictions["predicted"] == expected).mean() > 0.95


def test_other_test_labels_select_the_same(context):
    made = at(context)
    first = run(made)
    test = made.dataset.test
    dataset = replace(made.dataset, test=replace(test, labels=np.roll(test.labels, 3)))
    second = run(replace(made, datasets={**made.datasets, "labeled": dataset}))
    assert second.hyperparameters == first.hyperparameters
    for name in ("ids", "predicted"):
        np.testing.assert_array_equal(second.predictions[name], first.predictions[name])


def test_training_that_diverges_is_named(context, monkeypatch):
    message = r"diverged at every rate of \[0\.01, 0\.1\]; lower tasks\.imagenet_linear\.learning"
    fitted = softmax_regression.fit
    monkeypatch.setattr(softmax_regression, "fit", lambda *a: fitted(*a) * torch.nan)
    with pytest.raises(NonFiniteLossError, match=message):
        run(at(context))


def test_a_folder_without_a_test_split_is_refused(context):
    message = r"datasets\.pretraining\.test: is empty; imagenet_linear needs a test split"
    with pytest.raises(UserError, match=message):
        run(at(context, dataset="pretraining"))
