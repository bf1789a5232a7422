"""The data sets of a suite: which are opened, what records call their splits, what is refused."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.config import loader, schema
from bench.data.datasets import fingerprints, open_datasets, usable_classes
from bench.errors import UserError
from bench.runtime.progress import Reporter

SPLITS = ("trainval", "test")


@pytest.fixture
def suite(smoke):
    """The smoke suite on images of the user's."""
    return smoke.model_copy(update={"synthetic": None})


@pytest.fixture
def root(devkit, tmp_path):
    shutil.copytree(devkit, tmp_path / "root")
    return tmp_path / "root"


def folders(suite, **keys):
    section = schema.ImageFolder(kind="image_folder", **keys)
    return suite.model_copy(update={"datasets": {"scenes": section}})


def opened(suite, root, *names, cache=None):
    with tempfile.TemporaryDirectory() as empty:
        return open_datasets(suite, names, root, cache or Path(empty), Reporter())


def test_splits_have_the_names_that_records_give_them(suite, root):
    datasets = opened(suite, root, "voc", "pretraining", "voc_masks")
    assert list(datasets) == ["pretraining", "voc", "voc_masks"]
    prints = fingerprints(datasets)
    splits = ["pretraining_train", "voc_train", "voc_test", "voc_masks_train", "voc_masks_test"]
    assert list(prints) == splits
    assert len({*prints.values()}) == 5
    assert all(len(value) == 64 for value in prints.values())
    assert prints["voc_test"] == datasets["voc"].test.fingerprint
    assert datasets["pretraining"].test is None
    assert datasets["voc"].classes == suite.datasets["voc"].classes
    assert datasets["pretraining"].classes == tuple(sorted(suite.datasets["voc"].classes))


def test_validation_images_have_the_labels_of_the_training_classes(suite, root):
    lacking, *rest = sorted(path.name for path in (root / "validation").iterdir())
    shutil.rmtree(root / "validation" / lacking)
    dataset = opened(suite, root, "pretraining")["pretraining"]
    validation = dataset.validation
    assert validation.classes == dataset.classes
    folders = [file.split("/")[0] for file in validation.images.files]
    assert [validation.classes[label] for label in validation.labels] == folders
    assert {*folders} == {*rest}
    assert list(dataset.splits) == ["pretraining_train"], "no split that records name"


def test_validation_images_that_do_not_fit_are_refused(suite, root):
    (root / "validation/boat").rename(root / "validation/yacht")
    with pytest.raises(UserError, match="pretraining: only validation has the classes yacht"):
        opened(suite, root, "pretraining")
    flat = root / "flat"
    flat.mkdir()
    shutil.copy(next((root / "validation").rglob("*.jpg")), flat / "one.jpg")
    labeled = folders(suite, train="pretraining", validation="flat")
    with pytest.raises(UserError, match="scenes: validation has no class folders, unlike train"):
        opened(labeled, root, "scenes")
    other = root / "other"
    other.mkdir()
    shutil.copy(next((root / "pretraining").rglob("*.jpg")), other / "one.jpg")
    unlabeled = folders(suite, train="flat", validation="other")
    assert opened(unlabeled, root, "scenes")["scenes"].validation.labels.tolist() == [0]
    shutil.rmtree(root / "validation")
    with pytest.raises(UserError, match=r"no such folder \(the suite's .*pretraining.validation\)"):
        opened(suite, root, "pretraining")


def test_validation_images_are_optional(suite, root):
    shutil.rmtree(root / "validation")
    section = suite.datasets["pretraining"].model_copy(update={"validation": ""})
    plain = suite.model_copy(update={"datasets": {"pretraining": section}})
    assert opened(plain, root, "pretraining")["pretraining"].validation is None


def test_images_of_the_user_are_those_that_were_rendered(suite, root, smoke_data):
    datasets = opened(suite, root, *smoke_data)
    assert fingerprints(datasets) == fingerprints(smoke_data)


