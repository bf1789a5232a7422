"""A year of a VOCdevkit: images, image-level labels and boxes of its splits, all checked.

Layout and meaning as in the devkit's documentation (Everingham et al. 2012, devkit_doc, sections
2 and 3): ImageSets/Main/LIST.txt names the images, ImageSets/Main/CLASS_LIST.txt labels them
(1 present, -1 absent, 0 only `difficult` objects), Annotations/ID.xml has the boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from bench.config import schema
from bench.data.image_files import ImageError, ImageFiles, read_bytes, verify
from bench.errors import SHOWN, UserError
from bench.runtime.fingerprint import digest
from bench.runtime.progress import Reporter

PRESENT, ONLY_DIFFICULT, ABSENT = 1, 0, -1  # image labels
NAMED = {PRESENT: "an object of", ONLY_DIFFICULT: "only difficult objects of", ABSENT: "no"}
FLAGS = {"0": False, "1": True, "false": False, "true": True}
LEAST = 0.5  # of a corner: fractional boxes of VOC 2011 and 2012 begin at half a pixel
HALF_TURNS = 4  # the EXIF orientations up to here keep width and height
LONGEST = 200  # characters of an image's name, which is that of a file
MAX_LIST = 2**27  # bytes of a list of images
MAX_ANNOTATION = 2**22  # bytes of an annotation file; those of VOC have 20,000 at most
MAX_DEPTH = 100  # of nested elements
PORTION = 2**16  # bytes of XML that are parsed at a time


@dataclass(frozen=True)
class ObjectAnnotation:
    """One annotated object; its box is (xmin, ymin, xmax, ymax), 1-based inclusive pixels.

    A crowd, of COCO alone, is a region of many objects; it is difficult too.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    truncated: bool
    crowd: bool = False


@dataclass(frozen=True)
class BoxSplit:
    """The images of one split with image labels and boxes.

    Attributes:
        ids: the identifiers, in the order of the split.
        images: the files, in the same order.
        labels: int8 (N, C); 1 present, -1 absent, 0 only difficult objects.
        objects: the annotated objects of each image.
        fingerprint: SHA-256 of identifiers, images, labels and annotations.
    """

    ids: tuple[str, ...]
    images: ImageFiles
    labels: np.ndarray
    objects: tuple[tuple[ObjectAnnotation, ...], ...]
    fingerprint: str


