"""Slurm: an array of jobs, submitted by submitit; squeue alone says which are alive."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench.errors import UserError, one_line
from bench.execution.engine import Job, check_keys
from bench.runtime import regular, signals
from bench.runtime.files import atomic_write

NAME = "ssl-gap-"  # of every array, followed by its token
NAMES = "names.json"  # of the jobs of an array, in order
LARGEST = 2**24  # bytes of that file
LONGEST = 60  # seconds of a command of Slurm
REQUEUES = 100  # of a job whose time limit is too short to get anywhere

WHOLE = re.compile(r"[1-9]\d{0,6}")
KINDS = {
    "partition": (re.compile(r"[^\s]+"), "a name"),
    "time": (re.compile(r"[1-9]\d*|(\d+-)?\d+:\d+(:\d+)?|\d+-\d+"), "minutes, or D-HH:MM:SS"),
    "gpus": (re.compile(r"([\w.]+:)?1"), "1, or TYPE:1, as a job computes on one GPU"),
    "cpus": (WHOLE, "a number"),
    "mem": (re.compile(r"[1-9]\d*[KMGT]?"), "a size such as 32G"),
    "account": (re.compile(r"[^\s]+"), "a name"),
    "qos": (re.compile(r"[^\s]+"), "a name"),
    "constraint": (re.compile(r"[^\s]+"), "features of nodes"),
    "signal": (WHOLE, "seconds before the time limit at which a job is told to stop"),
    "max_jobs": (WHOLE, "a number"),
}
DEFAULTS = {"signal": "120", "max_jobs": "256"}


class Slurm:
    """The queue of a Slurm cluster.

    Args:
        settings: of every job.
        folder: for arrays: a folder each.

    Raises:
        UserError: submitit or Slurm is not installed, or a setting is wrong.
    """

    jobs_go_on = True

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        check_keys("slurm", settings, tuple(KINDS))
        for key, value in settings.items():
            pattern, meaning = KINDS[key]
            if not pattern.fullmatch(value):
                raise UserError(f"--engine-set {key}={one_line(value)}: write {meaning}")
        try:
            import submitit  # noqa: F401 - whether it is there
        except ImportError:
            raise UserError(
                "--on slurm: needs submitit; install it with pip install 'ssl-gap[slurm]'"
            ) from None
        for program in ("sbatch", "srun", "squeue"):
            if shutil.which(program) is None:
                raise UserError(f"--on slurm: there is no {program} here; use a machine of a Slurm")
        self._settings = DEFAULTS | dict(settings)
        self._folder = folder
        self._alive: set[str] | None = None  # as squeue said last

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs as one array."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor

        token = uuid.uuid4().hex[:12]
        folder = self._folder / token
        folder.mkdir(parents=True)
        # Before the jobs: who reads the queue then knows what they are.
        atomic_write(folder / NAMES, json.dumps([job.name for job in jobs]).encode())
        executor = SlurmExecutor(folder)
        executor.update_parameters(job_name=f"{NAME}{token}", **_parameters(self._settings))
        try:
            executor.map_array(_work, [job.command for job in jobs])
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"sbatch: {_reason(error)}") from None
        if self._alive is not None:
            self._alive |= {job.name for job in jobs}

    def alive(self) -> set[str]:
        """The names of the jobs in the queue; what squeue said last where it does not answer."""
        command = ["squeue", "--noheader", "--array", "--format=%j %K"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            problem = f"no answer within {LONGEST} s"
        else:
            if done.returncode == 0:
                self._alive = self._names(done.stdout)
                return set(self._alive)
            problem = one_line(done.stderr)
        if self._alive is None:
            raise UserError(f"squeue: {problem}")
        return set(self._alive)

    def _names(self, queue: str) -> set[str]:
        """The names of the jobs of this folder in what squeue printed."""
        names = set[str]()
        for line in queue.splitlines():
            array, _, index = line.strip().rpartition(" ")
            file = self._folder / array.removeprefix(NAME) / NAMES
            if array.startswith(NAME) and file.exists():
                known = json.loads(regular.read(file, LARGEST))
                names.add(known[int(index) if index.isdecimal() else 0])  # one job is no array
        return names

    def log(self, name: str) -> Path | None:
        """What the worker of a job printed: its stderr."""
        logs: list[Path] = []
        for file in self._folder.glob(f"*/{NAMES}"):
            known = json.loads(regular.read(file, LARGEST))
            if name in known:
                index = known.index(name)
                pattern = f"*_{index}_0_log.err" if len(known) > 1 else "*_0_log.err"
                logs += file.parent.glob(pattern)
        return max(logs, key=lambda path: path.stat().st_mtime, default=None)

    def close(self) -> None:
        """Nothing is open."""


def _parameters(settings: Mapping[str, str]) -> dict[str, Any]:
    """Settings as submitit has them."""
    # None: as the cluster has it, not as submitit does.
    keys = ("partition", "time", "mem", "account", "qos", "constraint")
    parameters: dict[str, Any] = {key: settings.get(key) for key in keys}
    if "gpus" in settings:
        parameters["gpus_per_node"] = settings["gpus"]
    if "cpus" in settings:
        parameters["cpus_per_task"] = int(settings["cpus"])
        parameters["srun_args"] = ["--cpus-per-task", settings["cpus"]]  # srun takes over no more
    return parameters | {
        "signal_delay_s": int(settings["signal"]),
        "array_parallelism": int(settings["max_jobs"]),
        "wckey": None,
        "additional_parameters": {"requeue": True},
    }


def _reason(error: Exception) -> str:
    """The line of sbatch in an error of submitit."""
    lines = [line for line in str(error).splitlines() if "sbatch: " in line]
    return one_line(lines[0].partition("sbatch: ")[2] if lines else str(error))


def _work(command: Sequence[str]) -> None:
    """The job: run a worker; queue the job again if the worker was told that its time is over.

    Slurm tells all processes of the job, so the worker ends by itself. A worker that ends with
    the same status since others have its cells was not told, and is not queued again.
    """
    told: list[int] = []

    def notice(number: int, frame: FrameType | None) -> None:
        told.append(number)

    signal.signal(signal.SIGUSR2, notice)  # in place of submitit's handler, which kills this
    status = subprocess.run(command).returncode
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if status == signals.REQUEUE and told and restarts < REQUEUES:
        array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=True)
    sys.exit(status)
