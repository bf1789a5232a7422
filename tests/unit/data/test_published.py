"""Published data sets: the catalog, conversions, what is put in place and what is verified."""

import re
import shutil
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from support import published_voc

from bench.config import loader
from bench.config.schema import VOC_CLASSES
from bench.data.image_files import read
from bench.data.published import convert, fetch, verification
from bench.data.published.catalog import CATALOG, Archive, PublishedDataset, Split
from bench.data.voc_masks import read_mask
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.mark.parametrize("suite", ["tiny", "voc"])
def test_what_the_shipped_suites_need_is_in_the_catalog(suite):
    placed = {f"{d.folder}/{s.path}" for d in CATALOG.values() for s in d.splits}
    for name, section in loader.load(suite).datasets.items():
        if section.kind == "image_folder":
            assert section.train in placed, name
            continue
        kind = "Main" if section.kind == "voc" else "Segmentation"
        for year, split in (part.split("/") for part in (*section.train, *section.test)):
            assert f"{section.folder}/{year}/ImageSets/{kind}/{split}.txt" in placed, name


@pytest.mark.parametrize("dataset", CATALOG.values(), ids=CATALOG)
def test_every_entry_states_its_terms_sizes_and_sources(dataset):
    assert dataset.terms
    assert dataset.page.startswith("http")
    for archive in dataset.archives:
        assert archive.size > 10**8
        assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", archive.checksum)
        assert archive.source.startswith("https://")
        assert all(url.startswith("http") for url in archive.urls)
        assert bool(archive.urls) == bool(archive.members) == bool(archive.unpacked)


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (8, 10, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG" if path.suffix.lower() == ".jpeg" else None)


FOLDERS = PublishedDataset(
    name="pets",
    title="Pets",
    kind="image_folder",
    folder="pets",
    terms="none",
    page="https://example.org",
    splits=(Split("train", "train", 4, per_class=2), Split("val", "val", 1)),
    archives=(
        Archive(
            "pets.tgz",
            ("http://127.0.0.1:1/pets.tgz",),
            0,
            "",
            "",
            ((r"[^/]+/((?:train|val)/.+\.JPEG)", r"pets/\1"),),
            10**6,
        ),
    ),
    layout=("pets/train/CLASS/*.JPEG",),
)


@pytest.fixture
def root(tmp_path):
    """A data root with the archive of `pets`, put there by hand."""
    source = tmp_path / "pets-1"
    for index, name in enumerate(["cat/1", "cat/2", "dog/1", "dog/2"]):
        image(source / f"train/{name}.JPEG", index)
    image(source / "val/cat/3.JPEG", 9)
    (source / "README").write_text("pets")
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    with tarfile.open(root / "archives/pets.tgz", "w:gz") as archive:
        archive.add(source, "pets-1")
    return root


@pytest.fixture
def pets(root):
    size = (root / "archives/pets.tgz").stat().st_size
    return replace(FOLDERS, archives=(replace(FOLDERS.archives[0], size=size),))


def problems(dataset, root):
    _, found = verification.verify(dataset, root, Reporter())
    return [f"{problem.kind} {problem.text}" for problem in found]


def test_an_archive_that_was_put_there_by_hand_is_unpacked(root, pets):
    assert fetch.fetch(pets, root, Reporter())
    assert sorted(p.name for p in root.iterdir()) == ["archives", "pets"]
    assert (root / "pets/train/cat/1.JPEG").is_file()
    assert not (root / "pets/README").exists()
    assert not list((root / "archives").glob("*unpacked*"))
    assert problems(pets, root) == []
    assert not fetch.fetch(pets, root, Reporter())


@pytest.mark.parametrize("manifest", [True, False])
def test_what_is_wrong_is_said_image_by_image(root, pets, manifest):
    fetch.fetch(pets, root, Reporter())
    if not manifest:
        verification.manifest_path(pets, root).unlink()
    (root / "pets/train/cat/1.JPEG").unlink()
    content = (root / "pets/val/cat/3.JPEG").read_bytes()
    (root / "pets/val/cat/3.JPEG").write_bytes(content[:-40])
    image(root / "pets/train/dog/9.JPEG")
    listed = problems(pets, root)
    if manifest:
        assert listed == [
            "missing pets/train/cat/1.JPEG",
            "broken pets/val/cat/3.JPEG: differs from what was unpacked",
            "extra pets/train/dog/9.JPEG",
        ]
    else:
        assert listed == [
            "missing pets/train/cat: 1 images, 2 expected",
            "extra pets/train/dog: 3 images, 2 expected",
            "broken pets/val/cat/3.JPEG: is truncated",
        ]


def test_a_damage_inside_an_image_is_detected(root, pets):
    fetch.fetch(pets, root, Reporter())
    verification.manifest_path(pets, root).unlink()
    path = root / "pets/val/cat/3.JPEG"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[-2:])
    assert problems(pets, root) == ["broken pets/val/cat/3.JPEG: cannot be decoded"]