def test_only_what_is_asked_for_is_opened(suite, root):
    shutil.rmtree(root / "VOCdevkit")
    assert list(opened(suite, root, "pretraining")) == ["pretraining"]
    with pytest.raises(UserError, match="VOC2007: no such folder"):
        opened(suite, root, "voc")


def test_a_labeled_folder_has_two_splits(suite, root):
    labeled = folders(suite, train="pretraining", test="validation")
    dataset = opened(labeled, root, "scenes")["scenes"]
    assert len(dataset.train.labels) == len(dataset.test.labels) == 40
    assert dataset.test.classes == dataset.classes
    assert dataset.train.fingerprint != dataset.test.fingerprint
    assert list(dataset.splits) == ["scenes_train", "scenes_test"]


def test_images_of_a_test_split_under_another_name_in_training_are_refused(suite, root):
    voc = root / "VOCdevkit/VOC2007"
    train, test = ((voc / f"ImageSets/Main/{name}.txt").read_text().split() for name in SPLITS)
    for name, kind in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        shutil.copy(voc / name / f"{test[3]}.{kind}", voc / name / f"{train[5]}.{kind}")
    annotation = voc / f"Annotations/{train[5]}.xml"
    annotation.write_text(annotation.read_text().replace(f"{test[3]}.jpg", f"{train[5]}.jpg"))
    for path in (voc / "ImageSets/Main").glob("*_test.txt"):
        copied = dict(line.split() for line in path.read_text().splitlines())[test[3]]
        other = path.with_name(path.name.replace("test", "trainval"))
        lines = dict(line.split() for line in other.read_text().splitlines())
        lines[train[5]] = copied
        other.write_text("".join(f"{name} {label}\n" for name, label in lines.items()))
    message = (
        rf"{test[3]}\.jpg: has the content of .*{train[5]}\.jpg; 1 of 80 voc_test images are in "
        "the training split: they must not be trained on"
    )
    with pytest.raises(UserError, match=message):
        opened(suite, root, "voc")


def test_shared_images_of_a_folder_are_refused_and_very_few_are_counted(suite, root, monkeypatch):
    labeled = folders(suite, train="pretraining", test="validation")
    other = next((root / "validation/boat").glob("*.jpg"))
    shutil.copy(next((root / "pretraining/dog").glob("*.jpg")), other)
    count = "1 of 40 scenes_test images are in the training split"
    with pytest.raises(UserError, match=rf"{other.name}: has the content of .*; {count}"):
        opened(labeled, root, "scenes")
    monkeypatch.setattr("bench.data.datasets.SHARED", 0.03)
    assert opened(labeled, root, "scenes")["scenes"].warnings == (count,)
    assert opened(suite, root, "voc")["voc"].warnings == ()


def text_of_repeats(root, split, one, other):
    return (
        f"{root}: 1 with the content of another image of the split {split} "
        f"({one} has that of {other})"
    )


def test_images_of_the_same_content_in_a_folder_are_counted(suite, root, capfd):
    labeled = folders(suite, train="pretraining", test="validation")
    opened(labeled, root, "scenes")
    assert "with the content" not in capfd.readouterr().err
    for folder, split in (("pretraining", "scenes_train"), ("validation", "scenes_test")):
        path = min((root / folder / "boat").rglob("*.jpg"))
        copy = path.with_name("copy.jpg")
        shutil.copy(path, copy)
        assert len(opened(labeled, root, "scenes")["scenes"].splits[split].ids) == 41
        names = sorted((f"boat/{path.name}", "boat/copy.jpg"), reverse=True)
        assert text_of_repeats(root / folder, split, *names) in capfd.readouterr().err


