"""Extraction and its cache."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench.data.image_files import read, resize_exact, verify
from bench.encoders.encoder import Encoder
from bench.evaluation import features as module
from bench.evaluation.features import discard, features, grid


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder("tf_efficientnet_lite0").eval()


def quiet(_):
    pass


@pytest.fixture
def images(devkit, tmp_path):
    shutil.copytree(devkit / "VOCdevkit/VOC2007/JPEGImages", tmp_path / "images")
    names = [f"{i:06d}.jpg" for i in range(1, 6)]
    return lambda: verify(tmp_path / "images", names, "stop", quiet)


@pytest.mark.parametrize(
    ("channels", "side", "expected"),
    [(64, 112, 12), (256, 56, 6), (512, 28, 4), (1024, 14, 3), (2048, 7, 2), (320, 4, 4)],
)
def test_grids_are_those_of_goyal_et_al(channels, side, expected):
    assert grid((channels, side, side), 9216) == (expected, expected)


def test_features_are_the_pooled_maps_of_every_stage(encoder, images, context):
    arrays = features(encoder, images(), 32, 64, context(), "x")
    assert len(arrays) == len(encoder.channels)
    image = resize_exact(read(images().root / images().files[3]), 32)
    with torch.no_grad():
        maps = encoder(image[None].float() / 255)
    for stage, array, channels in zip(maps, arrays, encoder.channels, strict=True):
        side = grid(tuple(stage.shape[1:]), 64)
        assert array.shape == (5, channels * side[0] * side[1])
        assert not array.flags.writeable
        expected = F.adaptive_avg_pool2d(stage, side).flatten()
        np.testing.assert_allclose(array[3], expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.fixture
def extractions(monkeypatch):
    calls = []
    extract = module.extract
    monkeypatch.setattr(module, "extract", lambda *a: (calls.append(1), extract(*a))[1])
    return calls


def test_the_cache_serves_the_same_and_nothing_else(
    encoder, images, context, tmp_path, extractions
):
    at = context(where=tmp_path / "cache")

    def count(net=encoder, size=32, dimensions=64, name="x"):
        before = len(extractions)
        features(net, images(), size, dimensions, at, name)
        return len(extractions) - before

    assert count() == 1
    assert count() == 0
    assert count(name="y") == 0  # a name for the progress bar alone
    other = Encoder("tf_efficientnet_lite0").eval()
    other.load_state_dict(encoder.state_dict())
    assert count(other) == 0  # the same content under another name
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-3
    assert count(other) == 1
    assert count(size=40) == 1
    assert count(dimensions=32) == 1
    files = images()
    first, second = (files.root / name for name in files.files[:2])
    first.write_bytes(second.read_bytes())  # a changed image behind an old name
    assert count() == 1


def test_another_code_of_the_method_is_extracted_anew(
    encoder, images, context, tmp_path, extractions
):
    """Its encoder may compute other maps of equal weights."""
    for method_digest in ("a" * 64, "b" * 64, "a" * 64):
        at = dataclasses.replace(context(where=tmp_path / "cache"), method_digest=method_digest)
        features(encoder, images(), 32, 64, at, "x")
    assert len(extractions) == 2
    assert len([*(tmp_path / "cache/features").glob("*/")]) == 2
    discard(encoder, tmp_path / "cache")
    assert not [*(tmp_path / "cache/features").glob("*/")]


def test_another_statistic_of_a_norm_is_another_encoder(encoder):
    before = encoder.weights_sha256()
    norm = next(m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.running_mean[0] += 1
    assert encoder.weights_sha256() != before


def test_an_interrupted_extraction_leaves_nothing_to_be_served(
    encoder, images, context, tmp_path, monkeypatch
):
    at = context(where=tmp_path / "cache")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "pool_features", fail)
        with pytest.raises(OSError, match="No space left"):
            features(encoder, images(), 32, 64, at, "x")
    assert len(features(encoder, images(), 32, 64, at, "x")[0]) == 5


@pytest.mark.parametrize("damage", ["zeroed", "cut", "flipped", "swapped", "missing", "older"])
def test_damaged_features_are_named_and_made_again(
    encoder, images, context, tmp_path, extractions, damage, capfd
):
    at = context(where=tmp_path / "cache")
    first = [array.copy() for array in features(encoder, images(), 32, 64, at, "x")]
    (folder,) = (tmp_path / "cache/features").glob("*/")
    path = folder / "stage2.npy"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "zeroed":
        content[middle:] = bytes(len(content) - middle)
    elif damage == "cut":
        del content[middle:]
    elif damage == "flipped":
        content[-1] ^= 1
    elif damage == "swapped":
        content = bytearray((folder / "stage3.npy").read_bytes())
    path.write_bytes(content)
    if damage == "missing":
        path.unlink()
    if damage == "older":
        path = folder / "stages.json"
        path.write_text("5")
    capfd.readouterr()
    again = features(encoder, images(), 32, 64, at, "x")
    assert f"{path}: is damaged" in capfd.readouterr().err.replace("\n", "")
    assert len(extractions) == 2
    for array, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(array, other)
