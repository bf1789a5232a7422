"""Records on disk: written atomically, with a checksum, beside their predictions."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import math
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from bench.errors import UserError, each_text, from_validation, one_line
from bench.results.record import Predictions, Record
from bench.runtime import regular
from bench.runtime.files import atomic_write
from bench.runtime.fingerprint import file_digest

NAMES = "seed*.json"  # of records, at OUT/SUITE/TASK/METHOD
IN_SUITE, IN_OUT = 2, 3  # folders between a record's and OUT/SUITE, or OUT
LARGEST_RECORD = 2**24  # bytes
LARGEST_ARRAYS = 2**28  # bytes of the predictions of a record, unpacked
MOST_IMAGES = 200_000  # of a test split: the memory of 1,000 resamples grows with it


DELETE = "delete it and run again"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def now() -> str:
    """The time of day, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def path_of(out: Path, suite: str, task: str, method: str, seed: int) -> Path:
    """The file of a cell's record below `out`."""
    return out / suite / task / method / f"seed{seed}.json"


@dataclass(frozen=True)
class Problem:
    """A record that cannot be used, and why.

    Attributes:
        path: of the record.
        reason: one line that names files from the suite's folder on.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return one_line(f"{self.path}: left out: {self.reason}")


def save(record: Record, path: Path, predictions: dict[str, np.ndarray] | None = None) -> Record:
    """Write predictions, then the record that names their digest; each appears whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if predictions is not None:
            arrays = path.with_suffix(".npz")
            atomic_write(arrays, _packed(predictions))
            facts = Predictions(file=arrays.name, sha256=file_digest(arrays))
            record = record.model_copy(update={"predictions": facts})
        data = each_text(record.model_dump(mode="json", by_alias=True), _unicode)
        data["checksum"] = _checksum(data)
        atomic_write(path, (json.dumps(data, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); see --out") from None
    return record.model_copy(update={"checksum": data["checksum"]})


def _unicode(text: str) -> str:
    """Text with the bytes of a name that is not UTF-8 as escape sequences: no JSON has them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _checksum(data: dict[str, Any]) -> str:
    rest = {key: value for key, value in data.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


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
        content = regular.read(path, LARGEST_RECORD)
        record = Record.model_validate_json(content)
        checksum = _checksum(json.loads(content))
    except ValidationError as error:
        raise from_validation(f"{path}: not a record", error, DELETE) from None
    except (ValueError, RecursionError):  # a key twice, of which one has too many digits or levels
        raise UserError(f"{path}: not a record: has a key twice; {DELETE}") from None
    if record.checksum != checksum:
        problem = "has no checksum, or was changed since it was written"
        raise UserError(f"{path}: {problem}; restore it, or delete it and run again")
    return record


def find(path: Path) -> Record | None:
    """Read one record; None if there is none, or another worker has just removed an old one.

    Raises:
        UserError: it is not a record, or was changed since it was written.
    """
    try:
        return read(path)
    except UserError:
        if path.exists():
            raise
        return None


def read_predictions(path: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays beside the record at `path`, checked against its digest.

    Raises:
        UserError: they are missing, were changed, or cannot be read.
    """
    file = predictions_file(path, record)
    try:
        return load_arrays(file)
    except Exception as error:  # in whatever way zip and npy readers fail on a damaged file
        problem = f"cannot be read ({type(error).__name__}: {one_line(str(error))})"
        raise UserError(f"{file}: {problem}; {DELETE}") from error


def predictions_file(path: Path, record: Record) -> Path:
    """The file of the arrays beside the record at `path`, checked against its digest.

    Raises:
        UserError: it is missing or was changed.
    """
    if record.predictions is None:
        raise UserError(f"{path}: the record has no predictions")
    arrays = path.with_name(record.predictions.file)
    if not arrays.exists():
        raise UserError(f"{arrays}: missing; delete {path.name} and run again")
    try:
        regular.check(arrays, LARGEST_ARRAYS)
    except UserError as error:
        raise UserError(f"{error}; delete it and {path.name} and run again") from None
    if file_digest(arrays) != record.predictions.sha256:
        raise UserError(
            f"{arrays}: is not the file that {path.name} was written with; "
            "delete both and run again"
        )
    return arrays


def load_arrays(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file, or those of some names.

    Raises:
        ValueError: an array is not what its header says, is of Python objects, or is too large.
        OSError, zipfile.BadZipFile: the file cannot be read, or is no npz file.
    """
    arrays: dict[str, np.ndarray] = {}
    room = LARGEST_ARRAYS
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if names is not None and name not in names:
                continue
            if name in arrays:
                raise ValueError(f"has two arrays '{name}'")
            room -= member.file_size
            if room < 0:
                raise ValueError(f"has arrays of more than {LARGEST_ARRAYS:,} bytes")
            arrays[name] = _array(archive, member)
    if max(arrays["ids"].shape if "ids" in arrays else (), default=0) > MOST_IMAGES:
        raise ValueError(f"is of more than {MOST_IMAGES:,} images")
    return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, of which no more memory is taken than its member has bytes."""
    with archive.open(member) as stream:
        read_header = HEADERS.get(np.lib.format.read_magic(stream))
        if read_header is None:
            raise ValueError(f"'{member.filename}' is of an unknown version of npy")
        shape, _, kind = read_header(stream)
        count = math.prod(shape)
        if min(shape, default=0) < 0 or kind.hasobject or kind.itemsize == 0:
            raise ValueError(f"'{member.filename}' is no array of plain values")
        if count * kind.itemsize != member.file_size - stream.tell():
            raise ValueError(f"'{member.filename}' has another size than its header says")
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"'{member.filename}' has another size than its header says")
    return array


def check_name(path: Path) -> None:
    """Refuse a file that somebody gives for a record, such as the predictions beside one.

    Raises:
        UserError: its name is of no record.
    """
    if path.suffix != ".json":
        raise UserError(f"{path}: is no record; name one, TASK/METHOD/seedK.json")


def files(folder: Path, depth: int = IN_SUITE) -> list[Path]:
    """The files of records below a folder, in order; none where it is not there.

    Args:
        folder: OUT/SUITE.
        depth: IN_SUITE; or IN_OUT, where the folder is OUT.

    Raises:
        UserError: a folder must not be read: there may be records in it.
    """
    return sorted(_walk(folder, depth))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except PermissionError as error:
        problem = f"cannot be read ({error.strerror}); change its permissions, or move it away"
        raise UserError(f"{folder}: {problem}") from None
    except OSError:  # no folder
        return
    for name in names:
        if depth:
            yield from _walk(folder / name, depth - 1)
        elif fnmatch.fnmatchcase(name, NAMES):
            yield folder / name


def read_all(folder: Path) -> dict[Path, Record]:
    """Every record below OUT/SUITE, by path, in order.

    Raises:
        UserError: one of them is not a record, or was changed since it was written.
    """
    records = ((path, find(path)) for path in files(folder))
    return {path: record for path, record in records if record is not None}


def read_valid(folder: Path) -> tuple[dict[Path, Record], list[Problem]]:
    """Every record below OUT/SUITE that can be read and is where it belongs, and the others.

    A seed whose number of stages is not that of its row is one of the others.
    """
    records: dict[Path, Record] = {}
    problems = []
    for path in files(folder):
        try:
            record = read(path)
            check_location(path, record, folder)
        except UserError as error:
            problems.append(problem(path, folder, error))
        else:
            records[path] = record
    for path, odd in odd_stages(records).items():
        del records[path]
        problems.append(problem(path, folder, odd))
    return records, problems


def odd_stages(records: Mapping[Path, Record]) -> dict[Path, UserError]:
    """The seeds that have another number of stages than most of their row, and what is wrong."""
    rows: dict[Path, dict[Path, int]] = defaultdict(dict)
    for path, record in records.items():
        if record.per_stage:
            rows[path.parent][path] = len(record.per_stage)
    errors = {}
    for seeds in rows.values():
        ((usual, _),) = Counter(seeds.values()).most_common(1)  # of equally many the first
        for path, count in seeds.items():
            if count != usual:
                problem = f"has {count} stages, but other seeds of its row have {usual}"
                errors[path] = UserError(f"{path}: {problem}; {DELETE}")
    return errors


def problem(path: Path, folder: Path, error: UserError) -> Problem:
    """The problem of a record below OUT/SUITE: equal wherever the folder is."""
    reason = str(error).removeprefix(f"{path}: ")
    return Problem(path, reason.replace(f"{folder}/", ""))


def check_location(path: Path, record: Record, folder: Path) -> None:
    """Refuse a copy: a record below OUT/SUITE that names another task, method or seed.

    Raises:
        UserError: names the record and where it belongs.
    """
    location = path_of(folder.parent, folder.name, record.task, record.method, record.seed)
    if path != location:
        hint = "remove it" if location.exists() else "move it there"
        raise UserError(f"{path}: is a copy of the record that belongs at {location}; {hint}")
