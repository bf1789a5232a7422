"""The data sets of a run, opened and checked once, before anything is computed."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from bench.config import schema
from bench.config.schema import Suite, Synthetic
from bench.data import synthetic_objects, synthetic_scenes
from bench.data.coco import open_coco
from bench.data.image_files import UPRIGHT, ImageFiles
from bench.data.image_folder import LabeledImages, open_image_folder
from bench.data.voc import BoxSplit, open_voc
from bench.data.voc_masks import open_voc_masks
from bench.errors import UserError, naming, one_line, unknown
from bench.runtime import distributed
from bench.runtime.files import damaged, locked, read_cached, write_cached
from bench.runtime.fingerprint import code_digest, digest, tree_digest
from bench.runtime.partial import partial_folder
from bench.runtime.progress import Reporter

MANIFESTS = "manifests"  # folder of the cache, see `data.manifest`
TREE_DIGEST = "rendered.sha256"  # beside rendered scenes: the digest of all other files
SHARED = 0.001  # of a split's images may be in training too: public data sets have a few such


class Split(Protocol):
    """The images of one split; what annotates them depends on the kind of data set.

    Attributes:
        ids: names of the images, in order.
        images: the files, in the same order.
        fingerprint: SHA-256 of images and annotations.
    """

    @property
    def ids(self) -> Sequence[str]:
        """Names of the images."""

    @property
    def images(self) -> ImageFiles:
        """The files."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of images and annotations."""


