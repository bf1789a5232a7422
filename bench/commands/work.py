"""`bench work`: computes cells of a request beside other workers. Writes records and no more."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.commands import cells as plans
from bench.commands import estimate, plan
from bench.commands.request import Cell, Request
from bench.errors import UserError
from bench.metrics import registry
from bench.results import storage
from bench.results.record import Record
from bench.runtime import claims, distributed, regular, signals
from bench.runtime.claims import Claims, Progress
from bench.runtime.progress import Reporter

SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")
LARGEST_PLAN = 2**26  # bytes
OK, FAILED = 0, 1


def of_shard(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """The cells of one of several shares of the encoders, whatever is up to date.

    Args:
        cells: all of the request.
        shard: I/N, of 0/N to N-1/N.

    Raises:
        UserError: it is no such text.
    """
    match = SHARD.fullmatch(shard)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if index >= count:
        raise UserError(f"--shard {shard}: write I/N with I from 0 to N-1, for example 0/4")
    return [cell for group in plan.groups(cells)[index::count] for cell in group]


def of_file(cells: Sequence[Cell], path: Path, request: Request) -> list[Cell]:
    """The cells that a file names, which `bench plan --json` printed.

    Args:
        cells: all of the request.
        path: of the file; cells may have been removed from it.
        request: has to be the one that was planned.

    Raises:
        UserError: it is no such file, or of another request.
    """
    try:
        content = json.loads(regular.read(path, LARGEST_PLAN))
        ids = {str(cell["id"]) for cell in content["cells"]}
        settings = content["suite_settings"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise UserError(f"--cells {path}: is no plan; make one with bench plan --json") from None
    if settings != json.loads(json.dumps(plans.settings(request))):
        raise UserError(
            f"--cells {path}: was planned with other settings than suite {request.suite.name} has "
            "here; use the same --suite and --set, or plan again"
        )
    absent = sorted(ids - {cell.id for cell in cells})
    if absent:
        raise UserError(
            f"--cells {path}: {absent[0]} is none of the cells here; "
            "use the same --methods, --tasks and seeds, or plan again"
        )
    return [cell for cell in cells if cell.id in ids]


def work(
    request: Request, cells: Sequence[Cell], own: Sequence[Cell], stale_after: float, to: Reporter
) -> int:
    """Compute the cells that are not up to date and that no other worker has.

    Args:
        request: how, and where to.
        cells: all of the request: other workers compute the others.
        own: those to compute.
        stale_after: seconds without a heartbeat after which others may take over.
        to: for progress.

    Returns:
        The exit status: 0 all are recorded, 1 some failed, 75 some are not recorded yet.

    Raises:
        UserError: the request, its data or its output folder cannot be used.
        Interrupted: by a signal; what was claimed is released.
    """
    to.say(plan.title(request.suite))
    plan.check_writable(request)
    todo = [cell for cell in cells if not plan.is_up_to_date(cell, request)]
    plan.check_tables(todo, request)
    own_todo = [cell for cell in own if cell in set(todo)]
    if distributed.world_size() > 1:
        with signals.deferred():
            distributed.init()
        own_todo = distributed.broadcast(own_todo)
    for notice in plan.notices(request):
        to.say(notice)
    to.say(plan.counts(own, own_todo))
    queue = _Queue(own_todo, request, to)
    if own_todo:
        sequences = [[str(cell) for cell in group] for group in plan.groups(own_todo)]
        expected = estimate.by_name(own_todo, request)
        with (
            to.cells(expected, request.workers, sequences),
            Claims(queue.folder, stale_after, queue.progress, queue.lost) as queue.claims,
        ):
            with signals.deferred():
                from bench.commands.execute import compute

            compute(own_todo, request, to, None, queue.finished, queue.following)
    return distributed.from_main(lambda: queue.status(own))  # the same in every process


class Outcomes:
    """What became of cells since some moment.

    Args:
        todo: the cells that were not up to date then.
        request: names the folder.
    """

    def __init__(self, todo: Sequence[Cell], request: Request) -> None:
        self._request = request
        # Records of failed cells: only these are tried again, not what fails meanwhile elsewhere.
        self._failed = {cell: self._checksum(cell) for cell in todo}

    def record(self, cell: Cell) -> Record | None:
        """The record of a cell with nothing left to compute: up to date, or failed since then."""
        record = storage.find(cell.path(self._request))
        if record is None:
            return None
        if record.status == "failed":
            return None if record.checksum == self._failed.get(cell) else record
        return record if plan.is_up_to_date(cell, self._request) else None

    def _checksum(self, cell: Cell) -> str | None:
        """The checksum of a failed cell's record; None of another one."""
        record = storage.find(cell.path(self._request))
        return record.checksum if record and record.status == "failed" else None


