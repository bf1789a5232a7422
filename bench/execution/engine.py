"""What computes the encoders of a run on other machines: a queue of jobs, each a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.errors import UserError, unknown

ENGINES = ("ray", "slurm")


@dataclass(frozen=True)
class Job:
    """A worker that computes the cells of one encoder.

    Attributes:
        name: of the encoder, as its claim has it: `rotation-seed0`.
        command: of `bench work`, to be run in the current folder.
    """

    name: str
    command: tuple[str, ...]


class Engine(Protocol):
    """Where jobs are queued. Records and claims say what is done; an engine only who is alive.

    Attributes:
        jobs_go_on: whether jobs go on when this process ends.
    """

    jobs_go_on: bool

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs.

        Raises:
            UserError: the engine refuses them.
        """

    def alive(self) -> set[str]:
        """The names of the jobs that are queued or running, whoever submitted them to this folder.

        What is not known counts as alive.
        """

    def log(self, name: str) -> Path | None:
        """The file of what a job printed, of several jobs of that name the newest; None if none."""

    def close(self) -> None:
        """Let go of the engine; jobs go on, where they do."""


def open_engine(name: str, settings: Mapping[str, str], folder: Path) -> Engine:
    """The engine of a name.

    Args:
        name: one of `ENGINES`.
        settings: its own, by the names that its users know.
        folder: for its files, which every machine sees; one for all submitters of a suite.

    Raises:
        UserError: it is not installed, not there, or a setting is wrong.
    """
    if name == "slurm":
        from bench.execution.slurm import Slurm

        return Slurm(settings, folder)
    if name == "ray":
        from bench.execution.ray import Ray

        return Ray(settings, folder)
    raise unknown("engine", name, ENGINES)


def parse_settings(given: Sequence[str]) -> dict[str, str]:
    """The settings of an engine from `key=value[,key=value]`; a part without `=` goes on a value.

    Raises:
        UserError: a text begins with no key, or a key is given twice.
    """
    settings: dict[str, str] = {}
    for text in given:
        key = ""
        for part in text.split(","):
            name, separator, value = part.partition("=")
            if not separator and key:
                settings[key] += f",{part}"  # partition=a,b
                continue
            key = name.strip()
            if not (separator and key):
                raise UserError(f"--engine-set {text}: write key=value[,key=value]")
            if key in settings:
                raise UserError(f"--engine-set {key}: is given twice")
            settings[key] = value.strip()
    return settings


def check_keys(engine: str, settings: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse settings that an engine does not have.

    Raises:
        UserError: names the first, and all that there are.
    """
    for key, value in settings.items():
        if key not in known:
            raise UserError(f"--engine-set {key}: {engine} has {', '.join(known)}")
        if not value:
            raise UserError(f"--engine-set {key}: has no value")