def open_voc(
    root: Path, name: str, section: schema.Voc, reporter: Reporter, manifests: Path | None = None
) -> tuple[BoxSplit, BoxSplit]:
    """Open and check the training and the test split of a VOCdevkit.

    Args:
        root: the data root.
        name: of the data set in the suite.
        section: what the suite declares of it.
        reporter: for progress.
        manifests: see `image_files.verify`.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    folder = root / section.folder
    parts = {
        split: split_parts(folder, name, key, splits)
        for key, split, splits in (
            ("train", "train", section.train),
            ("test", "test", section.test),
        )
    }
    ids = {split: [identifiers(*part) for part in years] for split, years in parts.items()}
    check_disjoint(folder, (section.train, section.test), list(ids.values()))
    count = sum(len(part) for years in ids.values() for part in years)
    with reporter.stage(f"checking {name}", count) as bar:
        opened = {
            split: [
                _open_part(*part, own, section.classes, bar.advance, manifests)
                for part, own in zip(years, ids[split], strict=True)
            ]
            for split, years in parts.items()
        }
    return _joined(folder, opened["train"]), _joined(folder, opened["test"])


def split_parts(folder: Path, name: str, key: str, splits: Sequence[str]) -> list[tuple[Path, str]]:
    """The year's folder and the split of each YEAR/SPLIT.

    Raises:
        UserError: one is not written so, or its folder is missing.
    """
    parts = []
    for split in splits:
        year, _, own = split.partition("/")
        if not year or not own or "/" in own:
            raise UserError(f"datasets.{name}.{key}: '{split}' is not YEAR/SPLIT (VOC2007/test)")
        if not (folder / year).is_dir():
            where = f"the suite's datasets.{name}.{key}"
            raise UserError(f"{folder / year}: no such folder ({where}); see --data-root")
        parts.append((folder / year, own))
    if not parts:
        raise UserError(f"datasets.{name}.{key}: names no split")
    return parts


def check_disjoint(
    folder: Path, names: Sequence[Sequence[str]], ids: Sequence[Sequence[Sequence[str]]]
) -> None:
    """Refuse splits that share an image.

    Args:
        folder: the devkit.
        names: of the training splits and of the test splits.
        ids: their identifiers.

    Raises:
        UserError: they do.
    """
    train, test = ({identifier for part in split for identifier in part} for split in ids)
    if train & test:
        both = " and ".join(", ".join(split) for split in names)
        raise UserError(
            f"{folder}: {min(train & test)} is in both splits, {both}: "
            "the test images must not be trained on"
        )


def joined_files(folder: Path, parts: Sequence[ImageFiles]) -> ImageFiles:
    """The files of several years as one; those of a single year stay below its own folder."""
    if len(parts) == 1:
        return parts[0]
    files = [f"{part.root.name}/{file}" for part in parts for file in part.files]
    return ImageFiles(
        folder,
        tuple(files),
        digest([part.fingerprint for part in parts]),
        contents=np.concatenate([part.contents for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        orientations=np.concatenate([part.orientations for part in parts]),
    )


def _joined(folder: Path, parts: Sequence[BoxSplit]) -> BoxSplit:
    if len(parts) == 1:
        return parts[0]
    return BoxSplit(
        ids=tuple(identifier for part in parts for identifier in part.ids),
        images=joined_files(folder, [part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        objects=tuple(entry for part in parts for entry in part.objects),
        fingerprint=digest([part.fingerprint for part in parts]),
    )


def _open_part(
    devkit: Path,
    name: str,
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    advance: Callable[[int], None],
    manifests: Path | None,
) -> BoxSplit:
    annotations = [
        read_annotation(devkit / "Annotations" / f"{identifier}.xml", classes) for identifier in ids
    ]
    objects = tuple(annotation.objects for annotation in annotations)
    columns = [
        _labels(_list_path(devkit, f"{label}_{name}"), label, ids, objects) for label in classes
    ]
    labels = np.array(columns, dtype=np.int8).T
    files = [f"JPEGImages/{identifier}.jpg" for identifier in ids]
    for identifier, file in zip(ids, files, strict=True):
        if not (devkit / file).is_file():
            where = _list_path(devkit, name)
            raise UserError(f"{where}: names {identifier}, but {devkit / file} does not exist")
    images = verify(devkit, files, "stop", advance, manifests)
    for index, annotation in enumerate(annotations):
        check_size(annotation.path, annotation.size, images, index)
    boxes = [annotation.content for annotation in annotations]
    fingerprint = digest([ids, images.fingerprint, labels.tolist(), boxes])
    return BoxSplit(ids, images, labels, objects, fingerprint)


def check_size(path: Path, size: tuple[float, float], images: ImageFiles, index: int) -> None:
    """Refuse an annotation of an image of another size.

    Args:
        path: of the annotation or the mask.
        size: width and height that it gives its image, pixels.
        images: the files.
        index: of its image.

    Raises:
        UserError: the image has another size.
    """
    stored = tuple(images.sizes[index].tolist())
    if stored == size:
        return
    own, other = (f"{width:g} x {height:g}" for width, height in (size, stored))
    turned = images.orientations[index] > HALF_TURNS and stored == size[::-1]
    hint = "; its EXIF orientation turns it: save it upright" if turned else ""
    image = images.root / images.files[index]
    raise UserError(f"{path}: is of an image of {own} pixels, but {image} has {other}{hint}")


def _list_path(devkit: Path, name: str, kind: str = "Main") -> Path:
    return devkit / "ImageSets" / kind / f"{name}.txt"


def _lines(path: Path) -> list[list[str]]:
    try:
        text = read_bytes(path, MAX_LIST).decode("utf-8-sig")
    except ImageError as problem:
        raise UserError(f"{path}: {problem}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return [line.split() for line in text.splitlines() if line.strip()]


def identifiers(devkit: Path, name: str, kind: str = "Main") -> tuple[str, ...]:
    """The images that ImageSets/KIND/NAME.txt names.

    Raises:
        UserError: the list is missing or empty, or names an image twice or by too long a name.
    """
    path = _list_path(devkit, name, kind)
    ids = tuple(fields[0] for fields in _lines(path))
    if not ids:
        raise UserError(f"{path}: the list is empty")
    if len(set(ids)) != len(ids):
        raise UserError(f"{path}: names an image twice (a name ends at the first blank)")
    if max(map(len, ids)) > LONGEST:
        raise UserError(f"{path}: a name has more than {LONGEST} characters")
    return ids


def _labels(
    where: Path, name: str, ids: tuple[str, ...], objects: tuple[tuple[ObjectAnnotation, ...], ...]
) -> list[int]:
    """The labels of one class, which agree with the annotated objects.

    Raises:
        UserError: the list is malformed, lacks an image or contradicts the annotations.
    """
    labels: dict[str, int] = {}
    for fields in _lines(where):
        if len(fields) != 2 or fields[1] not in ("1", "-1", "0"):
            raise UserError(f"{where}: '{' '.join(fields)}' is not 'ID 1', 'ID -1' or 'ID 0'")
        if fields[0] in labels:
            raise UserError(f"{where}: names {fields[0]} twice")
        labels[fields[0]] = int(fields[1])
    missing = [identifier for identifier in ids if identifier not in labels]
    if missing:
        raise UserError(f"{where}: has no label for {missing[0]}")
    values = [labels[identifier] for identifier in ids]
    annotated = [_annotated_label(name, own) for own in objects]
    unseen = sum(
        value == ONLY_DIFFICULT and own == ABSENT
        for value, own in zip(values, annotated, strict=True)
    )
    if unseen > values.count(ABSENT):
        raise UserError(
            f"{where}: has 0 for {unseen} images without a '{name}'; "
            "-1 means absent, 0 only difficult objects: write -1 for absent"
        )
    for identifier, value, own in zip(ids, values, annotated, strict=True):
        if value != own and (value, own) != (ONLY_DIFFICULT, ABSENT):
            raise UserError(
                f"{where}: says {value} for {identifier}, but its annotation has {NAMED[own]} "
                f"'{name}'"
            )
    return values


def _annotated_label(name: str, objects: tuple[ObjectAnnotation, ...]) -> int:
    """The label that the annotated objects of an image give it."""
    difficult = [entry.difficult for entry in objects if entry.name == name]
    if not difficult:
        return ABSENT
    return ONLY_DIFFICULT if all(difficult) else PRESENT


@dataclass(frozen=True)
class Annotation:
    """One annotation file: its objects, its SHA-256, width and height of its image."""

    path: Path
    content: str
    size: tuple[float, float]
    objects: tuple[ObjectAnnotation, ...]


def read_annotation(path: Path, classes: tuple[str, ...] | None) -> Annotation:
    """One annotation file; its objects are inside the image.

    Args:
        path: of the file.
        classes: those that an object may have; None takes any.

    Raises:
        UserError: it is missing, malformed or of another image.
    """
    try:
        content = read_bytes(path, MAX_ANNOTATION)
        tree = _tree(content)
        node = _only(tree, "size")
        filename = _only(tree, "filename")
        width, height = (float(_text(node, side)) for side in ("width", "height"))
        objects = tuple(_object(node) for node in tree.iter("object"))
        _check_filename(path, "" if filename is None else filename.text or "")
    except ImageError as problem:
        missing = not path.exists()
        raise UserError(f"{path}: {'no such annotation file' if missing else problem}") from None
    except (ElementTree.ParseError, LookupError) as error:
        raise UserError(f"{path}: not readable as XML ({error})") from None
    except ValueError as error:
        raise UserError(f"{path}: not a VOC annotation ({error})") from None
    _check_objects(path, objects, classes, (width, height))
    return Annotation(path, hashlib.sha256(content).hexdigest(), (width, height), objects)


def _check_objects(
    path: Path,
    objects: tuple[ObjectAnnotation, ...],
    classes: tuple[str, ...] | None,
    size: tuple[float, float],
) -> None:
    """Refuse an object of another class, outside the image, of no area, or given twice."""
    width, height = size
    known: set[tuple[str, tuple[float, ...]]] = set()
    for entry in objects:
        if classes is not None and entry.name not in classes:
            raise UserError(
                f"{path}: object '{entry.name[:SHOWN]}' is not among the data set's classes"
            )
        xmin, ymin, xmax, ymax = entry.box
        box = f"box ({', '.join(f'{value:g}' for value in entry.box)}) of '{entry.name}'"
        if not (xmin <= xmax and ymin <= ymax):  # of equal corners it has one pixel
            raise UserError(f"{path}: {box} has no area: xmax or ymax is below xmin or ymin")
        if 0 <= min(xmin, ymin) < LEAST:
            raise UserError(f"{path}: {box} begins at 0; VOC's pixels count from 1")
        if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
            raise UserError(f"{path}: {box} is outside the image ({width:g} x {height:g})")
        if (entry.name, entry.box) in known:
            raise UserError(f"{path}: {box} is given twice; remove one")
        known.add((entry.name, entry.box))


def _check_filename(path: Path, filename: str) -> None:
    """Refuse an annotation that names another image of the year."""
    name = Path(filename.strip()[:LONGEST])
    other = path.parent.parent / "JPEGImages" / f"{name.stem}.jpg"
    if path.stem not in (name.name, name.stem) and other.is_file():
        raise UserError(f"{path}: is of another image: its <filename> is that of {other}")


def _only(node: ElementTree.Element, tag: str) -> ElementTree.Element | None:
    """The child of a tag, if any; ValueError where there are several."""
    children = node.findall(tag)
    if len(children) > 1:
        raise ValueError(f"<{tag}> is given twice in one <{node.tag[:SHOWN]}>")
    return children[0] if children else None


def _tree(content: bytes) -> ElementTree.Element:
    """The root of an XML document of bounded depth.

    Raises:
        ParseError: it is not well-formed, or nested too deeply.
    """
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    root: ElementTree.Element | None = None
    depth = 0
    for start in range(0, len(content), PORTION):
        parser.feed(content[start : start + PORTION])
        for event, element in parser.read_events():
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            if depth > MAX_DEPTH:
                raise ElementTree.ParseError(f"nested more than {MAX_DEPTH} deep")
    parser.close()
    assert root is not None  # else it is not well-formed
    return root


def _object(node: ElementTree.Element) -> ObjectAnnotation:
    box = _only(node, "bndbox")
    xmin, ymin, xmax, ymax = (float(_text(box, side)) for side in ("xmin", "ymin", "xmax", "ymax"))
    return ObjectAnnotation(
        name=_text(node, "name").strip(),
        box=(xmin, ymin, xmax, ymax),
        difficult=_mark(node, "difficult"),
        truncated=_mark(node, "truncated"),
    )


def _mark(node: ElementTree.Element, tag: str) -> bool:
    """A mark of an object, 0 or 1; false where it is missing."""
    child = _only(node, tag)
    text = "0" if child is None else (child.text or "").strip()
    if text.lower() not in FLAGS:
        raise ValueError(f"<{tag}> is '{text[:SHOWN]}', not 0 or 1")
    return FLAGS[text.lower()]


def _text(node: ElementTree.Element | None, tag: str) -> str:
    child = None if node is None else _only(node, tag)
    if child is None:
        raise ValueError(f"no <{tag}>")
    return child.text or ""
