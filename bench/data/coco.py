"""COCO annotation files: image labels and boxes of the categories that a suite names.

Format as on cocodataset.org, "Data format", "Object Detection": `bbox` is [x, y, width, height] in
continuous pixels from 0, `iscrowd` marks a group. A group counts neither way, like an object that
VOC marks difficult, and no detection inside it is false.

The box of an object is the extent of its polygons, and `area` is their area. Some files round
these, so each side of a box may be a pixel off. Two annotations of one image, category and box are
counted, not refused: such are reported of COCO's own training split (cocoapi, issue 462).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from bench.config.schema import Coco
from bench.data.image_files import ImageError, ImageFiles, read_bytes, verify
from bench.data.voc import BoxSplit, ObjectAnnotation, check_size
from bench.errors import SHOWN, UserError, from_validation, one_line
from bench.runtime.fingerprint import digest, file_digest
from bench.runtime.progress import Reporter

MAX_BYTES = 2**31  # of an annotation file; the largest of COCO has a quarter
ROUNDING = 1.0  # pixels beyond each side of a box that its polygons may reach

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _no_text(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError("expected 0 or 1, not text")
    return value


class _Image(BaseModel):
    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(BaseModel):
    id: int | str | None = None
    image_id: int
    category_id: int
    bbox: tuple[Finite, Finite, Finite, Finite]
    iscrowd: Annotated[int, Field(ge=0, le=1), BeforeValidator(_no_text)] = 0
    area: Annotated[Finite, Field(ge=0)] | None = None
    segmentation: Any = None
    ignore: Any = None
    difficult: Any = None

    @property
    def title(self) -> str:
        """What an error calls it."""
        if self.id is None:
            return f"an annotation of image {self.image_id}"
        return one_line(f"annotation {self.id}"[:SHOWN])


class _Category(BaseModel):
    id: int
    name: str


class _File(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def open_coco(
    root: Path, name: str, section: Coco, reporter: Reporter, manifests: Path | None = None
) -> tuple[tuple[str, ...], BoxSplit, BoxSplit]:
    """Open and check both splits of a data set in COCO's format.

    Args:
        root: the data root.
        name: of the data set in the suite.
        section: what the suite declares of it.
        reporter: for progress.
        manifests: see `image_files.verify`.

    Returns:
        The classes, the training split and the test split.

    Raises:
        UserError: anything is missing, malformed or overlapping; the message names the file.
    """
    train = _read(root / section.train, reporter)
    test = _read(root / section.test, reporter)
    test_names = {category.id: category.name for category in test.categories}
    for category in train.categories:
        other = test_names.get(category.id, category.name)
        if other != category.name:
            raise UserError(
                f"{root / section.test}: category {category.id} is '{other}', "
                f"but '{category.name}' in {root / section.train}"
            )
    classes = section.classes
    if not classes:
        classes = tuple(c.name for c in sorted(train.categories, key=lambda c: c.id))
        _check_categories(root / section.test, test, root / section.train, classes, name)
    shared = {image.file_name for image in train.images} & {i.file_name for i in test.images}
    if shared and section.train_images == section.test_images:
        raise UserError(
            f"{root / section.test}: {min(shared)} is in both splits: "
            "the test images must not be trained on"
        )
    splits = [
        _open_split(root / annotations, file, root / folder, classes, name, reporter, manifests)
        for annotations, file, folder in (
            (section.train, train, section.train_images),
            (section.test, test, section.test_images),
        )
    ]
    return classes, splits[0], splits[1]


def _check_categories(
    path: Path, file: _File, other: Path, classes: tuple[str, ...], name: str
) -> None:
    """Refuse test objects of a category that the training split lacks."""
    counts = Counter(annotation.category_id for annotation in file.annotations)
    for category in file.categories:
        count = counts[category.id]
        if count and category.name not in classes:
            raise UserError(
                f"{path}: has {count:,} objects of '{category.name[:SHOWN]}', a category that "
                f"{other} lacks; name the classes to keep as datasets.{name}.classes"
            )


def _read(path: Path, reporter: Reporter) -> _File:
    try:
        file = TypeAdapter(_File).validate_python(_parsed(read_bytes(path, MAX_BYTES)))
    except ImageError as problem:
        raise UserError(f"{path}: {problem}; see --data-root") from None
    except ValidationError as error:
        raise from_validation(f"{path}: not a COCO annotation file", error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    given = [annotation.id for annotation in file.annotations if annotation.id is not None]
    for what, entries in (
        ("an image id", [image.id for image in file.images]),
        ("an image", [image.file_name for image in file.images]),
        ("a category id", [category.id for category in file.categories]),
        ("a category", [category.name for category in file.categories]),
        ("an annotation id", given),
    ):
        twice = _repeated(entries)
        if twice:
            raise UserError(f"{path}: lists {what} twice: {str(entries[twice[0]])[:SHOWN]}")
    _check_pixels(path, file)
    for annotation in file.annotations:
        _check_marks(path, annotation)
        _check_shape(path, annotation)
    _say_repeats(path, file, reporter)
    return _without_flat(path, file, reporter)


def _repeated(entries: Sequence[Hashable]) -> list[int]:
    """The indices of entries that are equal to an earlier one."""
    known: set[Hashable] = set()
    repeated = []
    for index, entry in enumerate(entries):
        if entry in known:
            repeated.append(index)
        known.add(entry)
    return repeated


def _say_repeats(path: Path, file: _File, reporter: Reporter) -> None:
    """Count annotations that are there under another id too; COCO's own files have some."""
    repeated = _repeated([(a.image_id, a.category_id, a.bbox, a.iscrowd) for a in file.annotations])
    if repeated:
        reporter.say(
            f"{path}: {len(repeated):,} of {len(file.annotations):,} annotations with the image, "
            f"category and box of another one ({file.annotations[repeated[0]].title})"
        )