def test_images_of_the_same_content_in_a_devkit_are_counted(suite, root, capfd):
    voc = root / "VOCdevkit/VOC2007"
    own, *_ = (voc / "ImageSets/Main/test.txt").read_text().split()
    for name, kind in (("JPEGImages", "jpg"), ("Annotations", "xml"), ("SegmentationClass", "png")):
        shutil.copy(voc / name / f"{own}.{kind}", voc / name / f"999999.{kind}")
    annotation = voc / "Annotations/999999.xml"
    annotation.write_text(annotation.read_text().replace(f"{own}.jpg", "999999.jpg"))
    for path in (voc / "ImageSets").glob("*/*test.txt"):
        (line,) = (line for line in path.read_text().splitlines() if line.startswith(own))
        path.write_text(f"{path.read_text()}{line.replace(own, '999999')}\n")
    opened(suite, root, "voc", "voc_masks")
    says = capfd.readouterr().err
    for split in ("voc_test", "voc_masks_test"):
        names = ("JPEGImages/999999.jpg", f"JPEGImages/{own}.jpg")
        assert text_of_repeats(voc, split, *names) in says


@pytest.mark.parametrize("kind", ["spelling", "link", "copy"])
def test_images_of_the_same_content_in_a_coco_file_are_counted(suite, root, capfd, kind):
    other = {"spelling": "./000002.jpg", "link": "link.jpg", "copy": "co\npy.jpg"}[kind]
    images = root / "VOCdevkit/VOC2007/JPEGImages"
    if kind == "link":
        (images / other).hardlink_to(images / "000002.jpg")
    elif kind == "copy":
        shutil.copy(images / "000002.jpg", images / other)
    coco = coco_suite(suite, root, ["000001.jpg"], ["000002.jpg", other])
    opened(coco, root, "coco")
    text = text_of_repeats(images, "coco_test", other.replace("\n", " "), "000002.jpg")
    assert text in capfd.readouterr().err


@pytest.mark.parametrize("name", ["Boat", "boat ", "b oat", "\uff42oat"])
def test_classes_that_differ_in_capitals_or_blanks_alone_are_refused(suite, root, name):
    folder = root / "pretraining" / name
    folder.mkdir()
    first, *_ = sorted((root / "pretraining/boat").glob("*.jpg"))
    first.rename(folder / "own.jpg")
    message = r"pretraining: the classes '.*' and '.*' differ in capitals or blanks alone: a class"
    with pytest.raises(UserError, match=message) as error:
        opened(suite, root, "pretraining")
    assert "'boat'" in str(error.value)


def test_categories_that_differ_in_blanks_alone_are_refused(suite, root):
    coco = coco_suite(suite, root, ["000001.jpg"], ["000002.jpg"], ("cat", "cat "))
    with pytest.raises(UserError, match=r"the classes 'cat' and 'cat ' differ in capitals or"):
        opened(coco, root, "coco")


def test_images_with_an_orientation_are_counted(suite, root):
    for number, path in enumerate(sorted((root / "pretraining/dog").glob("*.jpg"))[:3]):
        exif = Image.Exif()
        exif[0x0112] = (1, 3, 6)[number]
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    dataset = opened(suite, root, "pretraining")["pretraining"]
    text = "2 pretraining_train images have an EXIF orientation, which is not applied"
    assert dataset.warnings == (text,)


def test_a_test_split_of_other_classes_is_refused(suite, root):
    labeled = folders(suite, train="pretraining", test="validation")
    (root / "validation/boat").rename(root / "validation/yacht")
    message = r"^datasets\.scenes: the splits have other classes: boat, yacht$"
    with pytest.raises(UserError, match=message):
        opened(labeled, root, "scenes")
    shutil.rmtree(root / "validation/yacht")
    with pytest.raises(UserError, match=r"the splits have other classes: boat$"):
        opened(labeled, root, "scenes")


def test_an_unknown_data_set_names_the_near_ones(suite, root):
    with pytest.raises(UserError, match="suite smoke: unknown data set 'vocc': did you mean voc"):
        opened(suite, root, "vocc")


