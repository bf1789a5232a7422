"""Settings behind a number, key by key, and differences of two. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results.record import Record

DIGITS = 12  # of a digest that are shown
ABSENT = "-"
APART = {"summary", "seeds", "pretraining", "recipes", "tasks"}  # of a suite: shown per record


@dataclass(frozen=True)
class Difference:
    """A setting with two values, as text; `-` where one side has none."""

    setting: str
    left: str
    right: str


def flatten(record: Record) -> dict[str, str]:
    """Everything that decided a record's number, or may have: dotted key -> value as text."""
    encoder = record.encoder
    parts: dict[str, Any] = {
        "method": record.method,
        "method_version": record.method_version,
        "method_digest": record.method_digest,
        "seed": record.seed,
        "suite": record.suite_settings.model_dump(mode="json", exclude=APART),
        "recipe": record.recipe,
        record.task: record.task_settings,
        "task_version": record.task_version,
        "task_digest": record.task_digest,
        "metric": record.metric,
        "code": record.provenance.model_dump(include={"method_code", "task_code"}),
        "encoder": encoder.model_dump(exclude={"weights_sha256"}) if encoder else {},
        "data": record.data,
        "files": record.files,
        "environment": record.environment,
    }
    return {key: value for key, value in leaves(parts) if value}


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


def differences(left: Sequence[Record], right: Sequence[Record]) -> list[Difference]:
    """The settings in which two rows differ; the values of several seeds are listed."""
    sides = [[flatten(record) for record in side] for side in (left, right)]

    def values(side: list[dict[str, str]], key: str) -> str:
        return ", ".join(dict.fromkeys(record.get(key, ABSENT) for record in side))

    keys = dict.fromkeys(key for side in sides for record in side for key in record)
    pairs = (Difference(key, values(sides[0], key), values(sides[1], key)) for key in keys)
    return [pair for pair in pairs if pair.left != pair.right]


def between(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Difference]:
    """The dotted keys at which two nested mappings differ."""
    before = dict(leaves(left))
    after = dict(leaves(right))
    pairs = (Difference(k, before.get(k, ABSENT), after.get(k, ABSENT)) for k in before | after)
    return [pair for pair in pairs if pair.left != pair.right]