def test_what_was_removed_comes_back_without_a_request(root, pets):
    fetch.fetch(pets, root, Reporter())
    (root / "pets/train/cat/1.JPEG").unlink()
    assert fetch.fetch(pets, root, Reporter())
    assert problems(pets, root) == []


def test_files_in_the_way_are_not_replaced(root, pets):
    image(root / "pets/train/cat/2.JPEG", 77)
    before = (root / "pets/train/cat/2.JPEG").read_bytes()
    with pytest.raises(UserError, match=r"cat/2\.JPEG: is there already and differs"):
        fetch.fetch(pets, root, Reporter())
    assert (root / "pets/train/cat/2.JPEG").read_bytes() == before
    assert not (root / "pets/train/cat/1.JPEG").exists()


def test_an_optional_split_may_be_absent_and_another_may_not(root, pets):
    fetch.fetch(pets, root, Reporter())
    verification.manifest_path(pets, root).unlink()
    shutil.rmtree(root / "pets/val")
    assert problems(pets, root) == ["missing pets/val (1 images)"]
    optional = replace(pets, splits=(pets.splits[0], replace(pets.splits[1], optional=True)))
    assert problems(optional, root) == []


def test_a_devkit_is_verified_by_its_splits(tmp_path):
    dataset = published_voc(tmp_path)
    assert problems(dataset, tmp_path) == []
    year = tmp_path / dataset.folder
    (year / "JPEGImages/2.jpg").unlink()
    (year / "SegmentationClass/3.png").unlink()
    (year / "Annotations/4.xml").write_text("<annotation>")
    image(year / "JPEGImages/99.jpg")
    base = dataset.folder
    assert [re.sub(r" \(.*", "", text) for text in problems(dataset, tmp_path)] == [
        f"missing {base}/JPEGImages/2.jpg",
        f"missing {base}/SegmentationClass/3.png",
        f"broken {base}/Annotations/4.xml: not readable as XML",
        f"extra {base}/JPEGImages/99.jpg",
    ]
    assert not verification.is_complete(dataset, tmp_path)


def test_a_devkit_that_a_run_would_refuse_is_broken(tmp_path):
    dataset = published_voc(tmp_path)
    labels = tmp_path / dataset.folder / f"ImageSets/Main/{VOC_CLASSES[0]}_train.txt"
    labels.write_text(labels.read_text().replace("-1", "1"))
    (text,) = problems(dataset, tmp_path)
    assert text.startswith("broken ")
    assert "annotation has no" in text


