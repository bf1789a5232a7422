"""The record: what one cell leaves behind."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from bench.config.schema import Suite
from bench.encoders.pretraining import Pretraining, TrainingTrace

Role = Literal["reference", "untrained", "pretrained"]


class Table(BaseModel):
    """A part of a file that we write; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Predictions(Table):
    """The per-image predictions beside the record."""

    file: str
    sha256: str


class EncoderFacts(Table):
    """The encoder that was scored."""

    backbone: str
    inputs: list[str] = ["rgb"]
    """Input of each branch: the part of an image that it is given."""
    weights_sha256: str
    parameters: int


class HyperparameterFacts(Table):
    """Selection of a task's hyperparameters."""

    selected: dict[str, Any] = {}
    """Name -> selected value."""
    num_settings: int = 1
    """Number of settings that were compared; 1 if nothing was tuned."""
    split: str = ""
    """On which images they were compared."""
    tried: dict[str, list[Any]] = {}
    """The settings and their scores, one list for each name."""


class Provenance(Table):
    """Origin of the numbers. Shown by `compare` and `reproduce`; it decides nothing."""

    method_code: str = ""
    """Digest of the method's file and of the harness's packages that make numbers."""
    task_code: str = ""
    command: list[str] = []
    """The command line."""


class Record(Table):
    """One cell: method x task x seed of one suite."""

    schema_: Literal[2] = 2
    suite: str
    suite_sha256: str
    suite_settings: Suite
    """Settings that all rows of the suite share, and the data sets that the cell used."""
    method: str
    method_version: int
    method_digest: str = ""
    """Digest of the method's own code where it does not ship with the project."""
    role: Role = "pretrained"
    recipe: dict[str, Any] = {}
    """The resolved settings of the method; empty if it trains on no images of the suite."""
    task: str
    task_version: int
    task_digest: str = ""
    """Digest of the task's own code where it does not ship with the project."""
    task_settings: dict[str, Any] = {}
    """The resolved settings of the task."""
    seed: int
    status: Literal["ok", "failed"]
    error: str | None = None
    metric: str
    """Name in the metric registry."""
    value: float | None = None
    """The main score in points, 0-100, higher is better."""
    per_class: dict[str, float] = {}
    """The metric of every class that counts, in points."""
    excluded_classes: list[str] = []
    """Classes left out of the mean."""
    per_stage: list[float] | None = None
    """The metric of every stage of the encoder, fine to coarse, in points."""
    selected_stage: int | None = None
    diagnostics: dict[str, float | None] = {}
    """Other measures by name, such as `optimism` and `effective_rank`."""
    hyperparameters: HyperparameterFacts = HyperparameterFacts()
    warnings: list[str] = []
    predictions: Predictions | None = None
    samples: str | None = None
    """File of what the method generates, beside the record of seed 0."""
    predictions_image: str | None = None
    """File of predictions beside ground truth, beside the record of seed 0."""
    encoder: EncoderFacts | None = None
    pretraining: Pretraining = Pretraining()
    training: TrainingTrace | None = None
    """The trace of the task's own training, if it trains a network."""
    timings: dict[str, float] = {}
    """Seconds by stage."""
    peak_memory_mb: float = 0.0
    """Peak memory in MiB: of the GPU since this encoder's work began, else of the process."""
    data: dict[str, str] = {}
    """Fingerprint of each split used, by DATASET_SPLIT."""
    num_images: dict[str, int] = {}
    """Number of images of each split of `data`."""
    files: dict[str, str] = {}
    """SHA-256 of each file that the method read, by the path it was given."""
    provenance: Provenance = Provenance()
    environment: dict[str, Any] = {}
    created: str
    checksum: str = ""
    """SHA-256 of all the rest, by which a changed record is recognized."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key in ("value", "encoder"):
            if self.status == "ok" and getattr(self, key) is None:
                raise ValueError(f"status ok without {key}")
        return self

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.rstrip("_"),
        validate_by_name=True,
    )

    @property
    def dataset(self) -> str:
        """Name of the suite's data set that the task used."""
        return str(self.task_settings.get("dataset", ""))

    @property
    def test_data(self) -> dict[str, str]:
        """Fingerprints of the test splits."""
        return {name: value for name, value in self.data.items() if name.endswith("_test")}
