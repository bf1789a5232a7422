"""Reports of a training run while it trains: a JSONL log, and trackers such as TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from bench.errors import UserError, unknown
from bench.runtime import distributed
from bench.runtime.files import atomic_write

PROJECT = "ssl-gap"
# Trackers whose first argument names a project, and the argument of each that names a run. The
# first argument of any other tracker names the run.
RUN_ARGUMENTS = {
    "clearml": "task_name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "trackio": "name",
    "wandb": "name",
}
FOLDER_ARGUMENTS = {"swanlab": "logdir", "wandb": "dir"}


def _silent(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Tracking:
    """Which trackers follow a training run, and under what name.

    Attributes:
        trackers: names, as accelerate has them.
        folder: for what they write.
        run: name of the run, METHOD/seedK or METHOD/TASK/seedK.
        say: prints one line, should a tracker fail.
    """

    trackers: tuple[str, ...] = ()
    folder: Path = Path()
    run: str = ""
    say: Callable[[str], None] = _silent


def select_trackers(request: str) -> tuple[str, ...]:
    """The trackers in a comma-separated request.

    Raises:
        UserError: one is unknown to accelerate, or is not installed.
    """
    names = dict.fromkeys(part.strip() for part in request.split(",") if part.strip())
    if not names:
        raise UserError("--track: name a tracker, for example tensorboard")
    installed = {str(tracker) for tracker in get_available_trackers()}
    optional = {str(tracker) for tracker in LoggerType}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
        if name in optional - installed:
            raise UserError(f"--track {name}: {name} is not installed; run pip install {name}")
    return tuple(names)


class TrainingReport:
    """The log and the trackers of one training run, written by the main process alone.

    The log has one line of JSON for each report. A resumed run goes on where its checkpoint is:
    later lines of the log, which no checkpoint holds, are removed first.

    A tracker that fails ends all tracking of the run with one line, and never the training.

    Args:
        log: the log's file.
        tracking: the trackers and the run's name.
        accelerator: starts the trackers.
        step: how many steps have been taken.
    """

    def __init__(self, log: Path, tracking: Tracking, accelerator: Accelerator, step: int) -> None:
        self._log = log
        self._tracking = tracking
        self._accelerator = accelerator
        self._tracked = False
        self._is_main = distributed.is_main()
        if not self._is_main:
            return
        _cut(log, step)
        if tracking.trackers:
            self._tracked = True
            self._attempt(lambda: self._start(step))

    def add(self, step: int, seconds: float, rate: float, values: Mapping[str, float]) -> None:
        """Report the state of the run.

        Args:
            step: how many steps have been taken.
            seconds: of training, over all its runs.
            rate: the learning rate of the last step.
            values: losses and logged metrics, means since the last report.
        """
        if not self._is_main:
            return
        measured = {name: _rounded(value) for name, value in values.items()}
        fixed = {"step": step, "seconds": round(seconds, 3), "learning_rate": _rounded(rate)}
        entry = fixed | measured | fixed  # no metric replaces these three, which come first
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        finite = {name: value for name, value in measured.items() if value is not None}
        self._attempt(lambda: self._accelerator.log(finite | {"learning_rate": rate}, step=step))

    def close(self) -> None:
        """End the tracking."""
        self._attempt(self._finish)

    def _start(self, step: int) -> None:
        self._tracking.folder.mkdir(parents=True, exist_ok=True)
        trackers = [_tracker(name, self._tracking, step) for name in self._tracking.trackers]
        self._accelerator.log_with = trackers
        self._accelerator.init_trackers(PROJECT)

    def _finish(self) -> None:
        # Accelerator.end_training would end the processes' group too.
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _attempt(self, action: Callable[[], None]) -> None:
        if not self._tracked:
            return
        try:
            action()
        except Exception as error:  # whatever a tracker raises
            self._tracked = False
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            names = ", ".join(self._tracking.trackers)
            self._tracking.say(f"{self._tracking.run} is no longer tracked by {names}: {text}")


def _tracker(name: str, tracking: Tracking, step: int) -> Any:
    """One of accelerate's trackers of a run that has taken some steps."""
    tracker = LOGGER_TYPE_TO_CLASS[name]
    arguments = [PROJECT if name in RUN_ARGUMENTS else tracking.run]
    if tracker.requires_logging_directory:
        arguments.append(str(tracking.folder))
    options: dict[str, Any] = {}
    if name in RUN_ARGUMENTS:
        options[RUN_ARGUMENTS[name]] = tracking.run
    if name in FOLDER_ARGUMENTS:
        options[FOLDER_ARGUMENTS[name]] = str(tracking.folder)
    if name == "dvclive":  # which has one run a folder
        options["dir"] = str(tracking.folder / tracking.run)
    if name == "tensorboard":
        options["purge_step"] = step + 1  # of an earlier run of this name
    return tracker(*arguments, **options)


def _cut(log: Path, step: int) -> None:
    """Remove the lines of a log after a step, and prepare its folder."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if not log.exists():
        return
    kept = b""
    for line in log.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:  # the run was killed while it wrote the line
            break
        if entry["step"] > step:
            break
        kept += line
    atomic_write(log, kept)


def _rounded(value: float) -> float | None:
    """A value of 6 significant digits; None, which JSON has, if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
