"""What a number was made with, key by key, and where two numbers differ. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table as Grid

from bench.config.schema import TUNED
from bench.results.record import Record

DIGITS = 12  # of a digest that are shown
ABSENT = "-"
# Said of the suite as a whole; what concerns one method or task is read from its record.
APART = {"summary", "seeds", "pretraining", "recipes", *TUNED}


@dataclass(frozen=True)
class Difference:
    """A setting with two values, as text; `-` where one side has none."""

    setting: str
    one: str
    other: str


def flat(found: Record) -> dict[str, str]:
    """Everything that decided a record's number, or may have: dotted key -> value as text.

    The recipe counts where the method saw the corpus; other methods' recipes and other tasks'
    sections do not.
    """
    suite = {key: value for key, value in found.suite_settings.items() if key not in APART}
    parts: dict[str, Any] = {
        "method": found.method,
        "seed": found.seed,
        "suite": suite,
        "recipe": found.recipe if "corpus" in found.data else {},
        found.task: found.tuning or {},
        "code": {"method": found.method_code, "task": found.task_code},
        "task_version": found.task_version,
        "encoder": found.encoder.model_dump(exclude={"weights_sha256"}) if found.encoder else {},
        "data": found.data,
        "environment": found.environment,
    }
    return dict(leaves(parts))


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dotted keys of nested mappings with their values as text; a digest is shortened."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, str):
        hexadecimal = len(value) >= 40 and {*value} <= {*"0123456789abcdef"}
        yield key, value[:DIGITS] if hexadecimal else value
    else:
        yield key, json.dumps(value)


def differences(one: Sequence[Record], other: Sequence[Record]) -> list[Difference]:
    """The settings in which two rows differ; the values of several seeds stand side by side."""
    left, right = ([flat(found) for found in side] for side in (one, other))

    def said(side: list[dict[str, str]], key: str) -> str:
        return ", ".join(dict.fromkeys(found.get(key, ABSENT) for found in side))

    keys = dict.fromkeys(key for found in (*left, *right) for key in found)
    pairs = (Difference(key, said(left, key), said(right, key)) for key in keys)
    return [pair for pair in pairs if pair.one != pair.other]


def table(title: str, headers: Sequence[str], rows: Sequence[Difference]) -> Grid:
    """Differences as a table for the terminal."""
    grid = Grid(title=title, box=box.SIMPLE, title_justify="left")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(row.setting, row.one, row.other)
    return grid
