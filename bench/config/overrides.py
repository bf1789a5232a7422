"""Overrides of the suite that have no effect on a request, each in one line. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from bench import plugins
from bench.config import loader, settings
from bench.config.schema import PRETRAINING, Suite

Key = tuple[str, ...]  # the parts of a dotted key


class Request(Protocol):
    """The attributes of a request that decide whether an override has an effect."""

    @property
    def suite(self) -> Suite:
        """With the overrides applied."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the cells."""

    @property
    def cache(self) -> Path:
        """The folder for resolved settings."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Each as key=value."""


def without_effect(request: Request) -> Iterator[str]:
    """The overrides that change no number of a request, and why.

    Raises:
        UserError: the settings of a method or task are incomplete or wrong.
    """
    given = [key for override in request.overrides for key in loader.overridden_keys(override)]
    yield from _repeated(given)
    keys = list(dict.fromkeys(given))
    yield from _shadowed(keys, request)
    yield from _of_another_schedule(keys, request)
    unused = [".".join(key) for key in keys if not _is_used(key, request)]
    if unused:
        uses = "has no effect: nothing of this request uses it"
        if len(unused) > 1:
            uses = "have no effect: nothing of this request uses them"
        yield f"--set {', '.join(unused)} {uses}"
    if ("seeds",) in keys and request.seeds != tuple(range(request.suite.seeds)):
        yield "--set seeds has no effect: the seeds of the request are given"


def _repeated(given: list[Key]) -> Iterator[str]:
    for key in dict.fromkeys(given):
        if given.count(key) > 1:
            yield f"--set {'.'.join(key)} is given {given.count(key)} times: the last one counts"


def _shadowed(keys: list[Key], request: Request) -> Iterator[str]:
    """The keys of every method's recipe that methods of the request set themselves."""
    trained = _trained(request)
    for section, *rest in keys:
        if section != PRETRAINING or not rest:
            continue
        names = [
            name
            for name in trained
            if rest[0] in request.suite.recipes.get(name, {})
            and ("recipes", name, *rest) not in keys
        ]
        if names:
            key = ".".join(rest)
            yield (
                f"--set {PRETRAINING}.{key} has no effect on {', '.join(names)}: [recipes.NAME] "
                f"sets it; use --set recipes.{names[0]}.{key}=..."
            )


def _of_another_schedule(keys: list[Key], request: Request) -> Iterator[str]:
    """The milestones of what is trained on a cosine schedule."""
    resolved = _resolved(request)
    for *section, last in keys:
        if last != "milestones":
            continue
        prefix = ("recipes",) if section == [PRETRAINING] else tuple(section)
        concerned = [v for key, v in resolved.items() if key[: len(prefix)] == prefix]
        if concerned and all(each.get("schedule") == "cosine" for each in concerned):
            name = ".".join(section)
            yield f"--set {name}.milestones has no effect: use --set {name}.schedule=step as well"


def _resolved(request: Request) -> Mapping[Key, dict[str, Any]]:
    """The sections that a request uses, as its methods and tasks resolve them."""
    suite, cache = request.suite, request.cache
    recipes: dict[Key, dict[str, Any]] = {
        ("recipes", name): settings.resolved_recipe(suite, name, cache)
        for name in _trained(request)
    }
    tasks: dict[Key, dict[str, Any]] = {
        ("tasks", name): settings.resolved_task_settings(suite, name, cache)
        for name in request.tasks
    }
    return recipes | tasks


def _trained(request: Request) -> list[str]:
    """The methods of a request that are trained on the suite's images."""
    described = {name: plugins.describe("methods", name) for name in request.methods}
    return [name for name, each in described.items() if each.trains_on_suite]


def _is_used(key: Key, request: Request) -> bool:
    """Whether a method, a task or a data set of a request reads a key."""
    section, *rest = key
    trained = _trained(request)
    if section == PRETRAINING:
        return bool(trained)
    if section == "recipes":
        return rest[:1] == [] or rest[0] in trained
    if section == "tasks":
        return rest[:1] == [] or rest[0] in request.tasks
    if section == "datasets":
        return rest[:1] == [] or rest[0] in _datasets(request)
    if key == ("backbone", "imagenet"):
        return any(_reads_imagenet(name) for name in request.methods)
    return True


def _reads_imagenet(method: str) -> bool:
    """Whether a method is the ImageNet weights of the suite's backbone."""
    described = plugins.describe("methods", method)
    return bool(described.constants.get("reference_row")) and not described.backbone


def _datasets(request: Request) -> set[str]:
    """The data sets that the cells of a request use."""
    resolved = _resolved(request)
    names = {str(v.get("dataset", "")) for k, v in resolved.items() if k[0] == "tasks"}
    return names | ({PRETRAINING} if _trained(request) else set())
