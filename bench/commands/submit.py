"""`bench run --on ENGINE`: workers on other machines compute, this process watches their records.

Records and claims decide what is done. The engine only says which jobs are alive.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench.commands import cells as plans
from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.commands.work import Outcomes
from bench.errors import one_line
from bench.execution.engine import Engine, Job
from bench.results.record import Record
from bench.runtime import claims
from bench.runtime.claims import Claims
from bench.runtime.files import atomic_write
from bench.runtime.progress import Reporter

FOLDER = "jobs"  # below OUT/SUITE: plans, logs and what an engine writes
WORKER = (sys.executable, "-m", "bench", "work")
SUBMISSIONS = 3  # of a job that ends without a record, in all
WATCH = 1.0  # seconds between two looks at the records
LIST = 10.0  # seconds between two questions to the engine
STALE = 60.0  # seconds after which another submitter takes over from one that was killed
LAST_LINES = 3  # of the log of a job that is given up
REST = "the jobs go on; run the same command again to join them"


class Submitter:
    """Computes cells on other machines.

    Args:
        request: what was asked for.
        arguments: the options that repeat it.
        engine: queues the jobs.
        reporter: for progress.

    Attributes:
        given_up: the encoders whose jobs ended without a record every time.
    """

    def __init__(
        self, request: Request, arguments: Sequence[str], engine: Engine, reporter: Reporter
    ) -> None:
        self._request = request
        self._arguments = tuple(arguments)
        self._engine = engine
        self._reporter = reporter
        self._folder = request.folder / FOLDER
        self._submissions: dict[str, int] = {}  # by this process
        self._idle: set[str] = set()  # that nobody computed when the engine was asked last
        self._killed: set[str] = set()
        self._announced = False
        self.given_up: list[str] = []

    def compute(self, todo: Sequence[Cell], announce: Callable[[Cell, Record], None]) -> None:
        """Have cells computed; return when each has a record or was given up.

        Args:
            todo: those that are not up to date.
            announce: called once a cell is recorded.

        Raises:
            UserError: the engine refuses the jobs.
        """
        outcomes = Outcomes(todo, self._request)
        waiting = {group[0].group: group for group in plan.groups(todo)}
        asked = -LIST
        while waiting:
            if time.monotonic() - asked >= LIST:
                self._hand_out(waiting, outcomes)
                asked = time.monotonic()
            self._collect(waiting, outcomes, announce)
            if waiting:
                time.sleep(WATCH)

    def _collect(
        self,
        waiting: dict[str, list[Cell]],
        outcomes: Outcomes,
        announce: Callable[[Cell, Record], None],
    ) -> None:
        """Announce the cells that were recorded since the last look; take them off the list."""
        for name, group in list(waiting.items()):
            for cell in list(group):
                record = outcomes.record(cell)
                if record is None:
                    continue
                group.remove(cell)
                if record.status == "failed":
                    self._reporter.say(f"{cell}: FAILED: {record.error}")
                self._reporter.finish_cell(str(cell), failed=record.status == "failed")
                announce(cell, record)
            if not group:
                del waiting[name]

    def _hand_out(self, waiting: dict[str, list[Cell]], outcomes: Outcomes) -> None:
        """Submit the encoders that nobody computes; give up those whose jobs always end."""
        with Claims(self._folder, STALE, lambda name: None, lambda name: None) as submitting:
            if not submitting.take("submission"):
                return  # another command submits at this moment
            # In this order: what a job records before it ends is seen.
            alive = self._engine.alive()
            held = claims.read(self._request.folder / claims.FOLDER)
            busy = alive | {name for name, claim in held.items() if claim.is_alive}
            idle = {
                name
                for name, group in waiting.items()
                if name not in busy and not all(outcomes.record(cell) for cell in group)
            }
            self._say_busy({*waiting} & busy)
            self._say_killed([name for name in self._submissions if name in held.keys() - alive])
            new = [name for name in waiting if name in idle and name not in self._submissions]
            # A file system of a network shows records late: one more look.
            ended = [name for name in waiting if name in idle & self._idle and name not in new]
            self._idle = idle
            again = [name for name in ended if self._submissions[name] < SUBMISSIONS]
            for name in again:
                self._reporter.say(
                    f"{name}: its job ended without a record; submitted again "
                    f"({self._submissions[name] + 1} of {SUBMISSIONS})"
                )
            self._submit([*new, *again], waiting)
        for name in ended:
            if name not in again:
                self._give_up(name, waiting.pop(name))

    def _say_busy(self, busy: set[str]) -> None:
        if busy and not self._announced:
            self._reporter.say(f"{_count(len(busy))} queued or running already")
        self._announced = True

    def _say_killed(self, names: Sequence[str]) -> None:
        """Say, once each, that workers did not release their claims: nobody may go on yet."""
        for name in names:
            if name not in self._killed:
                self._reporter.say(
                    f"{name}: its job ended, but its worker's claim is not old yet; "
                    "then it is submitted again"
                )
        self._killed |= {*names}

    def _submit(self, names: Sequence[str], waiting: Mapping[str, Sequence[Cell]]) -> None:
        if not names:
            return
        self._engine.submit([self._job(name, waiting[name]) for name in names])
        for name in names:
            self._submissions[name] = self._submissions.get(name, 0) + 1
        self._idle -= {*names}
        self._reporter.say(f"{_count(len(names))} submitted; logs: {self._folder}")

    def _job(self, name: str, group: Sequence[Cell]) -> Job:
        """The worker of one encoder, and the file with its cells."""
        content = {
            "suite_settings": plans.settings(self._request),
            "cells": [cell.as_json() for cell in group],
        }
        encoded = json.dumps(content, indent=1).encode()
        # By its content: a job that is queued finds the cells that it was queued for.
        digest = hashlib.sha256(encoded).hexdigest()[:12]
        file = self._folder / "plans" / f"{name}.{digest}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, encoded)
        return Job(name, (*WORKER, *self._arguments, "--cells", str(file)))

    def _give_up(self, name: str, group: Sequence[Cell]) -> None:
        """Say what the job of an encoder printed last."""
        self.given_up.append(name)
        for cell in group:
            self._reporter.finish_cell(str(cell), failed=True)
        log = self._engine.log(name)
        printed = "it printed nothing"
        if log is not None:
            printed = f"{' | '.join(_last_lines(log)) or printed}; log: {log}"
        self._reporter.say(f"{name}: its job ended {SUBMISSIONS} times without a record: {printed}")


def _count(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"


def _last_lines(path: Path) -> list[str]:
    """The last lines of a log that say something."""
    lines: deque[str] = deque(maxlen=LAST_LINES)
    with suppress(OSError), path.open(errors="replace") as file:
        lines.extend(one_line(line) for line in file if line.strip())
    return list(lines)
