"""What was asked for: the request, its cells, and where their records go."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from bench.config.schema import Suite
from bench.errors import UserError
from bench.results import storage
from bench.results.record import Record

CACHE_VARIABLE = "SSL_GAP_CACHE"  # names another cache folder
ABSOLUTE = re.compile(r"(^|[,=])(/[^,]*)")  # a path in an argument, after what separates it


def _user_cache() -> Path:
    """The cache folder of this user; `NOWHERE` for one without a home folder."""
    try:
        return Path(platformdirs.user_cache_dir("ssl-gap"))
    except RuntimeError:
        return NOWHERE


NOWHERE = Path(os.devnull, "ssl-gap")
CACHE = _user_cache()


def checked_cache(folder: Path) -> Path:
    """A cache folder, unless it is that of a user without a home folder.

    Raises:
        UserError: it is.
    """
    if folder == NOWHERE:
        raise UserError(
            "there is no home folder for the cache; give one (--cache, or the variable "
            f"{CACHE_VARIABLE})"
        )
    return folder


def recorded_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line as records have it: absolute paths, which say whose machine it was, by name.

    Args:
        arguments: without the program.
    """
    return ("bench", *(ABSOLUTE.sub(_file_name, argument) for argument in arguments))


def _file_name(match: re.Match[str]) -> str:
    return match[1] + Path(match[2]).name


@dataclass(frozen=True)
class Request:
    """What `bench run` was asked for.

    Attributes:
        suite: the experiment, overrides applied.
        methods: names, without repeats.
        tasks: names, without repeats.
        seeds: which.
        data_root: folder of the data sets; None for a suite that renders its own.
        out: folder for records and leaderboards.
        cache: folder for what can be computed again.
        device: a torch device's name, or `auto`.
        workers: processes that compute encoders side by side on this machine's processor.
        threads: of each process, where it computes on a processor.
        keep: whether records of another code of a plug-in, under the same version, stay.
        track: trackers that follow every training run, as accelerate names them.
        verbose: whether a failure shows its traceback.
        command: the command line, for the records.
        overrides: those that the suite has in it, as key=value.
        left_out: methods of `all` that cannot train the suite's backbone.
    """

    suite: Suite
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    data_root: Path | None
    out: Path
    cache: Path
    device: str = "auto"
    workers: int = 1
    threads: int = 1
    keep: bool = False
    track: tuple[str, ...] = ()
    verbose: bool = False
    command: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """OUT/SUITE."""
        return self.out / self.suite.name

    @property
    def logs(self) -> Path:
        """The folder of what trackers write."""
        return self.folder / "logs"


@dataclass(frozen=True)
class Cell:
    """method x task x seed."""

    method: str
    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method} x {self.task}, seed {self.seed}"

    @property
    def id(self) -> str:
        """The cell in a plan: its record below OUT/SUITE, less the ending."""
        return f"{self.task}/{self.method}/seed{self.seed}"

    @property
    def group(self) -> str:
        """The cells that share its encoder, by a name that a file may have."""
        return f"{self.method}-seed{self.seed}"

    def as_json(self) -> dict[str, Any]:
        """Its names, as plans and states of cells have them."""
        return {
            "id": self.id,
            "method": self.method,
            "task": self.task,
            "seed": self.seed,
            "group": self.group,
        }

    def path(self, request: Request) -> Path:
        """The path of its record."""
        return storage.path_of(request.out, request.suite.name, self.task, self.method, self.seed)


@dataclass(frozen=True)
class Locations:
    """Where recorded cells are run again.

    Attributes:
        out: folder for the new records.
        cache: folder for what can be computed again.
        data_root: folder of the data sets, for suites that do not render their own.
        device: a torch device's name, or `auto`.
        workers: processes that compute encoders side by side on this machine's processor.
    """

    out: Path
    cache: Path
    data_root: Path | None = None
    device: str = "auto"
    workers: int = 1

    def request(self, record: Record) -> Request:
        """The request that runs the cell of a record again."""
        suite = suite_of(record)
        return Request(
            suite=suite,
            methods=(record.method,),
            tasks=(record.task,),
            seeds=(record.seed,),
            data_root=None if suite.synthetic else self.data_root,
            out=self.out,
            cache=self.cache,
            device=self.device,
            workers=self.workers,
        )


def suite_of(record: Record) -> Suite:
    """The suite that a record was made with: enough to run its cell again."""
    own = {
        "recipes": {record.method: record.recipe} if record.recipe else {},
        "tasks": {record.task: record.task_settings},
    }
    return record.suite_settings.model_copy(update=own)
