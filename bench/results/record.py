"""The record: what one cell leaves behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bench.config.schema import LARGEST, Plain, Suite, check_plain, checked_plain
from bench.encoders.pretraining import Pretraining, TrainingTrace
from bench.errors import printable

Role = Literal["reference", "untrained", "pretrained"]
LONGEST = 200  # characters of a name
ROUNDING = 1e-6  # points by which a score may leave 0 to 100
ADDRESS = r"^(https://[^\s<>\"'`\\]{1,300})?$"
MOST_PROCESSES = 4096  # of one run


def plain_name(value: str) -> str:
    """A name that may be that of a file or folder, in the folder where it belongs.

    Raises:
        ValueError: it is none.
    """
    plain = PurePath(value).name == value and value not in ("", "..")
    if not plain or "\\" in value or not value.isprintable():
        raise ValueError("must be a name, without folders and control characters")
    return value


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    """Plain values that are no tables or lists."""
    check_plain(value)
    odd = [key for key, item in value.items() if isinstance(item, dict | list | tuple)]
    if odd:
        raise ValueError(f"'{odd[0]}' must be text, a number, true or false")
    return value


Name = Annotated[str, Field(max_length=LONGEST), AfterValidator(plain_name)]
ImageName = Annotated[Name, Field(pattern=r"\.png$")]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Measure = Annotated[float, Field(ge=0)]
Points = Annotated[float, Field(ge=-ROUNDING, le=100 + ROUNDING)]


class Table(BaseModel):
    """A part of a file that we write; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Predictions(Table):
    """The per-image predictions beside the record."""

    file: Name
    sha256: str


class EncoderFacts(Table):
    """The encoder that was scored."""

    backbone: str
    inputs: Annotated[list[str], Field(min_length=1, max_length=100)] = ["rgb"]
    """Input of each branch: the part of an image that it is given."""
    weights_sha256: str
    parameters: Count


class HyperparameterFacts(Table):
    """Selection of a task's hyperparameters."""

    selected: Plain = {}
    """Name -> selected value."""
    num_settings: Count = 1
    """Number of settings that were compared; 1 if nothing was tuned."""
    split: str = ""
    """On which images they were compared."""
    tried: Annotated[dict[str, list[Any]], AfterValidator(checked_plain)] = {}
    """The settings and their scores, one list for each name."""


class Provenance(Table):
    """Origin of the numbers. Shown by `compare` and `reproduce`; it decides nothing."""

    method_code: str = ""
    """Digest of the method's file and of the harness's packages that make numbers."""
    task_code: str = ""
    command: list[str] = []
    """The command line."""
    source: Annotated[str, Field(pattern=ADDRESS)] = ""
    """Address of code or weights that do not ship with the project, as `bench publish` was told."""


