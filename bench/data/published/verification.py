"""Whether a published data set is whole: which files are missing, broken or extra.

`bench data get` writes a manifest, the SHA-256 of every file that it put in place. Where there is
one, it says what must be there. Elsewhere the splits of a VOCdevkit do, and for a folder of images
the numbers of the catalog.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.config.schema import VOC_CLASSES, Voc, VocMasks
from bench.data.image_files import problem_of
from bench.data.image_folder import walk
from bench.data.manifest import THREADS
from bench.data.published.catalog import PublishedDataset, Split
from bench.data.voc import identifiers, open_voc, read_annotation
from bench.data.voc_masks import OFFICIAL, mask_file, open_voc_masks
from bench.errors import UserError
from bench.runtime.fingerprint import file_digest
from bench.runtime.progress import Reporter

ARCHIVES = "archives"  # folder of the data root
AUGMENTED = "SegmentationClassAug"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set.

    Attributes:
        kind: of problem.
        text: names the file below the data root.
    """

    kind: Literal["missing", "broken", "extra"]
    text: str


@dataclass(frozen=True)
class Expected:
    """What must be there.

    Attributes:
        files: path below the data root -> SHA-256; empty where it is not known.
        problems: what the splits or the numbers of images show to be wrong.
    """

    files: Mapping[str, str]
    problems: tuple[Problem, ...] = ()


def is_complete(dataset: PublishedDataset, root: Path) -> bool:
    """Whether nothing is missing; no image is read."""
    if not (root / dataset.folder).is_dir():
        return False
    expected = expect(dataset, root)
    problems = [*expected.problems, *_missing(root, expected.files)]
    return not any(problem.kind == "missing" for problem in problems)


def verify(dataset: PublishedDataset, root: Path, reporter: Reporter) -> tuple[int, list[Problem]]:
    """Read every file; the number of files that must be there, and what is wrong.

    Raises:
        UserError: the data set's folder is not there, or cannot be read.
    """
    if not (root / dataset.folder).is_dir():
        hint = f"bench data get {dataset.name}, or see --data-root"
        raise UserError(f"{root / dataset.folder}: no such folder; {hint}")
    expected = expect(dataset, root)
    problems = [*expected.problems, *_missing(root, expected.files)]
    absent = {problem.text for problem in problems}
    present = {name: sha for name, sha in expected.files.items() if name not in absent}
    problems += _broken(root, present, reporter, dataset.name)
    problems += [Problem("extra", name) for name in _extra(dataset, root, expected.files)]
    if not problems:
        problems = _unusable(dataset, root)
    return len(expected.files), problems


def manifest_path(dataset: PublishedDataset, root: Path) -> Path:
    """The file with the SHA-256 of every file that was put in place, as sha256sum writes it."""
    return root / ARCHIVES / f"{dataset.name}.sha256"


def expect(dataset: PublishedDataset, root: Path) -> Expected:
    """What must be there, by the manifest, by the splits or by the numbers of images."""
    manifest = manifest_path(dataset, root)
    if manifest.is_file():
        lines = [line.partition("  ") for line in manifest.read_text().splitlines()]
        return Expected({name: sha256 for sha256, _, name in lines})
    if dataset.kind == "image_folder":
        return _expect_images(dataset, root)
    return _expect_devkit(dataset, root)


def _expect_devkit(dataset: PublishedDataset, root: Path) -> Expected:
    """The images, annotations and masks of the images that the splits name."""
    year = root / dataset.folder
    masks = AUGMENTED if dataset.kind == "masks" else OFFICIAL
    files: dict[str, str] = {}
    problems = []
    for split in dataset.splits:
        kind, name = Path(split.path).parts[1:]
        try:
            ids = identifiers(year, Path(name).stem, kind)
        except UserError as error:
            missing = not (year / split.path).is_file()
            text = f"{dataset.folder}/{split.path}" if missing else str(error)
            problems.append(Problem("missing" if missing else "broken", text))
            continue
        problems += _count(f"{dataset.folder}/{split.path}", len(ids), split.images)
        for identifier in ids:
            files[f"{dataset.folder}/JPEGImages/{identifier}.jpg"] = ""
            annotation = f"Annotations/{identifier}.xml"
            other = annotation if kind == "Main" else mask_file(year, masks, identifier)
            files[f"{dataset.folder}/{other}"] = ""
    return Expected(files, tuple(problems))


