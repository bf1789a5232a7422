"""How much the runs of a suite vary: `[uncertainty]`, by which one seed has an interval.

`bench calibrate` makes it from records of several seeds. It is the last table of a suite's file, or
a file of its own beside the records, OUT/SUITE/uncertainty.toml, which comes first. `bench run`
copies the table of a suite that does not ship to there. It holds for one suite hash, and each part
for one version and one set of settings; else it is not used.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from bench.config import loader
from bench.config.schema import SEEDS, FineTuning, Section, tuples
from bench.errors import UserError, from_validation
from bench.results.record import Record, Role
from bench.runtime.files import atomic_write
from bench.runtime.fingerprint import digest

FILE = "uncertainty.toml"  # beside the records of a suite
KEY = loader.UNCERTAINTY  # in a suite's file
HEADER = f"[{KEY}]"
DIGITS = 12  # of a digest of settings


Points = Annotated[float, Field(ge=0, le=100)]
Version = Annotated[int, Field(ge=0)]


class RowUncertainty(Section):
    """The seeds of one method in one task."""

    kind: Literal["fine-tuned", "pretrained", "untrained", "reference"]
    """See `kind_of`."""
    version: Version
    """Of the method."""
    recipe: str
    """Digest of its recipe."""
    interaction: Annotated[float, Field(ge=0, le=1)] | None = None
    """`model.interaction` of its seeds."""
    values: Annotated[tuple[Points, ...], Field(max_length=SEEDS)]
    """The score of each seed, from 0 on, in points."""


class TaskUncertainty(Section):
    """One task."""

    version: Version
    settings: str
    """Digest of its settings."""
    rows: dict[str, RowUncertainty]


class Uncertainty(Section):
    """One suite."""

    suite_sha256: str
    tasks: dict[str, TaskUncertainty] = Field(default_factory=dict)


def kind_of(record: Record) -> Literal["fine-tuned"] | Role:
    """The kind of rows whose training varies alike.

    `fine-tuned` where the task trains the encoder or a head by itself; else `untrained`,
    `pretrained` on images of the suite, or `reference`, as ImageNet weights and other checkpoints
    from elsewhere, whose weights are fixed.
    """
    if record.training or FineTuning.model_fields.keys() <= record.task_settings.keys():
        return "fine-tuned"
    return "reference" if record.has_given_weights else record.role


def read(folder: Path, suite: str, sha256: str) -> Uncertainty | None:
    """The calibration of a suite: that beside its records, or that which ships; None without one.

    Args:
        folder: OUT/SUITE.
        suite: its name.
        sha256: of the suite's records; a calibration of another one is not used.

    Raises:
        UserError: the file beside the records is not one.
    """
    own = folder / FILE
    if own.exists() and not own.is_dir():
        try:
            tables = loader.read_toml(own)
        except UserError as error:
            problem = str(error).removeprefix(f"{own}: ").removeprefix("not TOML: ")
            raise UserError(f"{own}: not TOML: {problem}; make it with bench calibrate") from None
        found = parse(tables, str(own))
    else:
        found = (
            parse(loader.read_tables(suite), f"suite {suite}") if suite in loader.names() else None
        )
    return found if found and found.suite_sha256 == sha256 else None


def provide(request: str, sha256: str, folder: Path) -> None:
    """Copy the calibration of a suite that is a file to where its records are.

    Args:
        request: NAME or FILE of the suite.
        sha256: of the suite as it is run; the calibration of another one is left where it is.
        folder: OUT/SUITE.

    Raises:
        UserError: the calibration breaks the schema, or the folder cannot be written.
    """
    if request in loader.names():
        return
    found = parse(loader.read_tables(request), request)
    if found is None or found.suite_sha256 != sha256:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / FILE, to_toml(found).encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); see --out") from None


def parse(tables: Mapping[str, Any], where: str) -> Uncertainty | None:
    """The calibration among the tables of a TOML file; None if it has none.

    Raises:
        UserError: it breaks the schema.
    """
    if KEY not in tables:
        return None
    try:
        return Uncertainty.model_validate(tuples(tables[KEY]))
    except ValidationError as error:
        raise from_validation(f"{where}: {HEADER}", error, "make it with bench calibrate") from None


def task(uncertainty: Uncertainty | None, record: Record) -> TaskUncertainty | None:
    """The part for the task of a record, if it holds for its backbone, version and settings."""
    if record.other_backbone:
        return None
    found = uncertainty.tasks.get(record.task) if uncertainty else None
    if found is None or (found.version, found.settings) != (
        record.task_version,
        settings_digest(record.task_settings),
    ):
        return None
    return found


def holds(row: RowUncertainty, record: Record) -> bool:
    """Whether a part is of the version and the recipe of a record."""
    return (row.version, row.recipe) == (record.method_version, settings_digest(record.recipe))


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Digest of resolved settings."""
    return digest(settings)[:DIGITS]


def calibrate(
    records: Sequence[Record], interactions: Mapping[tuple[str, str], float | None]
) -> Uncertainty:
    """The calibration of a suite from its scored records.

    Args:
        records: of one suite, at least one, of the suite's backbone; of each row the seeds from 0
            on without a gap. Rows of one seed tell nothing and are left out.
        interactions: (task, method) -> `model.interaction` of its seeds.
    """
    rows: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.seed):
        rows[record.task, record.method].append(record)
    tasks: dict[str, dict[str, Any]] = {}
    for (name, method), every in sorted(rows.items()):
        seeds = [record for place, record in enumerate(every) if record.seed == place]
        if len(seeds) < 2:
            continue
        first = seeds[0]
        about = {"version": first.task_version, "settings": settings_digest(first.task_settings)}
        part = tasks.setdefault(name, {**about, "rows": {}})
        share = interactions.get((name, method))
        part["rows"][method] = RowUncertainty(
            kind=kind_of(first),
            version=first.method_version,
            recipe=settings_digest(first.recipe),
            interaction=None if share is None else round(share, 3),
            values=tuple(round(record.value or 0.0, 3) for record in seeds),
        )
    return Uncertainty.model_validate({"suite_sha256": records[0].suite_sha256, "tasks": tasks})


def to_toml(uncertainty: Uncertainty) -> str:
    """The section as text, one line for each row."""
    lines = [
        "# How much the runs of this suite vary, by bench calibrate; no part of the suite's hash.",
        HEADER,
        f'suite_sha256 = "{uncertainty.suite_sha256}"',
    ]
    for name, part in uncertainty.tasks.items():
        head = [f"[{KEY}.tasks.{name}]", f"version = {part.version}"]
        lines += ["", *head, f'settings = "{part.settings}"']
        lines += ["", f"[{KEY}.tasks.{name}.rows]"]
        for method, row in part.rows.items():
            share = "" if row.interaction is None else f"interaction = {row.interaction:g}, "
            lines.append(
                f'{json.dumps(method)} = {{ kind = "{row.kind}", version = {row.version}, '
                f'recipe = "{row.recipe}", {share}values = {list(row.values)} }}'
            )
    return "\n".join(lines) + "\n"


def put(text: str, section: str) -> str:
    """A TOML file's text with the section at its end, in place of an older one.

    Whatever else the file has stays; its lines are not parsed, so the caller must compare.
    """
    comment = section.partition("\n")[0]
    others: list[str] = []
    is_older = False
    for line in text.splitlines():
        if line == comment or line.startswith((HEADER, f"[{KEY}.")):
            is_older = True
        elif line.startswith(("[", "#")):
            is_older = False
        if not is_older:
            others.append(line)
    before = "\n".join(others).strip("\n")
    return f"{before}\n\n{section}" if before else section
