"""`bench list`: methods, tasks and suites by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from bench import plugins
from bench.config import loader
from bench.encoders.kinds import KINDS

Kind = Literal["methods", "tasks", "suites"]


def lines(kind: Kind | None) -> Iterator[str]:
    """One line for each name of a kind, or of all kinds under headings."""
    kinds: tuple[Kind, ...] = (kind,) if kind else ("methods", "tasks", "suites")
    for name in kinds:
        described = _described(name)
        width = max(len(key) for key, _ in described)
        if kind is None:
            yield f"{name}:"
        for key, text in described:
            yield f"  {key:{width}}  {text}"


def _described(kind: Kind) -> list[tuple[str, str]]:
    if kind == "suites":
        return [(name, loader.load(name).summary) for name in loader.names()]
    described = [plugins.describe(kind, name) for name in plugins.names(kind)]
    return [(d.name, f"{d.summary} [{d.constants['reference']}]{_only(d)}") for d in described]


def _only(described: plugins.Description) -> str:
    """The kind of backbone to which a method is limited, in words."""
    return f" ({KINDS[described.backbones].words} only)" if described.backbones else ""
