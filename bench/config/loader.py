"""Suites by name or from a file: inheritance, overrides, error messages."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import plugins
from bench.config.schema import DATASET_KINDS, Section, Suite, check_plain, tuples
from bench.errors import SHOWN, UserError, from_validation, unknown
from bench.runtime import regular

UNCERTAINTY = "uncertainty"  # how much runs vary: a table that is outside of the suite
DEEPEST = 8  # suites that extend one another
LARGEST = 2**20  # bytes of a TOML file
MOST_PARTS = 32  # of a dotted key; reading one takes time that grows with their square
LONG_KEY = re.compile(rf"""(?:(?:"[^"\n]*+"|'[^'\n]*+'|[\w-]++)[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")
NEAR = 0.8  # similarity of names from which on one is taken for a misspelled other


def names() -> list[str]:
    """The suites that ship."""
    folder = resources.files("bench.config") / "suites"
    files = (Path(entry.name) for entry in folder.iterdir())
    return sorted(file.stem for file in files if file.suffix == ".toml")


def load(request: str, overrides: list[str] | None = None) -> Suite:
    """Read a suite by name or from a file, with `key=value` overrides (TOML values).

    A suite that says `extends = "tiny"` takes over every key that it does not set itself. So does
    an override that is a table.

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
        if not path.exists():
            raise UserError(f"{request}: no such suite file")
        content = regular.read(path, LARGEST)
    else:
        if request not in names():
            raise unknown("suite", request, names())
        content = (resources.files("bench.config") / "suites" / f"{request}.toml").read_bytes()
    return parse_toml(content, request)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UserError: it cannot be read, is too large, or is not TOML of plain values.
    """
    return parse_toml(regular.read(path, LARGEST), str(path))


def parse_toml(content: bytes, where: str) -> dict[str, Any]:
    """The tables of a TOML file's content.

    Args:
        content: UTF-8.
        where: names the file in messages.

    Raises:
        UserError: it is not TOML of plain values, or is nested too deep.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UserError(f"{where}: is not UTF-8 text") from None
    if LONG_KEY.search(text):
        raise UserError(f"{where}: not TOML: a key has more than {MOST_PARTS} parts")
    try:
        tables = _loads(text)
        check_plain(tables)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: not TOML: is nested too deep") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return tables


def _loads(text: str) -> dict[str, Any]:
    """TOML; Python converts no number of more than some thousand digits."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        if "digits" in str(error):
            raise ValueError("has a number of too many digits") from None
        raise


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UserError(f"--set {override}: write key=value, for example pretraining.crop=48")
    if len(tables) >= MOST_PARTS or len(override) > LARGEST:
        raise UserError(f"--set {override[:SHOWN]}...: no key of a suite is so long")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {override}: '{table}' is not a table of the suite")
    data.update(_merged(data, {last: _override_value(text, override)}))


def overridden_keys(override: str) -> list[tuple[str, ...]]:
    """The keys that a `key=value` override sets, each by its parts; several for a table.

    Args:
        override: one that `load` took.
    """
    key, _, text = override.partition("=")
    parts = tuple(key.strip().split("."))
    return [(*parts, *below) for below in _leaves(_override_value(text, override))]


def _leaves(value: Any) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        yield ()
        return
    for key, item in value.items():
        for below in _leaves(item):
            yield (key, *below)


def _override_value(text: str, override: str) -> Any:
    """A TOML value; what is none is a bare word, which is a string."""
    try:
        parsed = _loads(f"value = {text}")
        check_plain(parsed)
    except tomllib.TOMLDecodeError:
        return text.strip()
    except RecursionError:
        raise UserError(f"--set {override[:SHOWN]}...: is nested too deep") from None
    except ValueError as error:
        raise UserError(f"--set {override[:SHOWN]}: {error}") from None
    if len(parsed) > 1:
        raise UserError(f"--set {override[:SHOWN]}: has several lines; give each its own --set")
    return parsed["value"]


def _validate(data: dict[str, Any], where: str) -> Suite:
    try:
        # Strict types as JSON has them: a TOML array may stand for a tuple, "1" not for 1.
        suite = Suite.model_validate(tuples(data))
    except ValidationError as error:
        first = _first(error)
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


def _first(error: ValidationError) -> Any:
    """The first problem; an unknown key before a missing one of its table: it is misspelled."""
    first, *others = error.errors()
    if first["type"] == "missing":
        for other in others:
            same_table = other["loc"][:-1] == first["loc"][:-1]
            if other["type"] == "extra_forbidden" and same_table:
                return other
    return first


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