def test_a_data_root_is_wanted_unless_images_are_rendered(suite, smoke, tmp_path):
    with pytest.raises(UserError, match="suite smoke needs images: name their folder with --data"):
        opened(suite, None, "voc")
    with pytest.raises(UserError, match="absent: no such folder"):
        opened(suite, tmp_path / "absent", "voc")
    with pytest.raises(UserError, match="the folder is empty"):
        opened(suite, tmp_path, "voc")
    with pytest.raises(UserError, match="renders its own images: leave out --data-root"):
        opened(smoke, tmp_path, "voc")


def test_images_are_rendered_once(smoke, tmp_path):
    small = loader.load(
        "smoke",
        [f"synthetic.{key}=4" for key in ("pretraining", "validation", "train", "test")]
        + ["synthetic.size=16"],
    )
    first = opened(small, None, "pretraining", cache=tmp_path)["pretraining"].train
    path = first.images.root / first.images.files[0]
    changed = path.stat().st_mtime_ns
    again = opened(small, None, "pretraining", cache=tmp_path)["pretraining"].train
    assert again.fingerprint == first.fingerprint
    assert path.stat().st_mtime_ns == changed
    assert not [p for p in (tmp_path / "scenes").iterdir() if p.name.startswith("partial")]


def coco_suite(suite, root, train, test, categories=("cat",)):
    """The suite with a data set in COCO's format: one object in the first image of each split."""
    for name, files in (("train", train), ("test", test)):
        content = {
            "images": [{"id": 1 + k, "file_name": file} for k, file in enumerate(files)],
            "categories": [{"id": 1 + k, "name": label} for k, label in enumerate(categories)],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        }
        (root / f"{name}.json").write_text(json.dumps(content))
    images = "VOCdevkit/VOC2007/JPEGImages"
    section = schema.Coco(
        kind="coco", train="train.json", train_images=images, test="test.json", test_images=images
    )
    return suite.model_copy(update={"datasets": {"coco": section}})


def test_coco_is_a_kind_of_data_set(suite, root):
    coco = coco_suite(suite, root, ["000001.jpg"], ["000002.jpg", "000003.jpg"])
    dataset = opened(coco, root, "coco")["coco"]
    assert dataset.classes == ("cat",)
    assert dataset.train.ids == ("000001.jpg",)
    assert dataset.test.ids == ("000002.jpg", "000003.jpg")
    assert usable_classes(dataset) == ([0], [])


def test_one_test_image_is_refused_before_anything_is_computed(suite, root):
    coco = coco_suite(suite, root, ["000001.jpg"], ["000002.jpg"])
    with pytest.raises(UserError, match=r"datasets\.coco\.test: is one image"):
        opened(coco, root, "coco")


def test_classes_with_few_positive_images_in_either_split_are_left_out(suite, root):
    dataset = opened(suite, root, "voc")["voc"]
    counts = [(split.labels == 1).sum(0) for split in (dataset.train, dataset.test)]
    fewest = np.minimum(*counts)
    least = int(np.sort(fewest)[4])
    usable, excluded = usable_classes(dataset, least)
    assert usable == [c for c, count in enumerate(fewest) if count >= least]
    names = dataset.classes
    assert excluded == [name for name, count in zip(names, fewest, strict=True) if count < least]
    assert excluded and usable
    least = dataset.section.min_positives
    assert usable_classes(dataset, 1)[0] == [c for c, n in enumerate(fewest) if n >= least]
    message = r"no class has 999 positive images in both splits; lower datasets\.voc\.min_positives"
    with pytest.raises(UserError, match=message):
        usable_classes(dataset, 999)
    asked = r"no class has 999 positive images in both splits; lower tasks\.voc_cls\.folds: the mos"
    with pytest.raises(UserError, match=f"{asked}t are {max(fewest)}"):
        usable_classes(dataset, 999, "tasks.voc_cls.folds")
