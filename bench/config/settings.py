"""The settings of one method or task, as its own model resolves them.

Resolving imports the plug-in, and torch with it. So that a plan needs neither, what an unchanged
file made of an unchanged section is cached.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bench import plugins
from bench.config.schema import Recipe, Suite, TaskSettings, tuples
from bench.errors import UserError, from_validation, unknown
from bench.runtime.files import read_cached, write_cached
from bench.runtime.fingerprint import digest


def recipe(suite: Suite, method: str) -> Recipe:
    """The recipe of one method: `[pretraining]`, and the keys that `[recipes.METHOD]` changes.

    Raises:
        UserError: a key is unknown, missing or out of range.
    """
    model = _recipe_model(method)
    parsed: Recipe = _parse(model, _recipe_section(suite, method), suite, f"recipes.{method}")
    return parsed


def task_settings(suite: Suite, task: str) -> TaskSettings:
    """The settings of one task.

    Raises:
        UserError: a key is unknown, missing or out of range.
    """
    model = plugins.load("tasks", task).Settings
    parsed: TaskSettings = _parse(model, suite.tasks.get(task, {}), suite, f"tasks.{task}")
    return parsed


def resolved_recipe(suite: Suite, method: str, cache: Path) -> dict[str, Any]:
    """Recipe as records contain it; empty for a method that trains on no images of the suite."""
    described = plugins.describe("methods", method)
    if not described.trains_on_suite:
        return {}
    if not described.has_settings:
        return recipe(suite, method).model_dump(mode="json")
    kept = _kept("methods", method, _recipe_section(suite, method), cache)
    return _resolve(kept, lambda: recipe(suite, method))


def resolved_task_settings(suite: Suite, task: str, cache: Path) -> dict[str, Any]:
    """Task settings as records contain them."""
    kept = _kept("tasks", task, suite.tasks.get(task, {}), cache)
    return _resolve(kept, lambda: task_settings(suite, task))


def _recipe_section(suite: Suite, method: str) -> dict[str, Any]:
    return suite.pretraining.model_dump() | suite.recipes.get(method, {})


def _recipe_model(method: str) -> type[BaseModel]:
    if not plugins.describe("methods", method).has_settings:
        return Recipe
    model: type[BaseModel] = getattr(plugins.load("methods", method), "Settings", Recipe)
    return model


def _kept(kind: plugins.Kind, name: str, section: dict[str, Any], cache: Path) -> Path:
    """Cache path of the resolved settings of a plug-in's file."""
    # The model may be of the harness, as those of fine-tuned tasks are.
    key = digest([kind, name, plugins.code(kind, name), json.loads(json.dumps(section))])
    return cache / "settings" / f"{key[:32]}.json"


def _resolve(kept: Path, parse: Any) -> dict[str, Any]:
    content = read_cached(kept)
    if content is not None:
        known: dict[str, Any] = json.loads(content)
        return known
    resolved: dict[str, Any] = parse().model_dump(mode="json")
    if kept.parents[1].is_dir():  # reading commands and refused requests make no cache
        with suppress(OSError):  # a full or read-only one only costs time
            write_cached(kept, json.dumps(resolved).encode())
    return resolved


def _parse(model: type[BaseModel], section: dict[str, Any], suite: Suite, table: str) -> Any:
    where = f"suite {suite.name}, [{table}]"
    try:
        return model.model_validate(tuples(section))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UserError(f"{where}: {unknown('key', key, model.model_fields)}") from None
        if first["type"] == "missing":
            raise UserError(
                f"{where}: key '{key}' is missing; set it in a suite file, for --suite"
            ) from None
        raise from_validation(where, error) from None
