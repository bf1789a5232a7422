"""The checks of `bench test` fail on planted faults, each by a message that says what is wrong."""

import numpy as np
import pytest
import torch

from bench import plugins
from bench.commands import contracts
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.fixture
def fails(own_plugins, smoke, smoke_data, cache):
    """What a check says of a shipped plug-in with a changed class."""

    def message(check, name, kind="methods", **changes):
        base = plugins.load(kind, name)
        changed = type(base.__name__, (base,), {"__doc__": "Changed.", **changes})
        suite = smoke
        if kind == "tasks":
            suite = smoke.model_copy(update={"tasks": {"changed": smoke.tasks[name]}})
        plugins.add_object(kind, "changed", changed, "0")
        bench = contracts.Bench("changed", suite, smoke_data, cache, Reporter())
        with pytest.raises((contracts.ContractError, UserError)) as error:
            check(bench, kind)
        return str(error.value)

    return message


def test_a_method_without_a_link(fails):
    assert "no link" in fails(contracts.describes_itself, "rotation", reference="a paper")


def test_a_method_that_returns_no_encoder(fails):
    pretrain = lambda self, context: torch.nn.Identity()  # noqa: E731
    message = fails(contracts.fits_every_task, "random_init", pretrain=pretrain)
    assert message == "changed: its encoder is a Identity, not an Encoder"


def test_weights_that_depend_on_more_than_the_seed(fails):
    base = plugins.load("methods", "random_init")
    calls = []

    def pretrain(self, context):
        calls.append(1)
        torch.manual_seed(len(calls))
        return base.pretrain(self, context)

    message = fails(contracts.same_seed_same_weights, "random_init", pretrain=pretrain)
    assert message == "two runs with the same seed gave different weights"


def test_an_encoder_without_gradients(fails):
    base = plugins.load("methods", "rotation")

    def loss(self, batch):
        self.encoder.requires_grad_(False)
        return base.loss(self, batch)

    message = fails(contracts.gradients_reach_the_encoder, "rotation", loss=loss)
    assert message == "only 0% of the encoder's parameters have a gradient"


def test_a_wrong_count_of_views(fails):
    message = fails(contracts.budget_counts_views, "rotation", views_per_image=1)
    assert message == "views_per_image is 1, but the encoder is shown 4"


@pytest.mark.parametrize("check", ["finite_in_half_precision", "odd_and_gray_images"])
def test_a_loss_that_is_not_finite(fails, check):
    base = plugins.load("methods", "rotation")
    loss = lambda self, batch: base.loss(self, batch) * float("inf")  # noqa: E731
    assert "is not finite" in fails(getattr(contracts, check), "rotation", loss=loss)


def test_a_transform_that_looks_at_the_label(fails):
    base = plugins.load("methods", "rotation")
    transform = lambda self, image, label: base.transform(self, image, label) // (1 + label)  # noqa: E731
    message = fails(contracts.labels_unseen, "rotation", transform=transform)
    assert message.startswith("`transform` depends on the label")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(2, 3, 8, 8), "`visualize` returns (2, 3, 8, 8)"),
        (torch.full((2, contracts.IMAGES, 3, 8, 8), 255.0), "values outside"),
    ],
)
def test_a_visualization_that_is_no_image(fails, rows, message):
    visualize = lambda self, batch: rows  # noqa: E731
    text = fails(contracts.visualizes_images, "rotation", visualize=visualize)
    assert message in text


def test_a_method_that_fails_in_a_run(fails):
    def pretrain(self, context):
        raise ValueError("out of luck")

    message = fails(contracts.becomes_a_row, "random_init", pretrain=pretrain)
    assert message.startswith("the run failed: ")
    assert "out of luck" in message


def evaluating(change):
    """voc_cls's evaluation, its predictions changed."""
    base = plugins.load("tasks", "voc_cls")

    def evaluate(self, encoder, context):
        result = base.evaluate(self, encoder, context)
        change(result.predictions, context)
        return result

    return evaluate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, _: p.pop("truth"), "predictions lack truth"),
        (lambda p, _: p.update(classes=p["classes"][1:]), "per_class returns"),
        (lambda p, _: p.update(truth=-np.ones_like(p["truth"])), "or none"),
    ],
)
def test_predictions_that_do_not_fit_the_metric(fails, change, message):
    check = contracts.predictions_fit_the_metric
    assert message in fails(check, "voc_cls", "tasks", evaluate=evaluating(change))


def test_predictions_that_differ_from_run_to_run(fails):
    rng = np.random.default_rng(0)
    change = lambda p, _: p.update(scores=p["scores"] + rng.normal())  # noqa: E731
    message = fails(contracts.same_predictions, "voc_cls", "tasks", evaluate=evaluating(change))
    assert message == "two evaluations with the same seed gave different `scores`"


def test_predictions_that_use_the_labels_of_the_test_images(fails):
    def change(predictions, context):
        predictions["scores"] = predictions["scores"] + predictions["truth"]

    message = fails(contracts.test_labels_unseen, "voc_cls", "tasks", evaluate=evaluating(change))
    assert message == "other labels of the test images changed `scores`"
