"""`bench audit`: planted near-duplicates are found, others not, and the leaderboard counts them."""

import json
import shutil

import numpy as np
import pytest
from made_up import save, text_of
from PIL import Image, ImageOps
from support import without_rendering

from bench.commands import audit as command
from bench.data import near_duplicates
from bench.data.datasets import open_datasets
from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import audit as results
from bench.runtime.progress import Reporter

FINGERPRINTS = {"pretraining_train": "1" * 64, "voc_test": "d" * 64}


@pytest.fixture(scope="module")
def planted(smoke, devkit, tmp_path_factory):
    """A data root with four test images in disguise to pretrain on, and the suite of it."""
    root = tmp_path_factory.mktemp("data") / "root"
    shutil.copytree(devkit, root)
    names = (root / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").read_text().split()[:4]
    files = [root / f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg" for name in names]
    images = []
    for file in files:  # plainer than scenes, whose fine textures 48 px and JPEG leave little of
        with Image.open(file) as scene:
            plain = scene.convert("RGB").resize((10, 10), Image.Resampling.BOX)
            plain.resize(scene.size, Image.Resampling.BICUBIC).save(file, quality=95)
        images.append(Image.open(file).convert("RGB"))
    whole, small, mirrored, brighter = images
    folder = next((root / "pretraining").iterdir())
    whole.save(folder / "again.jpg", quality=40)
    small.resize((33, 29), Image.Resampling.BICUBIC).save(folder / "small.png")
    ImageOps.mirror(mirrored).save(folder / "mirrored.jpg", quality=85)
    brighter.point(lambda value: min(255, value + 12)).save(folder / "brighter.jpg")
    own = without_rendering(smoke, root.parent / "own.toml")
    return own, root, folder.name, names


def test_planted_duplicates_are_found_and_nothing_else(planted, smoke, bench, tmp_path):
    own, root, folder, names = planted
    done = bench(
        *("audit", "--suite", own, "--data-root", root, "--out", tmp_path, "--tasks", "voc_cls"),
    )
    assert done.status == 0, done.err
    assert (
        "voc_test: 4 of 80 test images have a near-duplicate among 44 pretraining images"
        in done.out
    )
    found = results.read(tmp_path / "smoke")
    disguises = ("again.jpg", "small.png", "mirrored.jpg", "brighter.jpg")
    assert [(d.test, d.pretraining, d.mirrored) for d in found.duplicates] == [
        (f"JPEGImages/{name}.jpg", f"{folder}/{file}", file == "mirrored.jpg")
        for name, file in zip(names, disguises, strict=True)
    ]
    suite = smoke.model_copy(update={"synthetic": None})
    data = open_datasets(suite, {"pretraining", "voc"}, root, tmp_path, Reporter())
    assert found.pretraining.fingerprint == data["pretraining"].train.fingerprint
    assert found.tests["voc_test"].fingerprint == data["voc"].test.fingerprint
    assert found.tests["voc_test"].num_images == 80


def test_scenes_of_the_suite_itself_are_no_duplicates(smoke, cache):
    found = command.search(smoke, ["voc", "voc_masks"], None, cache, Reporter())
    assert found.duplicates == []
    assert {*found.tests} == {"voc_test", "voc_masks_test"}


def test_near_hashes_are_those_that_counting_bits_finds(monkeypatch):
    monkeypatch.setattr(near_duplicates, "CHUNK", 7)
    rng = np.random.default_rng(0)
    one, other = rng.random((40, 64)) < 0.5, rng.random((30, 64)) < 0.5
    for row, bits in enumerate((0, 3, 10, 11)):
        other[row] = one[2 * row] ^ (np.arange(64) < bits)
    expected = {
        (i, j, int((a != b).sum()))
        for i, a in enumerate(one)
        for j, b in enumerate(other)
        if (a != b).sum() <= near_duplicates.DISTANCE
    }
    assert {bits for *_, bits in expected} >= {0, 3, 10}
    signs = [np.where(x, 1, -1).astype(np.float32) for x in (one, other)]
    done = []
    assert {*near_duplicates.near(*signs, done.append)} == expected
    assert sum(done) == 40


def test_the_pixels_tell_likeness_from_a_likely_hash(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    coarse.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "one.png")
    gray = Image.open(tmp_path / "one.png")
    Image.merge("RGB", gray.split()[::-1]).save(tmp_path / "recolored.png")
    ImageOps.mirror(gray).save(tmp_path / "mirrored.png")
    same = near_duplicates.difference(tmp_path / "one.png", tmp_path / "one.png")
    assert same == 0
    for name in ("recolored", "mirrored"):
        unlike = near_duplicates.difference(tmp_path / "one.png", tmp_path / f"{name}.png")
        assert unlike > near_duplicates.DIFFERENCE
    turned = near_duplicates.difference(
        tmp_path / "one.png", tmp_path / "mirrored.png", mirrored=True
    )
    assert turned < 0.01


def written(folder, **changes):
    """An audit that found two test images, one of them twice, beside made-up records."""
    thresholds = {"hash": "h", "bits": 10, "side": 32, "difference": 0.3}
    pairs = [("a.jpg", "x.jpg"), ("a.jpg", "y.jpg"), ("b.jpg", "x.jpg")]
    entry = {
        "suite": "made",
        "pretraining": {"fingerprint": FINGERPRINTS["pretraining_train"], "num_images": 9},
        "tests": {"voc_test": {"fingerprint": FINGERPRINTS["voc_test"], "num_images": 120}},
        "thresholds": thresholds,
        "duplicates": [
            {"split": "voc_test", "test": a, "pretraining": b, "mirrored": False, "bits": 2}
            | {"difference": 0.1}
            for a, b in pairs
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / results.FILE).write_text(json.dumps(entry | changes))


def warnings(folder):
    return {row.method: row.warnings for row in leaderboard.load(folder / "made").tables[0].rows}


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, "imagenet", 2.0)
    save(tmp_path, "rotation", 0.8, data=FINGERPRINTS)
    return tmp_path


def test_the_leaderboard_counts_test_images_of_rows_trained_on_those_images(folder):
    assert "for near-duplicates of test images (`bench audit` does)" in text_of(folder)
    written(folder / "made", duplicates=[])
    assert warnings(folder) == {"imagenet": (), "rotation": ()}
    text = text_of(folder)
    assert "- 0 test images have a near-duplicate among the pretraining images" in text
    written(folder / "made")
    assert warnings(folder) == {"imagenet": (), "rotation": ("contaminated: 2 test images",)}
    text = text_of(folder)
    assert "contaminated: 2 test images |" in text
    assert "near-duplicate among the pretraining images (audit.json)" in text


@pytest.mark.parametrize("name", ["pretraining", "tests"])
def test_an_audit_of_other_images_is_said_to_be_stale(folder, name):
    other = {"fingerprint": "2" * 64, "num_images": 9}
    written(folder / "made", **{name: other if name == "pretraining" else {"voc_test": other}})
    assert warnings(folder)["rotation"] == ("stale audit: of other images",)
    assert warnings(folder)["imagenet"] == ()


def test_a_split_that_was_not_searched_is_named_so(folder):
    written(folder / "made", tests={})
    assert warnings(folder)["rotation"] == ("not audited: this test split was not searched",)


def test_a_file_that_is_no_audit_is_named(folder):
    written(folder / "made", color="red")
    with pytest.raises(UserError, match=r"audit\.json: not an audit: key 'color'"):
        leaderboard.load(folder / "made")
