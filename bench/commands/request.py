"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bench.config.schema import Suite, tuples
from bench.errors import UserError
from bench.results import storage
from bench.results.record import Record


@dataclass(frozen=True)
class Request:
    """What `bench run` was asked for.

    Attributes:
        suite: the experiment, overrides applied.
        methods: names, without repeats.
        tasks: names, without repeats.
        seeds: how many; they are 0, 1, ...
        data_root: where the images lie; None for a suite that renders its own.
        out: where records and boards go.
        cache: where what can be computed again goes.
        device: a torch device's name, or `auto`.
        verbose: whether a failure shows its traceback.
    """

    suite: Suite
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: int
    data_root: Path | None
    out: Path
    cache: Path
    device: str = "auto"
    verbose: bool = False


@dataclass(frozen=True)
class Cell:
    """method x task x seed."""

    method: str
    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method} x {self.task}, seed {self.seed}"

    def path(self, request: Request) -> Path:
        """Where its record stands."""
        return storage.path_of(request.out, request.suite.name, self.task, self.method, self.seed)


@dataclass(frozen=True)
class Places:
    """Where cells that stand recorded elsewhere are run again.

    Attributes:
        out: where the new records go.
        cache: where what can be computed again goes.
        data_root: where the images lie, for suites that do not render their own.
        device: a torch device's name, or `auto`.
    """

    out: Path
    cache: Path
    data_root: Path | None = None
    device: str = "auto"

    def request(self, path: Path, found: Record) -> Request:
        """The request that makes a record again.

        Raises:
            UserError: this version of the harness reads the record's suite otherwise.
        """
        suite = suite_of(path, found)
        return Request(
            suite=suite,
            methods=(found.method,),
            tasks=(found.task,),
            seeds=found.seed + 1,
            data_root=None if suite.scenes else self.data_root,
            out=self.out,
            cache=self.cache,
            device=self.device,
        )


def suite_of(path: Path, found: Record) -> Suite:
    """The suite that a record was made with, from what the record says.

    Raises:
        UserError: this version of the harness reads suites otherwise.
    """
    try:
        return Suite.model_validate(tuples(found.suite_settings))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: its suite cannot be run by this version (key '{key}': {first['msg']}); "
            "make the record again"
        ) from None