def _without_flat(path: Path, file: _File, reporter: Reporter) -> _File:
    """The file without annotations whose box has no width or no height, which are counted.

    COCO's training split has such (cocoapi, issue 355). detectron2 leaves them out, too
    (`filter_empty_instances`).
    """
    kept = [annotation for annotation in file.annotations if 0 not in annotation.bbox[2:]]
    flat = [annotation for annotation in file.annotations if 0 in annotation.bbox[2:]]
    if flat:
        reporter.say(
            f"{path}: left out {len(flat):,} of {len(file.annotations):,} annotations, whose box "
            f"has no width or no height ({flat[0].title})"
        )
    return file.model_copy(update={"annotations": kept})


def _check_marks(path: Path, annotation: _Annotation) -> None:
    """Refuse a mark that COCO's format lacks, where it says of an object that it must not count.

    pycocotools overwrites `ignore` by `iscrowd`; other readers leave such objects out.
    """
    for mark in ("ignore", "difficult"):
        value = getattr(annotation, mark)
        if value and not annotation.iscrowd:
            raise UserError(
                f"{path}: {annotation.title} has {mark} {value!r}, which COCO's evaluation does "
                "not read; set iscrowd to 1 if it must not count, or remove the key"
            )


def _check_shape(path: Path, annotation: _Annotation) -> None:
    """Refuse an area or a polygon that its box cannot hold."""
    _, _, width, height = annotation.bbox
    if min(width, height) < 0:
        raise UserError(f"{path}: {annotation.title} has a box of {width:g} x {height:g} pixels")
    if min(width, height) == 0:  # it is left out
        return
    polygons = annotation.segmentation if isinstance(annotation.segmentation, list) else []
    try:
        beyond = max((_beyond(annotation.bbox, p) for p in polygons if p), default=0.0)
    except (TypeError, ValueError, LookupError):
        raise UserError(
            f"{path}: {annotation.title} has a segmentation that is no list of polygons "
            "[x, y, x, y, ...]"
        ) from None
    box = f"its box of {width:g} x {height:g} pixels"
    area = annotation.area or 0.0
    if area > (width + 2 * ROUNDING) * (height + 2 * ROUNDING):
        raise UserError(f"{path}: {annotation.title} has an area of {area:g}, too much for {box}")
    if not beyond <= ROUNDING:
        raise UserError(
            f"{path}: {annotation.title} has a polygon that reaches {beyond:g} pixels beyond {box}"
        )


