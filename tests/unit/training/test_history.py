"""What a training run leaves beside its weights: trace, loss curve, logged metrics."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from bench import plugins
from bench.data.stream import Stream
from bench.training import history
from bench.training.history import History
from bench.training.optimizer import rate_factor


def trained(context, cache, method="rotation", **changes):
    plain = context(method)
    recipe = plain.suite.recipes.get(method, {}) | changes
    suite = plain.suite.model_copy(update={"recipes": plain.suite.recipes | {method: recipe}})
    changed = replace(plain, suite=suite, cache=cache)
    torch.manual_seed(0)
    task = plugins.load("methods", method)()
    return task, task.pretrain(changed).pretraining, changed


def test_the_trace_follows_the_stream_and_the_schedule(context, tmp_path):
    task, pretraining, made = trained(context, tmp_path, views=320, warmup=0.2)
    trace = pretraining.trace
    order = np.random.default_rng([0, 0]).permutation(40)
    assert trace.order == order[:12].tolist()  # 16 views a step are 4 images
    source = made.images
    stream = Stream(source.images, source.labels, 0, task.transform, 12)
    crops = torch.stack([stream[i] for i in range(12)]).double()
    for batch, values in zip(crops.split(4), trace.pixels, strict=True):
        assert values == pytest.approx(
            [batch.mean().item(), batch.std(correction=0).item()], rel=1e-5
        )
    rates = [made.recipe.learning_rate * rate_factor(s, 20, made.recipe) for s in range(20)]
    digest = ""
    for rate in rates:
        digest = hashlib.sha256(f"{digest} {rate:.9g}".encode()).hexdigest()
    found = trace.learning_rates
    assert (found.first, found.last, found.maximum) == (rates[0], rates[-1], max(rates))
    assert found.sha256 == digest
    assert trace.views == pretraining.views_seen == 320
    assert len(trace.losses["loss"]) == 10
    assert trace.losses["loss"] == pretraining.loss_curve.losses["loss"][:10]


def test_every_loss_is_traced_and_short_runs_are_short(context, tmp_path):
    _, pretraining, _ = trained(context, tmp_path, "pix2pix", views=32)
    assert {*pretraining.trace.losses} == {"loss_generator", "loss_discriminator"}
    assert {*pretraining.loss_curve.losses} == {"loss_generator", "loss_discriminator"}
    assert all(len(values) == 2 for values in pretraining.trace.losses.values())
    assert len(pretraining.trace.order) == 32 and len(pretraining.trace.pixels) == 2
    assert {"l1", "diversity", "loss_generator", "loss_discriminator"} == {*pretraining.logged}


def filled(steps, flushes=()):
    """A history whose loss is the number of the step."""
    kept = History(steps)
    for step in range(steps):
        loss = torch.tensor(float(step))
        kept.add_step(step, 0.1, {"loss": loss}, {"twice": 2 * loss})
        if step in flushes:
            again = History(steps)
            again.load_state_dict(kept.state_dict())
            kept = again
    return kept.result(0, 0.0, [], {})


@pytest.mark.parametrize("steps", [1, 7, 200, 201, 999])
def test_the_loss_curve_is_the_mean_since_the_last_point(steps):
    curve = filled(steps).loss_curve
    assert len(curve.steps) == len(curve.losses["loss"]) <= 200
    assert curve.steps[-1] == steps
    bounds = [0, *curve.steps]
    means = [np.mean(range(a, b)) for a, b in pairwise(bounds)]
    assert curve.losses["loss"] == pytest.approx(means)


def test_logged_values_are_means_over_the_last_tenth():
    assert filled(100).logged == {"loss": 94.5, "twice": 189.0}
    assert filled(100).trace.losses == {"loss": [float(step) for step in range(10)]}


def test_a_checkpoint_anywhere_changes_nothing():
    assert filled(250, flushes=range(250)) == filled(250) == filled(250, flushes=(3, 90, 249))


def test_the_trace_names_where_each_part_of_a_run_was_computed(context, tmp_path):
    kept = History(4)
    for step, place in enumerate(("one", "one", "two", "one")):
        kept.add_machine(place)
        kept.add_step(step, 0.1, {"loss": torch.tensor(1.0)}, {})
        again = History(4)
        again.load_state_dict(kept.state_dict())
        kept = again
    assert kept.result(0, 0.0, [], {}).trace.machines == ["one", "two", "one"]
    _, pretraining, _ = trained(context, tmp_path, views=32)
    (place,) = pretraining.trace.machines
    threads, kernels = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    assert place.endswith(f" ({kernels}), {threads} thread{'s' * (threads > 1)}, device cpu")


def test_steps_after_the_first_ten_are_read_together(monkeypatch):
    """A value that is read makes the processor wait for the GPU."""
    kept = History(60)
    reads = []
    to_list = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "__float__", lambda t: reads.append("float") or t.item())
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: reads.append("list") or to_list(t))
    for step in range(60):
        kept.add_step(step, 0.1, {"loss": torch.tensor(1.0)}, {"accuracy": torch.tensor(0.5)})
        if step % 20 == 19:
            kept.flush()
    assert reads == ["float"] * 10 + ["list"] * 3


def test_only_tensors_of_images_have_pixels():
    crops, masks = torch.full((2, 3, 4, 4), 5, dtype=torch.uint8), torch.zeros(2, 4, 4)
    labels = torch.zeros(2, dtype=torch.int64)
    tiles = torch.tensor([0.0, 1.0]).expand(1, 9, 3, 2, 2)
    batch = {"a": [crops, (labels, masks)], "b": tiles, "c": "name"}
    assert history._pixel_statistics(batch) == [5.0, 0.0, 0.5, 0.5]
