"""`bench plan`: the cells of a request, for people and for what hands them out. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.commands import estimate, plan
from bench.commands.request import Cell, Request
from bench.runtime.progress import about

HOUR = 3600  # seconds


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan.

    Attributes:
        cell: which.
        up_to_date: whether there is nothing to compute.
        seconds: an estimate of what is to compute; None where nothing was measured. The first
            cell of an encoder includes its pretraining.
    """

    cell: Cell
    up_to_date: bool
    seconds: float | None


def planned(request: Request) -> list[PlannedCell]:
    """Every cell of a request; nothing is computed.

    Raises:
        UserError: the request or the records in its folder cannot be used.
    """
    cells = plan.cells(request)
    todo = [cell for cell in cells if not plan.is_up_to_date(cell, request)]
    plan.check_tables(todo, request)
    seconds = dict(zip(todo, estimate.seconds(todo, request), strict=True))
    return [PlannedCell(cell, cell not in seconds, seconds.get(cell, 0.0)) for cell in cells]


def lines(request: Request) -> Iterator[str]:
    """The plan as text."""
    cells = planned(request)
    yield plan.title(request.suite)
    yield from plan.notices(request)
    yield plan.counts([p.cell for p in cells], [p.cell for p in cells if not p.up_to_date])
    width = max(len(each.cell.id) for each in cells)
    for each in cells:
        yield f"  {each.cell.id:{width}}  {_outlook(each)}"
    yield f"device: {device_kind(request)}"


def _outlook(each: PlannedCell) -> str:
    if each.up_to_date:
        return "up to date"
    return "to run" if each.seconds is None else f"to run, about {about(each.seconds)}"


def as_json(request: Request, arguments: Sequence[str]) -> dict[str, Any]:
    """The plan as values of JSON.

    Args:
        request: what was asked for.
        arguments: the options that repeat it, from the current folder.
    """
    return {
        "suite": request.suite.name,
        "suite_sha256": request.suite.sha256,
        "suite_settings": settings(request),
        "records": str(request.folder.absolute()),
        "directory": str(Path.cwd()),
        "arguments": list(arguments),
        "cells": [_cell(each, request) for each in planned(request)],
    }


def settings(request: Request) -> dict[str, Any]:
    """All settings of the suite, overrides applied."""
    return request.suite.model_dump(mode="json", exclude_none=True)


def _cell(each: PlannedCell, request: Request) -> dict[str, Any]:
    return {
        **each.cell.as_json(),
        "up_to_date": each.up_to_date,
        "needs": {"device": device_kind(request)},
        "hours": None if each.seconds is None else round(each.seconds / HOUR, 5),
    }


def device_kind(request: Request) -> str:
    """The kind of device that a request names: cpu, cuda, ...; auto takes a GPU if there is any."""
    return request.device.partition(":")[0]
