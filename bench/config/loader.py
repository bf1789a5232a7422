"""TODO."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import plugins
from bench.config.schema import Recipe, Section, Suite, tuples
from bench.errors import UserError, unknown


def names() -> list[str]:
    """The suites that ship."""
    folder = resources.files("bench.config") / "suites"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name[-5:] == ".toml")


def load(request: str, overrides: list[str] | None = None) -> Suite:
    """Read a suite by name or from a file, with `key=value` overrides (TOML values).

    Raises:
        UserError: no such suite, or the file breaks the schema; names the file and the key.
    """
    if request.endswith(".toml"):
        where, path = request, Path(request)
        if not path.is_file():
            raise UserError(f"{request}: no such suite file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{request}: is not UTF-8 text") from None
    else:
        if request not in names():
            raise unknown("suite", request, names())
        where = f"suite {request}"
        file = resources.files("bench.config") / "suites" / f"{request}.toml"
        text = file.read_text(encoding="utf-8")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not TOML: {error}") from None
    for override in overrides or []:
        _override(data, override)
    return _validate(data, where + (" with --set" if overrides else ""))


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
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {_explain(first['type'], key, first['msg'])}") from None
    methods = plugins.names("methods")
    for method in suite.recipes:
        if method not in methods:
            raise UserError(f"{where}: [recipes.{method}]: {unknown('method', method, methods)}")
    return suite


def _explain(kind: str, key: str, message: str) -> str:
    if kind == "extra_forbidden":
        table, _, leaf = key.rpartition(".")
        return str(unknown("key", leaf, _fields(table))).replace(f"'{leaf}'", f"'{key}'", 1)
    if kind == "missing":
        return f"key '{key}' is missing"
    if not key:
        return message.removeprefix("Value error, ")
    return f"key '{key}': {message[0].lower()}{message[1:]}"


def _fields(table: str) -> list[str]:
    """The keys a table may hold."""
    model: Any = Suite
    for part in table.split(".") if table else []:
        if part not in model.model_fields:  # the name of a method below `recipes`
            model = Recipe
            continue
        options = [model.model_fields[part].annotation]
        options += list(getattr(options[0], "__args__", ()))
        sections = [o for o in options if isinstance(o, type) and issubclass(o, Section)]
        model = sections[0] if sections else Recipe
    return sorted(model.model_fields)
