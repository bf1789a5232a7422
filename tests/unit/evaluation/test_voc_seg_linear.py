"""The dense frozen probe: against the protocol written out for one image at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from bench import plugins
from bench.data.image_files import read, resize_exact
from bench.data.voc_masks import read_mask
from bench.errors import UserError
from bench.metrics import registry
from bench.training.method import load_or_pretrain


def evaluate(encoder, made):
    return plugins.load("tasks", "voc_seg_linear")().evaluate(encoder, made)


def at(context, **changes):
    """A context of the task with other settings."""
    made = context("random_init", task="voc_seg_linear")
    section = {**made.suite.tasks["voc_seg_linear"], **changes}
    tasks = {**made.suite.tasks, "voc_seg_linear": section}
    return replace(made, suite=made.suite.model_copy(update={"tasks": tasks}))


@pytest.fixture
def encoder(context):
    return load_or_pretrain(context("random_init")).eval()


def columns(encoder, path, shape, size):
    """All maps of an image at its own size, (H x W, D)."""
    rgb = resize_exact(read(path), size)[None] / 255
    with torch.no_grad():
        maps = [F.interpolate(m, shape, mode="bilinear") for m in encoder(rgb)]
    return torch.cat(maps, 1)[0].flatten(1).T.numpy()


def masked(split, index):
    return read_mask(split.masks.root / split.masks.files[index])


def test_labels_are_those_of_the_protocol_by_scikit_learn(context, encoder):
    made = at(context, sizes=(64,), ridges=(0.03,), pixels=20)
    train, test = made.dataset.train, made.dataset.test
    features, labels = [], []
    for index in range(len(train.ids)):
        mask = masked(train, index)
        counted = np.flatnonzero(mask != 255)
        places = np.random.default_rng(index).choice(counted, 20)
        path = train.images.root / train.images.files[index]
        features.append(columns(encoder, path, mask.shape, 64)[places])
        labels.append(mask.flat[places])
    x, y = np.concatenate(features).astype(float), np.concatenate(labels)
    mean, deviation = x.mean(0), x.std(0)
    peer = LogisticRegression(C=1 / (0.03 * len(y)), tol=1e-8, max_iter=5_000)
    peer.fit((x - mean) / deviation, y)
    result = evaluate(encoder, made)
    same = whole = 0
    for index in range(20):
        mask = masked(test, index)
        path = test.images.root / test.images.files[index]
        predicted = peer.predict((columns(encoder, path, mask.shape, 64) - mean) / deviation)
        confusion = np.zeros((11, 11), int)
        np.add.at(confusion, (mask.ravel()[mask.ravel() != 255], predicted[mask.ravel() != 255]), 1)
        same += np.minimum(confusion, result.predictions["confusion"][index]).sum()
        whole += confusion.sum()
    assert same > 0.995 * whole


def test_the_best_size_and_penalty_are_selected(context, encoder):
    made = at(context, sizes=(32, 64), ridges=(1e-2, 1e-1, 1e1))
    tuned = evaluate(encoder, made).hyperparameters
    tried = tuned.tried
    assert list(zip(tried["size"], tried["ridge"], strict=True)) == [
        (size, ridge) for size in (32, 64) for ridge in (1e1, 1e-1, 1e-2)
    ]
    best = int(np.argmax(tried["validation_score"]))
    assert tuned.selected == {"size": tried["size"][best], "ridge": tried["ridge"][best]}
    assert tuned.num_settings == 6
    alone = at(context, sizes=(tried["size"][best],), ridges=(tried["ridge"][best],))
    first, second = evaluate(encoder, made), evaluate(encoder, alone)
    np.testing.assert_array_equal(first.predictions["confusion"], second.predictions["confusion"])


def test_the_seed_changes_nothing_and_nor_do_test_masks(context, encoder):
    made = at(context)
    first = evaluate(encoder, made)
    again = evaluate(encoder, replace(made, seed=1))
    np.testing.assert_array_equal(first.predictions["confusion"], again.predictions["confusion"])
    test = made.dataset.test
    masks = replace(test.masks, files=tuple(reversed(test.masks.files)))
    dataset = replace(made.dataset, test=replace(test, masks=masks))
    other = evaluate(encoder, replace(made, datasets={**made.datasets, "voc_masks": dataset}))
    assert other.hyperparameters == first.hyperparameters
    metric = registry.get("mIoU")
    assert registry.value(metric, other.predictions) < registry.value(metric, first.predictions)


def test_masks_without_a_pixel_are_one_line(context, encoder, tmp_path, monkeypatch):
    module = plugins.load("tasks", "voc_seg_linear").__module__
    monkeypatch.setattr(f"{module}.read_mask", lambda path: np.full((48, 48), 255, np.uint8))
    with pytest.raises(UserError, match="the masks of 80 images have no pixel that counts"):
        evaluate(encoder, at(context))


def test_held_out_images_without_a_pixel_are_one_line(context, encoder, monkeypatch):
    made = at(context, validation_fraction=0.001)
    train = made.dataset.train
    (held_out,) = np.random.default_rng(0).permutation(80)[:1]
    own = train.masks.root / train.masks.files[held_out]
    module = plugins.load("tasks", "voc_seg_linear").__module__

    def void(path):
        mask = read_mask(path)
        return np.full_like(mask, 255) if path == own else mask

    monkeypatch.setattr(f"{module}.read_mask", void)
    message = "the 1 held-out images show nothing .*; raise tasks.voc_seg_linear.validation_frac"
    with pytest.raises(UserError, match=message):
        evaluate(encoder, made)