class Record(Table):
    """One cell: method x task x seed of one suite."""

    schema_: Literal[2] = 2
    suite: Name
    suite_sha256: str
    suite_settings: Suite
    """Settings that all rows of the suite share, and the data sets that the cell used."""
    method: Name
    method_version: Count
    method_digest: str = ""
    """Digest of the method's own code where it does not ship with the project."""
    role: Role = "pretrained"
    recipe: Plain = {}
    """The resolved settings of the method; empty if it trains on no images of the suite."""
    task: Name
    task_version: Count
    task_digest: str = ""
    """Digest of the task's own code where it does not ship with the project."""
    task_settings: Plain = {}
    """The resolved settings of the task."""
    seed: Count
    status: Literal["ok", "failed"]
    error: str | None = None
    """What failed, in one line."""
    error_lines: list[str] = []
    """All lines of what failed, where there are several."""
    metric: str
    """Name in the metric registry."""
    value: Points | None = None
    """The main score in points, 0-100, higher is better."""
    per_class: Annotated[dict[str, Points], Field(max_length=25_000)] = {}
    """The metric of every class that counts, in points."""
    excluded_classes: list[str] = []
    """Classes left out of the mean."""
    per_stage: Annotated[list[Points], Field(max_length=100)] | None = None
    """The metric of every stage of the encoder, fine to coarse, in points."""
    selected_stage: Count | None = None
    diagnostics: dict[str, float | None] = {}
    """Other measures by name, such as `optimism` and `effective_rank`."""
    hyperparameters: HyperparameterFacts = HyperparameterFacts()
    warnings: list[str] = []
    predictions: Predictions | None = None
    samples: ImageName | None = None
    """File of what the method generates, beside the record of seed 0."""
    predictions_image: ImageName | None = None
    """File of predictions beside ground truth, beside the record of seed 0."""
    encoder: EncoderFacts | None = None
    weights: Plain = {}
    """Where weights from elsewhere come from, and how they were read."""
    pretraining: Pretraining = Pretraining()
    training: TrainingTrace | None = None
    """The trace of the task's own training, if it trains a network."""
    timings: dict[str, Measure] = {}
    """Seconds by stage."""
    peak_memory_mb: Measure = 0.0
    """Peak memory in MiB: of the GPU since this encoder's work began, else of the process."""
    data: dict[str, str] = {}
    """Fingerprint of each split used, by DATASET_SPLIT."""
    num_images: dict[str, Count] = {}
    """Number of images of each split of `data`."""
    files: dict[str, str] = {}
    """SHA-256 of each file that the method read, by the path it was given."""
    provenance: Provenance = Provenance()
    environment: Annotated[dict[str, Any], Field(max_length=1000), AfterValidator(_flat)] = {}
    created: str
    checksum: str = ""
    """SHA-256 of all the rest, by which a changed record is recognized."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key in ("value", "encoder"):
            if self.status == "ok" and getattr(self, key) is None:
                raise ValueError(f"status ok without {key}")
        if self.selected_stage is not None and self.selected_stage >= len(self.per_stage or []):
            raise ValueError("selected_stage is none of per_stage")
        if not isinstance(self.environment.get("commit") or "", str):
            raise ValueError("environment.commit is no text")
        if self.predictions and self.predictions.file != f"seed{self.seed}.npz":
            raise ValueError(f"predictions.file is not seed{self.seed}.npz")
        processes = self.environment.get("processes", 1)
        if not isinstance(processes, int) or not 1 <= processes <= MOST_PROCESSES:
            raise ValueError(f"environment.processes is not 1 to {MOST_PROCESSES}")
        return self

    @model_validator(mode="after")
    def _trained(self) -> Self:
        """What training says of itself is not validated where it was made in this process."""
        for key in ("pretraining", "training"):
            part = getattr(self, key)
            try:
                check_plain(dataclasses.asdict(part) if part else {})
            except ValueError as error:
                raise ValueError(f"{key} {error}") from None
        curve = self.pretraining.loss_curve
        if min(self.pretraining.views_seen, self.pretraining.seconds) < 0:
            raise ValueError("pretraining has a negative cost")
        if curve and [0, *curve.steps] != sorted({0, *curve.steps}):
            raise ValueError("pretraining.loss_curve.steps must be positive and ascending")
        return self

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.rstrip("_"),
        validate_by_name=True,
    )

    def printable(self) -> Record:
        """The record as pages, tables and terminals show it: without control characters.

        One that has such characters is no longer what its checksum is of.
        """
        data = self.model_dump(mode="json", by_alias=True)
        shown = printable(data)
        return self if shown == data else Record.model_validate_json(json.dumps(shown))

    @property
    def dataset(self) -> str:
        """Name of the suite's data set that the task used."""
        return str(self.task_settings.get("dataset", ""))

    @property
    def other_backbone(self) -> str:
        """The backbone that was scored, where it is not the suite's; else empty.

        A failed record has none of its own: its method's name may say it.
        """
        own = self.encoder.backbone if self.encoder else self.method.partition("@")[2]
        return "" if own == self.suite_settings.backbone.name else own

    @property
    def has_given_weights(self) -> bool:
        """Whether its weights come from elsewhere: no seed of the suite changes them."""
        return self.role == "reference" or (self.role == "pretrained" and not self.recipe)

    @property
    def test_data(self) -> dict[str, str]:
        """Fingerprints of the test splits."""
        return {name: value for name, value in self.data.items() if name.endswith("_test")}