def _expect_images(dataset: PublishedDataset, root: Path) -> Expected:
    """The images that are there, and how their numbers differ from the catalog's."""
    files: dict[str, str] = {}
    problems = []
    for split in dataset.splits:
        folder = f"{dataset.folder}/{split.path}"
        if not (root / folder).is_dir():
            if not split.optional:
                problems.append(Problem("missing", f"{folder} ({split.images:,} images)"))
            continue
        names = walk(root / folder).files
        files |= {f"{folder}/{name}": "" for name in names}
        problems += _class_counts(folder, names, split)
        problems += _count(folder, len(names), split.images)
    return Expected(files, tuple(problems))


def _class_counts(folder: str, names: Iterable[str], split: Split) -> list[Problem]:
    """How the classes' numbers of images differ from the catalog's."""
    if not split.per_class:
        return []
    counts = Counter(name.split("/")[0] for name in names)
    return [
        problem
        for name, count in sorted(counts.items())
        for problem in _count(f"{folder}/{name}", count, split.per_class)
    ]


def _count(where: str, count: int, expected: int) -> list[Problem]:
    if count == expected:
        return []
    kind: Literal["missing", "extra"] = "missing" if count < expected else "extra"
    return [Problem(kind, f"{where}: {count:,} images, {expected:,} expected")]


def _missing(root: Path, files: Iterable[str]) -> list[Problem]:
    return [Problem("missing", name) for name in files if not (root / name).is_file()]


def _broken(root: Path, files: Mapping[str, str], reporter: Reporter, title: str) -> list[Problem]:
    """The files whose content is not what it must be."""
    problems = []
    with (
        reporter.stage(f"verifying {title}", len(files), "files") as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        texts = pool.map(lambda item: _problem_of(root, *item), files.items())
        for name, text in zip(files, texts, strict=True):
            bar.advance(1)
            if text:
                problems.append(Problem("broken", f"{name}: {text}"))
    return problems


def _problem_of(root: Path, name: str, sha256: str) -> str:
    """What is wrong with a file; empty if nothing is."""
    try:
        if sha256:
            same = file_digest(root / name) == sha256
            return "" if same else "differs from what was unpacked"
        if name.endswith(".xml"):
            read_annotation(root / name, VOC_CLASSES)
            return ""
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except UserError as error:
        return str(error).removeprefix(f"{root / name}: ")
    return problem_of(root, name)


def _extra(dataset: PublishedDataset, root: Path, files: Mapping[str, str]) -> list[str]:
    """The images that are there and must not be; masks beside those of a split do no harm."""
    if dataset.kind == "image_folder":
        folders = [f"{dataset.folder}/{split.path}" for split in dataset.splits]
        present = [
            f"{folder}/{name}"
            for folder in folders
            if (root / folder).is_dir()
            for name in walk(root / folder).files
        ]
        return sorted({*present} - {*files})
    if dataset.kind == "masks":
        return []
    # VOC has images of other competitions too; each has an annotation.
    images = (root / dataset.folder / "JPEGImages").glob("*.jpg")
    named = ((f"{dataset.folder}/JPEGImages/{path.name}", path.stem) for path in images)
    annotations = root / dataset.folder / "Annotations"
    return sorted(
        name
        for name, stem in named
        if name not in files and not (annotations / f"{stem}.xml").is_file()
    )


def _unusable(dataset: PublishedDataset, root: Path) -> list[Problem]:
    """What `bench run` would refuse though each file is in order: labels, boxes, sizes of masks."""
    year = Path(dataset.folder).name
    names = [f"{year}/{Path(split.path).stem}" for split in dataset.splits]
    try:
        if dataset.kind == "voc":
            voc = Voc(kind="voc", train=(names[0],), test=(names[1],))
            open_voc(root, dataset.name, voc, Reporter())
            masks = VocMasks(kind="voc_masks", train=(names[2],), test=(names[3],))
            open_voc_masks(root, dataset.name, masks, Reporter())
        elif dataset.kind == "masks":
            test = (f"{year}/val",)
            masks = VocMasks(kind="voc_masks", train=(names[0],), test=test, masks=AUGMENTED)
            open_voc_masks(root, dataset.name, masks, Reporter())
    except UserError as error:
        return [Problem("broken", str(error))]
    return []