def test_tiny_imagenet_gets_folders_of_classes(tmp_path):
    archive = CATALOG["tiny-imagenet"].archives[0]
    image(tmp_path / "x.JPEG")
    content = (tmp_path / "x.JPEG").read_bytes()
    (tmp_path / "archives").mkdir()
    path = tmp_path / "archives" / archive.name
    with zipfile.ZipFile(path, "w") as zipped:
        base = "tiny-imagenet-200"
        zipped.writestr(f"{base}/train/n00000001/images/n00000001_0.JPEG", content)
        zipped.writestr(f"{base}/train/n00000001/n00000001_boxes.txt", "left out")
        zipped.writestr(f"{base}/val/images/val_0.JPEG", content)
        zipped.writestr(f"{base}/val/val_annotations.txt", "val_0.JPEG\tn00000001\t0\t0\t1\t1\n")
        zipped.writestr(f"{base}/test/images/test_0.JPEG", content)
    small = replace(archive, size=path.stat().st_size, checksum="")
    dataset = replace(CATALOG["tiny-imagenet"], archives=(small,))
    fetch.fetch(dataset, tmp_path, Reporter())
    base = tmp_path / "tiny-imagenet"
    assert sorted(p.relative_to(base).as_posix() for p in base.rglob("*.*")) == [
        "train/n00000001/n00000001_0.JPEG",
        "val/n00000001/val_0.JPEG",
    ]


def test_stl10_becomes_png_with_its_pixels_upright(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
    base = tmp_path / "stl-10"
    base.mkdir()
    parts = {"train": images[:2], "test": images[2:3], "unlabeled": images[3:]}
    for split, part in parts.items():
        part.transpose(0, 3, 2, 1).tofile(base / f"{split}_X.bin")
    np.array([2, 1], np.uint8).tofile(base / "train_y.bin")
    np.array([1], np.uint8).tofile(base / "test_y.bin")
    (base / "class_names.txt").write_text("airplane\nbird\n")
    convert.stl10(tmp_path, tmp_path, Reporter())
    files = [p.relative_to(base).as_posix() for p in sorted(base.rglob("*.*"))]
    assert files == [
        "test/airplane/000000.png",
        "train/airplane/000001.png",
        "train/bird/000000.png",
        "unlabeled/000000.png",
        "unlabeled/000001.png",
    ]
    assert np.array_equal(read(base / files[2]).permute(1, 2, 0).numpy(), images[0])


def test_stl10_of_another_size_is_refused(tmp_path):
    (tmp_path / "train_X.bin").write_bytes(b"1234")
    with pytest.raises(UserError, match="4 bytes, which are no images"):
        convert._stl10_images(tmp_path / "train_X.bin")


def test_sbd_masks_join_the_images_that_voc_does_not_test_on(tmp_path):
    published_voc(tmp_path, "VOC2012")
    folder = tmp_path / "unpacked"
    (folder / "sbd/cls").mkdir(parents=True)
    (folder / "sbd/train.txt").write_text("1\n5\n")
    (folder / "sbd/val.txt").write_text("3\n6\n")  # 3 is of VOC's validation split
    masks = {}
    for name in "1356":
        masks[name] = np.full((8, 10), int(name), np.uint8)
        savemat(folder / f"sbd/cls/{name}.mat", {"GTcls": {"Segmentation": masks[name]}})
    convert.sbd_masks(folder, tmp_path, Reporter())
    year = folder / "VOCdevkit/VOC2012"
    split = (year / "ImageSets/Segmentation/train_aug.txt").read_text().split()
    assert split == ["1", "2", "5", "6"]
    written = {p.stem: read_mask(p) for p in (year / "SegmentationClassAug").iterdir()}
    assert written.keys() == {"5", "6"}
    assert all(np.array_equal(mask, masks[name]) for name, mask in written.items())
    assert [p.name for p in folder.iterdir()] == ["VOCdevkit"]


def test_sbd_needs_voc2012(tmp_path):
    with pytest.raises(UserError, match="sbd: needs voc2012; run bench data get voc2012"):
        fetch.fetch(CATALOG["sbd"], tmp_path, Reporter())
    assert list(tmp_path.iterdir()) == []
