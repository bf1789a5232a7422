"""Suites by name or from a file: inheritance, overrides, error messages."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import plugins
from bench.config.schema import DATASET_KINDS, Section, Suite, tuples
from bench.errors import UserError, from_validation, unknown

UNCERTAINTY = "uncertainty"  # how much runs vary: a table that is outside of the suite
DEEPEST = 8  # suites that extend one another
NEAR = 0.8  # similarity of names from which on one is taken for a misspelled other


def names() -> list[str]:
    """The suites that ship."""
    folder = resources.files("bench.config") / "suites"
    files = (Path(entry.name) for entry in folder.iterdir())
    return sorted(file.stem for file in files if file.suffix == ".toml")


def load(request: str, overrides: list[str] | None = None) -> Suite:
    """Read a suite by name or from a file, with `key=value` overrides (TOML values).

    A suite that says `extends = "tiny"` takes over every key that it does not set itself.

    Raises:
        UserError: no such suite, or the file breaks the schema; names the file and the key.
    """
    where = request if request.endswith(".toml") else f"suite {request}"
    data = _inherited(request, DEEPEST)
    for override in overrides or []:
        _override(data, override)
    return _validate(data, where + (" with --set" if overrides else ""))


def _inherited(request: str, depth: int) -> dict[str, Any]:
    """The tables of a suite file over those of the suite that it extends."""
    data = read_tables(request)
    data.pop(UNCERTAINTY, None)  # no setting: see bench.statistics.calibration
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UserError(f"{request}: key 'extends' must name a suite or a TOML file")
    if depth == 0:
        raise UserError(f"{request}: more than {DEEPEST} suites extend one another")
    if base.endswith(".toml"):
        base = str(Path(request).parent / base)
    return _merged(_inherited(base, depth - 1), data)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def read_tables(request: str) -> dict[str, Any]:
    """The tables of a suite's own file, without those of the suite that it extends.

    Raises:
        UserError: no such suite, or its file is not TOML.
    """
    if request.endswith(".toml"):
        path = Path(request)
        if not path.is_file():
            raise UserError(f"{request}: no such suite file")
        content = path.read_bytes()
    else:
        if request not in names():
            raise unknown("suite", request, names())
        content = (resources.files("bench.config") / "suites" / f"{request}.toml").read_bytes()
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise UserError(f"{request}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{request}: not TOML: {error}") from None


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UserError(f"--set {override}: write key=value, for example pretraining.crop=48")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {override}: '{table}' is not a table of the suite")
    data[last] = value


def _validate(data: dict[str, Any], where: str) -> Suite:
    try:
        # Strict types as JSON has them: a TOML array may stand for a tuple, "1" not for 1.
        suite = Suite.model_validate(tuples(data))
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        key = _key(location)
        if first["type"] == "missing":
            raise UserError(f"{where}: key '{key}' is missing") from None
        if first["type"] == "extra_forbidden":
            problem = str(unknown("key", location[-1], _keys(location[:-1])))
            problem = problem.replace(f"'{location[-1]}'", f"'{key}'", 1)
            raise UserError(f"{where}: {problem}") from None
        raise from_validation(where, error, key=key) from None
    _check_names(suite.recipes, "recipes", plugins.names("methods"), where)
    _check_names(suite.tasks, "tasks", plugins.names("tasks"), where)
    return suite


def _check_names(tables: Collection[str], section: str, known: list[str], where: str) -> None:
    """Refuse a section whose name is nearly that of a plug-in: it would be ignored.

    Any other name may be of a plug-in that is not loaded in this run.
    """
    for name in tables:
        near = difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
        if name not in known and near:
            raise UserError(f"{where}: [{section}.{name}]: did you mean [{section}.{near[0]}]?")


def _key(location: Sequence[str]) -> str:
    """The dotted key of an error's location, without the kind that pydantic adds to a data set."""
    parts = [*location[:2], *location[3:]] if location[:1] == ["datasets"] else location
    return ".".join(parts)


def _keys(location: Sequence[str]) -> list[str]:
    """The keys that the table at an error's location may have."""
    if location[:1] == ["datasets"]:
        return sorted(DATASET_KINDS[location[2]].model_fields)
    model: Any = Suite
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        sections = [o for o in options if isinstance(o, type) and issubclass(o, Section)]
        model = sections[0] if sections else Section
    return sorted(model.model_fields)


def to_toml(data: dict[str, Any], table: str = "") -> str:
    """A suite's settings as TOML: values first, then tables.

    Args:
        data: strings, numbers, booleans, lists of these, and tables of these.
        table: dotted name of the table that they are in.
    """
    values = {key: value for key, value in data.items() if not isinstance(value, dict)}
    lines = [f"{_toml(key)} = {_toml(value)}" for key, value in values.items()]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in data.items():
        if isinstance(value, dict):
            name = f"{table}.{_toml(key)}" if table else _toml(key)
            text += f"\n[{name}]\n{to_toml(value, name)}"
    return text


def _toml(value: Any) -> str:
    """A key, or a value that is no table, in JSON, which TOML reads alike."""
    return json.dumps(value, ensure_ascii=False)
