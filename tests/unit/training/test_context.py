"""What decides an encoder, as the key of its place in the cache."""

import dataclasses

import pytest

from bench.config.schema import PRETRAINING


@pytest.fixture
def key(context):
    """The key of a method whose pretraining data set is changed."""

    def make(method="rotation", method_digest="", **changes):
        plain = context(method)
        dataset = dataclasses.replace(plain.datasets[PRETRAINING], **changes)
        datasets = {**plain.datasets, PRETRAINING: dataset}
        return dataclasses.replace(plain, datasets=datasets, method_digest=method_digest).key

    return make


def other(images):
    """The same files with another content."""
    files = dataclasses.replace(images.images, fingerprint="0" * 64)
    return dataclasses.replace(images, images=files)


def test_other_images_or_another_code_are_another_encoder(key, smoke_data):
    dataset = smoke_data[PRETRAINING]
    keys = [
        key(),
        key(train=other(dataset.train)),
        key(validation=other(dataset.validation)),
        key(validation=None),
        key(method_digest="a" * 64),
        key(method_digest="b" * 64),
    ]
    assert len({*keys}) == len(keys)
    assert key(validation=dataclasses.replace(dataset.validation)) == keys[0]


def test_no_images_decide_an_encoder_that_is_not_trained(key, smoke_data):
    dataset = smoke_data[PRETRAINING]
    plain = key("random_init")
    assert key("random_init", train=other(dataset.train)) == plain
    assert key("random_init", validation=other(dataset.validation)) == plain
    assert key("random_init", method_digest="a" * 64) != plain
