"""The embedded scenes: the same bytes every time, and a VOCdevkit like any other."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from bench.data import synthetic_scenes

TRAIN, TEST, PRETRAINING, VALIDATION, SIZE = 120, 120, 40, 30, 64


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    synthetic_scenes.render(
        root,
        seed=0,
        size=SIZE,
        pretraining=PRETRAINING,
        validation=VALIDATION,
        train=TRAIN,
        test=TEST,
        workers=1,
    )
    return root


@pytest.fixture(scope="module")
def voc(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2007"


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def listed(voc: Path, split: str) -> list[str]:
    return (voc / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


def objects(voc: Path, name: str) -> list[ElementTree.Element]:
    return ElementTree.parse(voc / "Annotations" / f"{name}.xml").getroot().findall("object")


def field(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    assert text is not None, path
    return text


def box(entry: ElementTree.Element) -> tuple[int, ...]:
    return tuple(int(field(entry, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def everything(voc: Path) -> list[str]:
    return listed(voc, "trainval") + listed(voc, "test")


def test_bytes_depend_on_the_seed_and_not_on_the_workers(tmp_path: Path) -> None:
    counts = {"size": 48, "pretraining": 20, "validation": 10, "train": 30, "test": 20}
    for name, seed, workers in (("first", 3, 1), ("second", 3, 2), ("other", 4, 1)):
        finished: list[int] = []
        folder = tmp_path / name
        synthetic_scenes.render(
            folder, seed=seed, workers=workers, advance=finished.append, **counts
        )
        assert sum(finished) == 80
    first, second, other = (contents(tmp_path / name) for name in ("first", "second", "other"))
    assert first == second
    images = [name for name in first if name.endswith((".jpg", ".png"))]
    assert set(images) == {name for name in other if name.endswith((".jpg", ".png"))}
    assert all(first[name] != other[name] for name in images if name.endswith(".jpg"))


def test_an_image_does_not_depend_on_how_many_there_are(root: Path, tmp_path: Path) -> None:
    counts = {"pretraining": 12, "validation": 11, "train": 3, "test": 2}
    synthetic_scenes.render(tmp_path, seed=0, size=SIZE, workers=1, **counts)
    few, many = contents(tmp_path), contents(root)
    first = "VOCdevkit/VOC2007/JPEGImages"
    assert few[f"{first}/000003.jpg"] == many[f"{first}/000003.jpg"]
    assert few[f"{first}/000005.jpg"] == many[f"{first}/{TRAIN + 2:06d}.jpg"]
    for folder, count in (("pretraining", 12), ("validation", 11)):
        names = [name for name in few if name.startswith(folder)]
        assert len(names) == count
        assert all(few[name] == many[name] for name in names)


def test_no_image_comes_twice(root: Path) -> None:
    images = [value for name, value in contents(root).items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == TRAIN + TEST + PRETRAINING + VALIDATION


def test_every_listed_image_has_its_files(voc: Path) -> None:
    assert len(listed(voc, "trainval")) == TRAIN and len(listed(voc, "test")) == TEST
    assert len(set(everything(voc))) == TRAIN + TEST
    for split in ("trainval", "test"):
        segmented = (voc / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        assert segmented == listed(voc, split)
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        assert {path.stem for path in (voc / folder).iterdir()} == set(everything(voc))


def test_boxes_are_inside_images_of_the_stated_size(voc: Path) -> None:
    shapes = set()
    for name in everything(voc):
        width, height = Image.open(voc / "JPEGImages" / f"{name}.jpg").size
        shapes.add((width, height))
        root = ElementTree.parse(voc / "Annotations" / f"{name}.xml").getroot()
        assert field(root, "filename") == f"{name}.jpg" and field(root, "folder") == "VOC2007"
        stated = [int(field(root, f"size/{side}")) for side in ("width", "height", "depth")]
        assert stated == [width, height, 3] and field(root, "segmented") == "1"
        for entry in objects(voc, name):
            xmin, ymin, xmax, ymax = box(entry)
            assert 1 <= xmin < xmax <= width and 1 <= ymin < ymax <= height
            assert field(entry, "name") in synthetic_scenes.CLASSES and field(entry, "pose")
    assert all(max(shape) == SIZE and min(shape) >= 0.75 * SIZE for shape in shapes)
    assert len(shapes) > 10


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_class_lists_agree_with_the_annotations(voc: Path, split: str) -> None:
    for label in synthetic_scenes.CLASSES:
        lines = (voc / "ImageSets" / "Main" / f"{label}_{split}.txt").read_text().splitlines()
        assert [line.split()[0] for line in lines] == listed(voc, split)
        for name, value in (line.split() for line in lines):
            same = [entry for entry in objects(voc, name) if field(entry, "name") == label]
            easy = any(field(entry, "difficult") == "0" for entry in same)
            assert int(value) == (1 if easy else 0 if same else -1)
        positives = sum(line.endswith(" 1") for line in lines)
        assert 0.12 < positives / len(lines) < 0.45, label


def test_truncated_difficult_and_whole_objects_all_occur(voc: Path) -> None:
    entries = [entry for name in everything(voc) for entry in objects(voc, name)]
    # Large objects are often cut off or partly hidden, about every second one.
    for flag, most in (("truncated", 0.65), ("difficult", 0.5)):
        assert 0.02 < np.mean([field(entry, flag) == "1" for entry in entries]) < most
    for entry in entries:
        xmin, ymin, xmax, ymax = box(entry)
        if min(xmax - xmin, ymax - ymin) < 7:
            assert field(entry, "difficult") == "1"


def test_masks_use_the_palette_of_voc_and_known_classes_only(voc: Path) -> None:
    known = {*range(len(synthetic_scenes.CLASSES) + 1), 255}
    first = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 255: (224, 224, 192)}
    for name in everything(voc):
        mask = Image.open(voc / "SegmentationClass" / f"{name}.png")
        assert mask.mode == "P" and mask.size == Image.open(voc / f"JPEGImages/{name}.jpg").size
        palette = np.reshape(mask.getpalette(), (-1, 3))
        assert palette[0].tolist() == [0, 0, 0] and set(np.unique(np.asarray(mask))) <= known
        assert all(tuple(palette[index]) == color for index, color in first.items())


def test_mask_pixels_of_a_class_are_in_its_boxes(voc: Path) -> None:
    for name in everything(voc):
        mask = read(voc / "SegmentationClass" / f"{name}.png")
        boxed = np.zeros((len(synthetic_scenes.CLASSES), *mask.shape), bool)
        for entry in objects(voc, name):
            xmin, ymin, xmax, ymax = box(entry)
            boxed[
                synthetic_scenes.CLASSES.index(field(entry, "name")),
                ymin - 1 : ymax,
                xmin - 1 : xmax,
            ] = True
        for index in range(len(synthetic_scenes.CLASSES)):
            assert not ((mask == index + 1) & ~boxed[index]).any(), name


def test_objects_fill_their_boxes_and_are_bounded(voc: Path) -> None:
    masks = [read(voc / "SegmentationClass" / f"{name}.png") for name in everything(voc)]
    share = np.mean([((mask > 0) & (mask < 255)).mean() for mask in masks])
    assert 0.05 < share < 0.5
    for mask in masks:  # different labels never touch: a boundary is between them
        for left, right in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            assert ((left == right) | (left == 255) | (right == 255)).all()


def test_up_is_up(root: Path) -> None:
    images = [read(path).mean(2) for path in root.rglob("*.jpg")]
    top = [image[: len(image) // 3].mean() for image in images]
    bottom = [image[-(len(image) // 3) :].mean() for image in images]
    assert np.mean(top) > np.mean(bottom) + 20
    assert np.mean(np.array(top) > bottom) > 0.75


@pytest.mark.parametrize(
    ("split", "count"), [("pretraining", PRETRAINING), ("validation", VALIDATION)]
)
def test_images_in_class_folders_are_balanced_and_square(
    root: Path, split: str, count: int
) -> None:
    folders = sorted((root / split).iterdir())
    assert [folder.name for folder in folders] == sorted(synthetic_scenes.CLASSES)
    counts = [len(list(folder.glob("*.jpg"))) for folder in folders]
    assert sum(counts) == count and max(counts) - min(counts) <= 1
    sizes = {Image.open(path).size for path in (root / split).rglob("*.jpg")}
    assert sizes == {(SIZE, SIZE)}


def test_mean_color_does_not_give_the_class_away(tmp_path: Path) -> None:
    counts = {"pretraining": 200, "validation": 0, "train": 0, "test": 0}
    synthetic_scenes.render(tmp_path, seed=1, size=32, workers=1, **counts)
    paths = sorted((tmp_path / "pretraining").rglob("*.jpg"), key=lambda path: path.stem)
    colors = np.stack([read(path).mean((0, 1)) for path in paths])
    labels = np.array([path.parent.name for path in paths])
    half = len(paths) // 2
    distances = ((colors[half:, None] - colors[None, :half]) ** 2).sum(2)
    guesses = labels[:half][distances.argmin(1)]
    assert np.mean(guesses == labels[half:]) < 0.3