@dataclass(frozen=True)
class Dataset:
    """One data set of a suite, opened.

    Attributes:
        name: in the suite.
        section: what the suite declares of it.
        classes: names, in the order of labels; empty for images without labels.
        train: the training split.
        test: the test split; None for a data set that is only trained on.
        validation: images on which pretext tasks are scored, with the labels of the training split;
            None where the suite declares none. Records do not name them.
        warnings: what a reader of a score on these images must know.
    """

    name: str
    section: schema.Dataset
    classes: tuple[str, ...]
    train: Split
    test: Split | None
    validation: LabeledImages | None = None
    warnings: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by the name that records give them, NAME_train and NAME_test."""
        splits = {f"{self.name}_train": self.train}
        if self.test is not None:
            splits[f"{self.name}_test"] = self.test
        return splits


Datasets = Mapping[str, Dataset]


def fingerprints(datasets: Datasets) -> dict[str, str]:
    """SHA-256 of each split, by the name that records give it."""
    splits = [item for dataset in datasets.values() for item in dataset.splits.items()]
    return {name: split.fingerprint for name, split in splits}


def open_datasets(
    suite: Suite, names: Collection[str], root: Path | None, cache: Path, reporter: Reporter
) -> dict[str, Dataset]:
    """Open and check some data sets of a suite; of several processes, the main one does.

    Args:
        suite: says what they are and where they are below the data root.
        names: which.
        root: the data root; None for a suite that renders its own images.
        cache: folder for rendered images and for manifests.
        reporter: for progress.

    Raises:
        UserError: something is missing, empty or damaged.
    """
    return distributed.from_main(lambda: _open_all(suite, names, root, cache, reporter))


def _open_all(
    suite: Suite, names: Collection[str], root: Path | None, cache: Path, reporter: Reporter
) -> dict[str, Dataset]:
    for name in names:
        if name not in suite.datasets:
            raise UserError(f"suite {suite.name}: {unknown('data set', name, suite.datasets)}")
    root = _data_root(suite, root, cache, reporter)
    opened = {
        name: _open(name, suite.datasets[name], root, reporter, cache / MANIFESTS)
        for name in sorted(names)
    }
    for dataset in opened.values():
        _check_class_names(dataset)
        _check_test_split(dataset)
        _say_repeats(dataset, reporter)
    return {name: _with_warnings(dataset) for name, dataset in opened.items()}


def _check_test_split(dataset: Dataset) -> None:
    """Refuse one test image: no half of it, and so no interval."""
    if dataset.test is not None and len(dataset.test.ids) < 2:
        raise UserError(
            f"datasets.{dataset.name}.test: is one image; a score's interval needs two or more"
        )


def _data_root(suite: Suite, root: Path | None, cache: Path, reporter: Reporter) -> Path:
    if suite.synthetic is not None:
        if root is not None:
            raise UserError(f"suite {suite.name} renders its own images: leave out --data-root")
        return render_to_cache(suite.synthetic, cache, reporter)
    if root is None:
        raise UserError(f"suite {suite.name} needs images: name their folder with --data-root DIR")
    if not root.is_dir():
        raise UserError(f"--data-root {root}: no such folder")
    if not any(root.iterdir()):
        raise UserError(f"--data-root {root}: the folder is empty")
    return root


def _open(
    name: str, section: schema.Dataset, root: Path, reporter: Reporter, manifests: Path
) -> Dataset:
    if isinstance(section, schema.ImageFolder):
        return _open_image_folders(name, section, root, reporter, manifests)
    if isinstance(section, schema.Voc):
        boxes = open_voc(root, name, section, reporter, manifests)
        return Dataset(name, section, section.classes, *boxes)
    if isinstance(section, schema.VocMasks):
        masks = open_voc_masks(root, name, section, reporter, manifests)
        return Dataset(name, section, section.classes, *masks)
    classes, coco_train, coco_test = open_coco(root, name, section, reporter, manifests)
    return Dataset(name, section, classes, coco_train, coco_test)


def _check_class_names(dataset: Dataset) -> None:
    """Refuse two classes whose names differ in capitals, blanks or Unicode forms alone.

    Raises:
        UserError: names both.
    """
    known: dict[str, str] = {}
    for name in dataset.classes:
        key = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        other = known.setdefault(key, name)
        if other != name:
            raise UserError(
                f"{dataset.train.images.root}: the classes '{other}' and '{name}' differ in "
                f"capitals or blanks alone: a class under two names (datasets.{dataset.name})"
            )


def _all_splits(dataset: Dataset) -> dict[str, Split]:
    """The splits of a data set by name; the validation images too, which no record names."""
    splits: dict[str, Split] = dict(dataset.splits)
    if dataset.validation is not None:
        splits[f"{dataset.name}_validation"] = dataset.validation
    return splits


def _say_repeats(dataset: Dataset, reporter: Reporter) -> None:
    """Count the images of each split that have the content of another one of it."""
    for name, split in _all_splits(dataset).items():
        images = split.images
        _, first, same = np.unique(images.contents, return_index=True, return_inverse=True)
        repeated = np.flatnonzero(first[same] != np.arange(len(same)))
        if repeated.size:
            one = repeated[0]
            pair = f"{images.files[one]} has that of {images.files[first[same[one]]]}"
            reporter.say(
                f"{images.root}: {repeated.size:,} with the content of another image of the split "
                f"{name} ({one_line(pair)})"
            )


def _with_warnings(dataset: Dataset) -> Dataset:
    """A data set with the warnings about its images.

    Raises:
        UserError: images of another split are trained on.
    """
    texts = []
    for name, split in _all_splits(dataset).items():
        if split is not dataset.train:
            texts += _shared(name, dataset.train.images, split.images)
        turned = int((split.images.orientations > UPRIGHT).sum())
        if turned:
            texts.append(f"{turned:,} {name} images have an EXIF orientation, which is not applied")
    return replace(dataset, warnings=tuple(texts))


def _shared(name: str, train: ImageFiles, other: ImageFiles) -> list[str]:
    """A warning of the few images of a split that the training split has, under any name.

    Raises:
        UserError: they are more than a few.
    """
    shared = np.flatnonzero(np.isin(other.contents, train.contents))
    if not shared.size:
        return []
    count = f"{shared.size:,} of {len(other.files):,} {name} images are in the training split"
    if shared.size <= SHARED * len(other.files):
        return [count]
    first = shared[0]
    same = np.flatnonzero(train.contents == other.contents[first])[0]
    raise UserError(
        f"{other.root / other.files[first]}: has the content of "
        f"{train.root / train.files[same]}; {count}: they must not be trained on"
    )


def _open_image_folders(
    name: str, section: schema.ImageFolder, root: Path, reporter: Reporter, manifests: Path
) -> Dataset:
    """The splits of an image folder; those of validation may lack classes.

    Raises:
        UserError: a split is missing, empty or damaged, or has other classes.
    """
    train = open_image_folder(root, name, section, "train", reporter, manifests)
    test = validation = None
    if section.test:
        test = open_image_folder(root, name, section, "test", reporter, manifests)
        odd = sorted({*test.classes} ^ {*train.classes})
        if odd:
            raise UserError(f"datasets.{name}: the splits have other classes: {', '.join(odd)}")
    if section.validation:
        validation = open_image_folder(root, name, section, "validation", reporter, manifests)
        validation = _with_classes(validation, train.classes, name)
    return Dataset(name, section, train.classes, train, test, validation)


def _with_classes(images: LabeledImages, classes: tuple[str, ...], name: str) -> LabeledImages:
    """Validation images whose labels are indices of the training classes.

    Raises:
        UserError: they have a class that training lacks, or only one of both has classes.
    """
    odd = sorted({*images.classes} - {*classes})
    if odd:
        raise UserError(f"datasets.{name}: only validation has the classes {', '.join(odd)}")
    if classes and not images.classes:
        raise UserError(f"datasets.{name}: validation has no class folders, unlike train")
    if not classes:
        return images
    indices = np.searchsorted(classes, images.classes)
    return replace(images, labels=indices[images.labels], classes=classes)


def labeled_splits(dataset: Dataset, task: str) -> tuple[LabeledImages, LabeledImages]:
    """The training and the test split of an image folder with classes.

    Raises:
        UserError: it has no test split, or no folder for each class.
    """
    train, test = dataset.train, dataset.test
    assert isinstance(train, LabeledImages)
    if test is None:
        raise UserError(f"datasets.{dataset.name}.test: is empty; {task} needs a test split")
    if not dataset.classes:
        raise UserError(
            f"datasets.{dataset.name}.train: {train.images.root} has no folder for each class; "
            f"{task} needs labels"
        )
    assert isinstance(test, LabeledImages)
    return train, test


def usable_classes(dataset: Dataset, least: int = 1, key: str = "") -> tuple[list[int], list[str]]:
    """The classes of a data set with enough positive images in both splits.

    Args:
        dataset: of image labels and boxes.
        least: how many positive images are enough, where the data set asks for fewer.
        key: of the suite, which says `least`.

    Returns:
        Their indices, and the names of the rest.

    Raises:
        UserError: no class has enough.
    """
    train, test = dataset.train, dataset.test
    assert isinstance(train, BoxSplit) and isinstance(test, BoxSplit)
    assert isinstance(dataset.section, schema.Voc | schema.Coco)
    if not key or dataset.section.min_positives >= least:
        key = f"datasets.{dataset.name}.min_positives"
    least = max(least, dataset.section.min_positives)
    positives = np.minimum((train.labels == 1).sum(0), (test.labels == 1).sum(0))
    usable = np.flatnonzero(positives >= least).tolist()
    if not usable:
        raise UserError(
            f"no class has {least} positive images in both splits; lower {key}: the most are "
            f"{positives.max(initial=0)}"
        )
    return usable, [name for index, name in enumerate(dataset.classes) if index not in usable]


def render_to_cache(settings: Synthetic, cache: Path, reporter: Reporter) -> Path:
    """The data root of rendered scenes, from the cache or rendered into it."""
    code = code_digest([Path(synthetic_objects.__file__), Path(synthetic_scenes.__file__)])
    key = digest([settings.model_dump(), synthetic_objects.VERSION, code])
    root = cache / "scenes" / key[:24]
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.with_suffix(".lock")):
        if not _is_as_rendered(root, reporter):
            shutil.rmtree(root, ignore_errors=True)
            total = settings.pretraining + settings.validation + settings.train + settings.test
            with (
                naming(root),
                partial_folder(root) as partial,
                reporter.stage("rendering scenes", total) as bar,
            ):
                synthetic_scenes.render(partial, **settings.model_dump(), advance=bar.advance)
                write_cached(partial / TREE_DIGEST, tree_digest(partial).encode())
    return root


def _is_as_rendered(root: Path, reporter: Reporter) -> bool:
    """Whether a folder has the scenes that were rendered into it; a damaged one is named."""
    if not root.exists():
        return False
    expected = read_cached(root / TREE_DIGEST, reporter.say)
    if expected is None:
        return False
    same = tree_digest(root, without=TREE_DIGEST).encode() == expected
    if not same:
        reporter.say(damaged(root))
    return same