def _beyond(bbox: tuple[float, ...], polygon: list[float]) -> float:
    """How far a polygon reaches beyond a box, pixels; negative inside of it."""
    x, y, width, height = bbox
    across = polygon[0::2]
    down = polygon[1::2]
    horizontal = max(x - min(across), max(across) - x - width)
    vertical = max(y - min(down), max(down) - y - height)
    return max(horizontal, vertical)


def _parsed(content: bytes) -> Any:
    """The content of a JSON document, in which no object has a key twice."""
    return json.loads(content, object_pairs_hook=_object_of)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:SHOWN]!a} is given twice in one object")
    return values


def _check_pixels(path: Path, file: _File) -> None:
    """Refuse boxes that are shares of their images."""
    values = np.array([annotation.bbox for annotation in file.annotations])
    if values.size and values.min() >= 0 and values.max() <= 1 and (values % 1).any():
        raise UserError(f"{path}: its boxes are shares of the image, 0..1; expected pixels")


def _open_split(
    path: Path,
    file: _File,
    folder: Path,
    classes: tuple[str, ...],
    name: str,
    reporter: Reporter,
    manifests: Path | None,
) -> BoxSplit:
    categories = {category.id: category.name for category in file.categories}
    absent = [label for label in classes if label not in categories.values()]
    if absent:
        raise UserError(f"{path}: has no category '{absent[0]}'")
    images = sorted(file.images, key=lambda image: image.id)
    if not images:
        raise UserError(f"{path}: lists no image")
    objects: dict[int, list[ObjectAnnotation]] = {image.id: [] for image in images}
    for annotation in file.annotations:
        if annotation.image_id not in objects or annotation.category_id not in categories:
            raise UserError(f"{path}: an annotation names an image or a category that is not there")
        label = categories[annotation.category_id]
        if label in classes:
            objects[annotation.image_id].append(_object(label, annotation))
    by_image = [tuple(objects[image.id]) for image in images]
    labels = np.array([[_label(own, label) for label in classes] for own in by_image], np.int8)
    with reporter.stage(f"checking {name}", len(images)) as bar:
        names = [image.file_name for image in images]
        files = verify(folder, names, "stop", bar.advance, manifests)
    for index, (image, own) in enumerate(zip(images, by_image, strict=True)):
        if image.width is not None and image.height is not None:
            check_size(path, (image.width, image.height), files, index)
        for entry in own:
            _check_inside(path, entry, files, index)
    ids = tuple(image.file_name for image in images)
    crowds = ["crowds"] if any(entry.crowd for own in by_image for entry in own) else []
    fingerprint = digest([ids, files.fingerprint, list(classes), file_digest(path), *crowds])
    return BoxSplit(ids, files, labels, tuple(by_image), fingerprint)


def _object(label: str, annotation: _Annotation) -> ObjectAnnotation:
    """The box in VOC's convention: 1-based inclusive pixels."""
    x, y, width, height = annotation.bbox
    box = (x + 1, y + 1, x + max(width, 1), y + max(height, 1))
    crowd = bool(annotation.iscrowd)
    return ObjectAnnotation(label, box, difficult=crowd, truncated=False, crowd=crowd)


def _check_inside(path: Path, entry: ObjectAnnotation, images: ImageFiles, index: int) -> None:
    """Refuse a box that reaches more than a pixel beyond its image; COCO has some by less."""
    width, height = images.sizes[index].tolist()
    xmin, ymin, xmax, ymax = entry.box
    if min(xmin, ymin) < 0 or xmax > width + 1 or ymax > height + 1:
        box = ", ".join(f"{value:g}" for value in entry.box)
        raise UserError(
            f"{path}: box ({box}) of '{entry.name}' is outside {images.files[index]} "
            f"({width} x {height})"
        )


def _label(objects: tuple[ObjectAnnotation, ...], label: str) -> int:
    """1 if an image has an object of a class, 0 if only groups, else -1."""
    groups = [entry.difficult for entry in objects if entry.name == label]
    if not groups:
        return -1
    return 0 if all(groups) else 1
