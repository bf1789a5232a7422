"""`bench status`: what is done, running, failed or to do, from records and claims alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.errors import UserError, one_line
from bench.results import storage
from bench.results.record import Record
from bench.runtime import claims
from bench.runtime.claims import Claim
from bench.runtime.progress import about

State = Literal["done", "running", "failed", "stale", "to do"]
STATES: tuple[State, ...] = ("done", "running", "failed", "stale", "to do")


@dataclass(frozen=True)
class CellStatus:
    """The state of a cell.

    Attributes:
        cell: which.
        state: done, running, failed, stale (its record is of other settings or another version),
            or to do.
        text: why, in one line; empty if there is nothing to say.
        claim: of the worker that has its encoder; None if no living one has.
    """

    cell: Cell
    state: State
    text: str = ""
    claim: Claim | None = None


def statuses(request: Request) -> tuple[list[CellStatus], list[Claim]]:
    """The state of every cell, and the claims that no living worker has.

    Raises:
        UserError: the request cannot be used.
    """
    held = claims.read(request.folder / claims.FOLDER)
    cells = [_status(cell, request, held) for cell in plan.cells(request)]
    return cells, [claim for claim in held.values() if not claim.is_alive]


def _status(cell: Cell, request: Request, held: Mapping[str, Claim]) -> CellStatus:
    claim = held.get(cell.group)
    if claim is not None and not claim.is_alive:
        claim = None
    state, text = _recorded(cell, request)
    if state == "done":
        return CellStatus(cell, state)
    if claim is not None and claim.holder.cell == str(cell):
        return CellStatus(cell, "running", _progress(claim), claim)
    return CellStatus(cell, state, text, claim)


def _recorded(cell: Cell, request: Request) -> tuple[State, str]:
    """The state of a cell by its record alone, and why."""
    try:
        record = storage.find(cell.path(request))
        if record is None:
            return "to do", ""
        if record.status == "failed":
            return "failed", _last_line(record)
        if plan.is_up_to_date(cell, request):
            return "done", ""
    except UserError as error:  # a record that a run would refuse
        return "stale", str(error)
    return "stale", "its record is of another version, or of files or code that changed"


def _last_line(record: Record) -> str:
    given = [line for line in record.error_lines if line.strip()]
    return one_line(given[-1]) if given else record.error or "no message"


def _progress(claim: Claim) -> str:
    """How far the cell of a claim is."""
    stage = claim.holder.stage
    name = stage.name.rpartition(": ")[2]
    parts = [one_line(name)] if name else []
    if stage.total > 0:
        parts.append(f"{100 * stage.done / stage.total:.0f}%")
    if stage.left is not None:
        parts.append(f"about {about(stage.left)} left of this stage")
    return ", ".join(parts)


def lines(request: Request) -> Iterator[str]:
    """The states as text: counts, a line a cell, and a line a claim that is left over."""
    cells, left_over = statuses(request)
    counts = Counter(each.state for each in cells)
    yield plan.title(request.suite)
    yield ", ".join(f"{counts[state]} {state}" for state in STATES)
    width = max(len(each.cell.id) for each in cells)
    for each in cells:
        yield f"  {each.cell.id:{width}}  {_line(each)}"
    for claim in left_over:
        yield (
            f"claim {claim.name}: {claim.holder} gave no sign of life for {about(abs(claim.age))}; "
            "the next worker takes it over"
        )


def _line(each: CellStatus) -> str:
    parts: list[str] = [each.state]
    if each.claim is not None:
        where = f"{each.claim.holder}, for {about(each.claim.held)}"
        parts.append(where if each.state == "running" else f"with {where}")
    if each.text:
        parts.append(each.text)
    return ": ".join([parts[0], "; ".join(parts[1:])]) if parts[1:] else parts[0]


def as_json(request: Request) -> dict[str, Any]:
    """The states as values of JSON."""
    cells, left_over = statuses(request)
    return {
        "suite": request.suite.name,
        "suite_sha256": request.suite.sha256,
        "records": str(request.folder.absolute()),
        "cells": [_cell(each) for each in cells],
        "leftover_claims": [_claim(claim) for claim in left_over],
    }


def _cell(each: CellStatus) -> dict[str, Any]:
    return {
        **each.cell.as_json(),
        "state": each.state,
        "text": each.text,
        "worker": None if each.claim is None else _claim(each.claim),
    }


def _claim(claim: Claim) -> dict[str, Any]:
    """A claim; its times are differences, as clocks of machines differ."""
    holder = claim.holder
    stage = holder.stage
    return {
        "group": claim.name,
        "host": holder.host,
        "pid": holder.pid,
        "seconds_held": round(claim.held, 1),
        "seconds_since_heartbeat": round(claim.age, 1),
        "cell": holder.cell,
        "stage": stage.name,
        "share_done": stage.done / stage.total if stage.total > 0 else None,
        "seconds_left": stage.left,
    }
