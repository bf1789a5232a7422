"""`bench audit`: planted near-duplicates are found, others not, and the board counts them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_up import save
from PIL import Image, ImageOps
from support import SMOKE

from bench.config import loader, schema
from bench.data import near_duplicates
from bench.data.datasets import open_data
from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import audit
from bench.runtime.progress import Reporter

FINGERPRINTS = {"corpus": "1" * 64, "voc_test": "d" * 64}


@pytest.fixture(scope="module")
def planted(devkit, tmp_path_factory):
    """A data root whose corpus holds four test images in disguise, and the suite of it."""
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
    folder = next((root / "corpus").iterdir())
    whole.save(folder / "again.jpg", quality=40)
    small.resize((33, 29), Image.Resampling.BICUBIC).save(folder / "small.png")
    ImageOps.mirror(mirrored).save(folder / "mirrored.jpg", quality=85)
    brighter.point(lambda value: min(255, value + 12)).save(folder / "brighter.jpg")
    text = (Path(schema.__file__).parent / "suites/mini.toml").read_text()
    start, end = text.index("[scenes]"), text.index("[corpus]")
    own = root.parent / "own.toml"
    own.write_text(text[:start] + text[end:])
    return own, root, folder.name, names


def test_planted_duplicates_are_found_and_nothing_else(planted, bench, tmp_path):
    own, root, folder, names = planted
    done = bench(
        *("audit", "--suite", own, "--data-root", root, "--out", tmp_path, "--tasks", "voc_cls"),
        *(part for key in SMOKE if not key.startswith("scenes") for part in ("--set", key)),
    )
    assert done.status == 0, done.err
    assert "voc_test: 4 of 80 test images have a near-duplicate among 44 corpus" in done.out
    found = audit.read(tmp_path / "mini")
    disguises = ("again.jpg", "small.png", "mirrored.jpg", "brighter.jpg")
    assert [(d.test, d.corpus, d.mirrored) for d in found.duplicates] == [
        (f"JPEGImages/{name}.jpg", f"{folder}/{file}", file == "mirrored.jpg")
        for name, file in zip(names, disguises, strict=True)
    ]
    settings = loader.load(str(own), [key for key in SMOKE if not key.startswith("scenes")])
    data = open_data(settings, root, {"corpus", "voc"}, tmp_path, Reporter())
    assert found.corpus.fingerprint == data.corpus.fingerprint
    assert found.tests["voc_test"].fingerprint == data.voc.test.fingerprint
    assert found.tests["voc_test"].images == 80


def test_scenes_of_the_suite_itself_are_no_duplicates(smoke, cache):
    found = audit.search(smoke, {"voc", "masks"}, None, cache, Reporter())
    assert found.duplicates == []
    assert {*found.tests} == {"voc_test", "masks_test"}


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
        "corpus": {"fingerprint": FINGERPRINTS["corpus"], "images": 9},
        "tests": {"voc_test": {"fingerprint": FINGERPRINTS["voc_test"], "images": 120}},
        "thresholds": thresholds,
        "duplicates": [
            {"list": "voc_test", "test": a, "corpus": b, "mirrored": False, "bits": 2}
            | {"difference": 0.1}
            for a, b in pairs
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / audit.FILE).write_text(json.dumps(entry | changes))


def flags(folder):
    return {row.method: row.flags for row in leaderboard.load(folder / "made").tables[0].rows}


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, "imagenet", 2.0)
    save(tmp_path, "rotation", 0.8, data=FINGERPRINTS)
    return tmp_path


def test_the_board_counts_test_images_of_rows_trained_on_that_corpus(folder):
    assert "were not searched for (`bench audit` does)" in leaderboard.markdown(
        leaderboard.load(folder / "made")
    )
    written(folder / "made", duplicates=[])
    assert flags(folder) == {"imagenet": (), "rotation": ()}
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
    assert "- 0 test images have a near-duplicate among the pretraining images" in text
    written(folder / "made")
    assert flags(folder) == {"imagenet": (), "rotation": ("contaminated: 2 test images",)}
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
    assert "contaminated: 2 test images |" in text
    assert "audit.json beside this file" in text


@pytest.mark.parametrize("name", ["corpus", "tests"])
def test_an_audit_of_other_images_is_said_to_be_stale(folder, name):
    other = {"fingerprint": "2" * 64, "images": 9}
    written(folder / "made", **{name: other if name == "corpus" else {"voc_test": other}})
    assert flags(folder)["rotation"] == ("stale audit: of other images",)
    assert flags(folder)["imagenet"] == ()


def test_a_list_that_was_not_searched_is_named_so(folder):
    written(folder / "made", tests={})
    assert flags(folder)["rotation"] == ("not audited: this test list was not searched",)


def test_a_file_that_is_no_audit_is_named(folder):
    written(folder / "made", color="red")
    with pytest.raises(UserError, match=r"audit\.json: not an audit \(key 'color'"):
        leaderboard.load(folder / "made")