@dataclass
class _Queue:
    """The encoders that a worker has yet to begin, and the claims on those that it has begun.

    Attributes:
        todo: the cells that were not up to date at the start.
        request: names the folder.
        to: for progress.
        claims: of this process; made before any encoder is begun.
    """

    todo: Sequence[Cell]
    request: Request
    to: Reporter
    claims: Claims = field(init=False)

    def __post_init__(self) -> None:
        self._waiting = plan.groups(self.todo)
        self._begun: dict[str, list[Cell]] = {}
        self._outcomes = Outcomes(self.todo, self.request)

    @property
    def folder(self) -> Path:
        """The folder of the claims."""
        return self.request.folder / claims.FOLDER

    def following(self) -> list[Cell]:
        """The cells of the next encoder that no other worker has; none if there is none."""
        for group in list(self._waiting):
            name = group[0].group
            if not self.claims.take(name):
                continue
            self._waiting.remove(group)
            left = [cell for cell in group if self._outcomes.record(cell) is None]
            for cell in group:
                if cell not in left:
                    self.to.finish_cell(str(cell), failed=True)
            if left:
                self._begun[name] = list(left)
                return left
            self.claims.release(name)
        return []

    def finished(self, cell: Cell, record: Record) -> None:
        """Print the score of a recorded cell; release the claim after the last of its encoder."""
        if not distributed.is_main():
            return
        if record.value is not None:
            label = registry.get(record.metric).label
            self.to.say_finished(f"{cell}: {label} {record.value:.2f}")
        self._begun[cell.group].remove(cell)
        if not self._begun[cell.group]:
            self.claims.release(cell.group)

    def progress(self, name: str) -> Progress | None:
        """The cell of a claim that is at work, and how far it is."""
        names = {str(cell) for cell in self._begun.get(name, [])}
        return next((item for item in self.to.at_work().items() if item[0] in names), None)

    def lost(self, name: str) -> None:
        """End this worker as a signal would: it was paused, and another one has its work."""
        self.to.say(f"{name}: another worker took it over, as this one gave no sign of life")
        os.kill(os.getpid(), signal.SIGTERM)

    def status(self, own: Sequence[Cell]) -> int:
        """The exit status, from the records; says which cells are not recorded, and who has them.

        Args:
            own: the cells of this worker, with those that were up to date at the start.
        """
        missing = [cell for cell in own if self._outcomes.record(cell) is None]
        failed = [
            cell
            for cell in own
            if cell not in missing and not plan.is_up_to_date(cell, self.request)
        ]
        holders = claims.read(self.folder) if missing else {}
        for group in plan.groups(missing):
            name = group[0].group
            holder = f", {holders[name].holder} has it" if name in holders else ""
            self.to.say(f"{name}: {len(group)} of its cells not recorded yet{holder}")
        recorded = len(own) - len(missing) - len(failed)
        self.to.say(f"{recorded} recorded, {len(failed)} failed, {len(missing)} not recorded yet")
        if missing:
            return signals.REQUEUE
        return FAILED if failed else OK
