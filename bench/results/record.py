"""The record: what one cell leaves behind, written atomically."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Table(BaseModel):
    """A part of the record; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Predictions(Table):
    """The per-image predictions beside the record."""

    file: str
    sha256: str


class EncoderFacts(Table):
    """The encoder that was scored."""

    backbone: str
    sees: list[str] = ["rgb"]
    weights_sha256: str
    parameters: int


class PretrainingFacts(Table):
    """What its pretraining took and reached."""

    views_seen: int
    seconds: float
    images_per_second: float | None
    logged: dict[str, float]


class Record(Table):
    """One cell: method x task x seed of one suite."""

    schema_: Literal[1] = 1
    suite: str
    suite_sha256: str
    suite_settings: dict[str, Any]
    """The whole suite, overrides included: enough to run the cell again."""
    method: str
    method_code: str
    """Digest of the code that made the encoder."""
    task: str
    task_version: int
    task_code: str
    """Digest of the code that scored it."""
    seed: int
    status: Literal["ok", "failed"]
    error: str | None = None
    metric: str
    value: float | None = None
    """The headline, in points 0-100, higher is better."""
    scores: dict[str, Any] = {}
    selection: dict[str, Any] = {}
    flags: list[str] = []
    predictions: Predictions | None = None
    samples: str | None = None
    """The file of images of what was learned, beside the record of seed 0."""
    shown: str | None = None
    """The file of predictions beside the truth, beside the record of seed 0."""
    encoder: EncoderFacts | None = None
    pretraining: PretrainingFacts | None = None
    timings: dict[str, float] = {}
    peak_memory_mb: float = 0.0
    """The most held, MiB: on a GPU since this encoder's work began, else by the process so far."""
    data: dict[str, str] = {}
    """Fingerprint of each image set used."""
    images: dict[str, int] = {}
    """How many images each image set of `data` holds."""
    environment: dict[str, Any] = {}
    created: str
    seal: str = ""
    """Digest of all the rest, by which a changed record is known; `save` makes it."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key in ("value", "encoder", "pretraining"):
            if self.status == "ok" and getattr(self, key) is None:
                raise ValueError(f"status ok without {key}")
        if not {"pretraining", "recipes"} <= self.suite_settings.keys():
            raise ValueError("suite_settings without pretraining or recipes")
        return self

    @property
    def recipe(self) -> dict[str, Any]:
        """How the suite said that its encoder was to be trained."""
        settings = self.suite_settings
        recipe: dict[str, Any] = settings["recipes"].get(self.method, settings["pretraining"])
        return recipe

    @property
    def tuning(self) -> dict[str, Any] | None:
        """What the suite said of its task alone."""
        return self.suite_settings.get(self.task)

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.rstrip("_"),
        validate_by_name=True,
    )






















