"""The record: what one cell leaves behind, written atomically."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from bench.digest import file_digest
from bench.errors import UserError


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

    images_seen: int
    seconds: float
    images_per_second: float | None
    monitors: dict[str, float]


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
    """The file of pictures of what was learnt, beside the record of seed 0."""
    shown: str | None = None
    """The file of predictions beside the truth, beside the record of seed 0."""
    encoder: EncoderFacts | None = None
    pretraining: PretrainingFacts | None = None
    timings: dict[str, float] = {}
    peak_memory_mb: float = 0.0
    """The most held, MiB: on a GPU since this encoder's work began, else by the process so far."""
    data: dict[str, str] = {}
    """Fingerprint of each image set used."""
    pictures: dict[str, int] = {}
    """How many pictures each image set of `data` holds."""
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


def now() -> str:
    """The time of day, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def path_of(out: Path, suite: str, task: str, method: str, seed: int) -> Path:
    """Where a cell's record stands below `out`."""
    return out / suite / task / method / f"seed{seed}.json"


def save(record: Record, path: Path, predictions: dict[str, np.ndarray] | None = None) -> Record:
    """Write predictions, then the record that names their digest; each appears whole or not at all.

    Raises:
        UserError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if predictions is not None:
            arrays = path.with_suffix(".npz")
            write(arrays, _packed(predictions))
            facts = Predictions(file=arrays.name, sha256=file_digest(arrays))
            record = record.model_copy(update={"predictions": facts})
        data = record.model_dump(mode="json", by_alias=True)
        data["seal"] = _seal(data)
        write(path, (json.dumps(data, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); see --out") from None
    return record.model_copy(update={"seal": data["seal"]})


def _seal(data: dict[str, Any]) -> str:
    rest = {key: value for key, value in data.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one, never half.

    A temporary file beside it is flushed to the disk and then renamed.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _packed(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz file with fixed time stamps: equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.getvalue())
    return buffer.getvalue()


def read(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: it is not a record, of another schema, or was changed since it was written.
    """
    try:
        content = path.read_bytes()
        found = Record.model_validate_json(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"key '{key}': " if key else ""
        raise UserError(
            f"{path}: not a record ({where}{first['msg']}); delete it and run again"
        ) from None
    if found.seal != _seal(json.loads(content)):
        fault = "has no seal, or was changed since it was written"
        raise UserError(f"{path}: {fault}; restore it, or delete it and run again")
    return found


def read_predictions(path: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays beside the record at `path`, checked against its digest.

    Raises:
        UserError: they are missing or were changed.
    """
    return load_arrays(predictions_file(path, record))


def predictions_file(path: Path, record: Record) -> Path:
    """The file of the arrays beside the record at `path`, checked against its digest.

    Raises:
        UserError: it is missing or was changed.
    """
    if record.predictions is None:
        raise UserError(f"{path}: the record has no predictions")
    arrays = path.with_name(record.predictions.file)
    if not arrays.is_file():
        raise UserError(f"{arrays}: missing; delete {path.name} and run again")
    if file_digest(arrays) != record.predictions.sha256:
        raise UserError(
            f"{arrays}: is not the file that {path.name} was written with; "
            "delete both and run again"
        )
    return arrays


def load_arrays(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, or those of some names."""
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if names is None or name in names}


def read_all(folder: Path) -> dict[Path, Record]:
    """Every record below OUT/SUITE, by path, in order."""
    return {path: read(path) for path in sorted(folder.glob("*/*/seed*.json"))}
