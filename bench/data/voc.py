"""A year of a VOCdevkit: images, image-level labels and boxes of its lists, all checked.

Layout and meaning as in the devkit's documentation (Everingham et al. 2012, devkit_doc, sections
2 and 3): ImageSets/Main/LIST.txt names the images, ImageSets/Main/CLASS_LIST.txt labels them
(1 present, -1 absent, 0 only `difficult` objects), Annotations/ID.xml holds the boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from bench.config import schema
from bench.data.image_files import ImageFiles, verify
from bench.errors import UserError
from bench.runtime.fingerprint import digest, file_digest
from bench.runtime.progress import Reporter


@dataclass(frozen=True)
class ObjectAnnotation:
    """One annotated object; its box is (xmin, ymin, xmax, ymax), 1-based inclusive pixels."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    truncated: bool


@dataclass(frozen=True)
class Split:
    """The images of one list.

    Attributes:
        ids: the list's identifiers, in its order.
        images: the files, in the same order.
        truth: int8 (N, C); 1 present, -1 absent, 0 only difficult objects.
        objects: the annotated objects of each image.
        fingerprint: SHA-256 of list, images, labels and annotations.
    """

    ids: tuple[str, ...]
    images: ImageFiles
    truth: np.ndarray
    objects: tuple[tuple[ObjectAnnotation, ...], ...]
    fingerprint: str


@dataclass(frozen=True)
class Voc:
    """The train and test lists of a suite."""

    train: Split
    test: Split


def open_voc(root: Path, source: schema.Voc, reporter: Reporter) -> Voc:
    """Open and check both lists of a suite's VOC source.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    devkit = root / source.folder
    if not devkit.is_dir():
        raise UserError(f"{devkit}: no such folder (the suite's voc.folder); see --data-root")
    lists = {name: identifiers(devkit, name) for name in (source.train, source.test)}
    check_disjoint(devkit, (source.train, source.test), list(lists.values()))
    with reporter.stage("checking VOC", sum(map(len, lists.values()))) as bar:
        train, test = (
            _open_split(devkit, name, lists[name], source.classes, bar.advance)
            for name in (source.train, source.test)
        )
    return Voc(train, test)


def check_disjoint(devkit: Path, names: Sequence[str], lists: Sequence[Sequence[str]]) -> None:
    """Refuse two lists, by name, that share an image."""
    shared = set(lists[0]) & set(lists[1])
    if shared:
        raise UserError(
            f"{devkit}: {min(shared)} stands in both lists, {names[0]} and {names[1]}: "
            "the test images must not be trained on"
        )


def _open_split(
    devkit: Path,
    name: str,
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    advance: Callable[[int], None],
) -> Split:
    annotations = [devkit / "Annotations" / f"{identifier}.xml" for identifier in ids]
    objects = tuple(_objects(path, classes) for path in annotations)
    columns = [_labels(devkit, f"{label}_{name}", ids) for label in classes]
    truth = np.array(columns, dtype=np.int8).T
    files = [f"JPEGImages/{identifier}.jpg" for identifier in ids]
    for identifier, file in zip(ids, files, strict=True):
        if not (devkit / file).is_file():
            where = _list_path(devkit, name)
            raise UserError(f"{where}: names {identifier}, but {devkit / file} does not exist")
    images = verify(devkit, files, "stop", advance)
    boxes = [file_digest(path) for path in annotations]
    fingerprint = digest([ids, images.fingerprint, truth.tolist(), boxes])
    return Split(ids, images, truth, objects, fingerprint)


def _list_path(devkit: Path, name: str, kind: str = "Main") -> Path:
    return devkit / "ImageSets" / kind / f"{name}.txt"


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return [line.split() for line in text.splitlines() if line.strip()]


def identifiers(devkit: Path, name: str, kind: str = "Main") -> tuple[str, ...]:
    """The images that ImageSets/KIND/NAME.txt names.

    Raises:
        UserError: the list is missing or empty, or names an image twice.
    """
    path = _list_path(devkit, name, kind)
    ids = tuple(fields[0] for fields in _lines(path))
    if not ids:
        raise UserError(f"{path}: the list is empty")
    if len(set(ids)) != len(ids):
        raise UserError(f"{path}: names an image twice")
    return ids


def _labels(devkit: Path, name: str, ids: tuple[str, ...]) -> list[int]:
    where = _list_path(devkit, name)
    labels: dict[str, int] = {}
    for fields in _lines(where):
        if len(fields) != 2 or fields[1] not in ("1", "-1", "0"):
            raise UserError(f"{where}: '{' '.join(fields)}' is not 'ID 1', 'ID -1' or 'ID 0'")
        labels[fields[0]] = int(fields[1])
    missing = [identifier for identifier in ids if identifier not in labels]
    if missing:
        raise UserError(f"{where}: has no label for {missing[0]}")
    return [labels[identifier] for identifier in ids]


def _objects(path: Path, classes: tuple[str, ...]) -> tuple[ObjectAnnotation, ...]:
    """The objects of one annotation file, in the suite's classes; boxes lie inside the image."""
    try:
        tree = ElementTree.parse(path).getroot()
        size = tree.find("size")
        width, height = (float(_text(size, side)) for side in ("width", "height"))
        objects = tuple(_object(node) for node in tree.iter("object"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation file") from None
    except (ElementTree.ParseError, OSError) as error:
        raise UserError(f"{path}: not readable as XML ({error})") from None
    except ValueError as error:
        raise UserError(f"{path}: not a VOC annotation ({error})") from None
    for thing in objects:
        if thing.name not in classes:
            raise UserError(f"{path}: object '{thing.name}' is not among the suite's voc.classes")
        xmin, ymin, xmax, ymax = thing.box
        box = f"box ({', '.join(f'{value:g}' for value in thing.box)}) of '{thing.name}'"
        if not (xmin <= xmax and ymin <= ymax):  # of equal corners it holds one pixel
            raise UserError(f"{path}: {box} has no area: xmax or ymax is below xmin or ymin")
        # VOC 2011 and 2012 hold fractional boxes that begin at half a pixel.
        if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
            raise UserError(f"{path}: {box} lies outside the image ({width:g} x {height:g})")
    return objects


def _object(node: ElementTree.Element) -> ObjectAnnotation:
    box = node.find("bndbox")
    xmin, ymin, xmax, ymax = (float(_text(box, side)) for side in ("xmin", "ymin", "xmax", "ymax"))
    return ObjectAnnotation(
        name=_text(node, "name").strip(),
        box=(xmin, ymin, xmax, ymax),
        difficult=(node.findtext("difficult") or "0").strip() == "1",
        truncated=(node.findtext("truncated") or "0").strip() == "1",
    )


def _text(node: ElementTree.Element | None, tag: str) -> str:
    text = None if node is None else node.findtext(tag)
    if text is None:
        raise ValueError(f"no <{tag}>")
    return text


def usable_classes(voc: Voc, names: Sequence[str], least: int) -> tuple[list[int], list[str]]:
    """The classes with enough positive images in both lists.

    Args:
        voc: the lists.
        names: of all classes.
        least: how many positive images are enough.

    Returns:
        Their indices, and the names of the rest.

    Raises:
        UserError: no class has enough.
    """
    positives = np.minimum((voc.train.truth == 1).sum(0), (voc.test.truth == 1).sum(0))
    enough = positives >= least
    if not enough.any():
        raise UserError(
            f"no class has {least} positive images in both lists; lower voc.min_positives"
        )
    chosen = np.flatnonzero(enough).tolist()
    return chosen, [name for c, name in enumerate(names) if c not in chosen]
