"""The engine of `bench run --on ray`: each job is an actor of a Ray cluster, or of a local Ray.

Actors are detached and named in a namespace of the output folder. So they go on when the submitter
dies, and no job is submitted twice. Ray itself runs in a process of its own (`_serve`): it prints
to stdout, sets handlers of signals, waits for minutes and may end its process.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.errors import UserError, message, one_line
from bench.execution.engine import Job, check_keys
from bench.runtime.fingerprint import digest
from bench.runtime.partial import temporary_folder
from bench.runtime.pool import hidden_main_module
from bench.runtime.workers import cores

ADDRESS = "RAY_ADDRESS"  # Ray's own variable
RESUME = "run the same command again to resume"
LOCAL = "local"  # address of a Ray that is started for the run
CONNECT_SECONDS = 30
START_SECONDS = 120
ANSWER_SECONDS = 60
END_SECONDS = 20  # of a local Ray, with its processes and files
RESTARTS = 2  # of a job whose node was lost
OBJECT_STORE = 80 * 2**20  # bytes; jobs put nothing there
GIGABYTE = 10**9
# Bytes of TMPDIR: a socket's name has 107 (unix(7)), of which Ray's parts and ours take 90.
LONGEST_FOLDER = 17

KINDS = {
    "num_cpus": (re.compile(r"[1-9]\d{0,4}"), "a whole number"),
    "num_gpus": (re.compile(r"0?\.\d{1,4}|\d{1,4}(\.0+)?"), "a whole number, or a fraction of one"),
    "memory": (re.compile(r"\d{1,6}(\.\d+)?"), "a number of GB"),
}


@dataclass(frozen=True)
class RaySettings:
    """What a job needs, and where Ray is.

    Attributes:
        address: HOST:PORT of a cluster's head, `auto` for the cluster of this machine, or `local`.
        num_cpus: cores of a job; None: its share of those of its GPU, or one.
        num_gpus: GPUs of a job, also a fraction; None: one where the cluster has any.
        memory: GB that a job reserves; None reserves nothing.
    """

    address: str
    num_cpus: int | None = None
    num_gpus: float | None = None
    memory: float | None = None

    @classmethod
    def parse(cls, settings: Mapping[str, str], variables: Mapping[str, str]) -> RaySettings:
        """The settings of `--engine-set`, with the address that the environment has.

        Raises:
            UserError: a name is unknown, or a value is wrong.
        """
        check_keys("ray", settings, [field.name for field in fields(cls)])
        for key, (pattern, meaning) in KINDS.items():
            if key in settings and not pattern.fullmatch(settings[key]):
                raise UserError(f"--engine-set {key}={one_line(settings[key])}: write {meaning}")
        address = settings.get("address") or variables.get(ADDRESS) or LOCAL
        if "://" in address:
            raise UserError(
                f"address {one_line(address)}: write HOST:PORT of the cluster's head, or auto, and "
                "run this on a node of the cluster"
            )
        return cls(
            address=address,
            num_cpus=int(settings["num_cpus"]) if "num_cpus" in settings else None,
            num_gpus=float(settings["num_gpus"]) if "num_gpus" in settings else None,
            memory=float(settings["memory"]) if "memory" in settings else None,
        )

    @property
    def is_local(self) -> bool:
        """Whether a Ray is started for the run."""
        return self.address == LOCAL


class Ray:
    """Jobs as actors of Ray.

    Args:
        settings: of `--engine-set`.
        folder: of the output of jobs; it decides which jobs are the same.

    Raises:
        UserError: Ray is not installed, a setting is wrong, or the cluster does not answer.
    """

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self._settings = RaySettings.parse(settings, os.environ)
        if importlib.util.find_spec("ray") is None:
            raise UserError("--on ray: needs Ray; install it with pip install 'ssl-gap[ray]'")
        self.jobs_go_on = not self._settings.is_local
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._at_end = ExitStack()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """Start the process that talks to Ray, and wait until it is connected."""
        temporary = ""
        if self._settings.is_local:
            _check_temporary_folder()
            temporary = str(self._at_end.enter_context(temporary_folder()))
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        namespace = f"ssl-gap-{digest([str(self._folder.resolve())])[:16]}"
        self._process = context.Process(
            target=_serve, args=(other_end, self._settings, namespace, temporary), daemon=True
        )
        with hidden_main_module():
            self._process.start()
        self._at_end.callback(self._end)
        self._at_end.callback(self._pipe.close)
        other_end.close()
        seconds = START_SECONDS if self._settings.is_local else CONNECT_SECONDS
        self._answer(seconds, f"{_where(self._settings)}: Ray did not answer")

    def close(self) -> None:
        """Leave the cluster, where jobs go on; a local Ray ends, and its jobs with it."""
        self._at_end.close()

    def _end(self) -> None:
        """Wait for the process that talks to Ray, whose pipe is closed; kill it if it hangs."""
        self._process.join(END_SECONDS if self._settings.is_local else 1)
        self._process.kill()
        self._process.join()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand jobs to Ray; one whose name is queued or running already is not submitted again.

        Raises:
            UserError: Ray does not answer, or no node can ever run the jobs.
        """
        told = [(job.name, job.command, self._log(job.name)) for job in jobs]
        self._ask("submit", told)

    def alive(self) -> set[str]:
        """The names of the jobs that are queued or running, whoever submitted them.

        Raises:
            UserError: Ray does not answer.
        """
        return set(self._ask("alive"))

    def log(self, name: str) -> Path | None:
        """The file of what the jobs of a name printed, one after another."""
        path = self._log(name)
        return path if path.exists() else None

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _ask(self, what: str, *arguments: Any) -> Any:
        with suppress(OSError):  # of a process that is gone; the answer says so
            self._pipe.send((what, *arguments))
        return self._answer(ANSWER_SECONDS, f"{_where(self._settings)}: Ray did not answer")

    def _answer(self, seconds: float, problem: str) -> Any:
        try:
            if not self._pipe.poll(seconds):
                self._process.kill()
                raise UserError(f"{problem} within {seconds:.0f} s")
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            raise UserError(f"{_where(self._settings)}: Ray ended; {RESUME}") from None
        if kind == "refused":
            raise UserError(value)
        return value


def _where(settings: RaySettings) -> str:
    """The cluster, as messages name it."""
    return "--on ray" if settings.is_local else f"--on ray, address={settings.address}"


def _check_temporary_folder() -> None:
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > LONGEST_FOLDER:
        raise UserError(
            f"TMPDIR={parent}: is too long for the sockets of Ray (more than {LONGEST_FOLDER} "
            "bytes); set TMPDIR=/tmp"
        )


def _serve(pipe: Connection, settings: RaySettings, namespace: str, temporary: str) -> None:
    """Talk to Ray for another process, until that one closes the pipe or is gone."""
    os.setsid()  # Ray would take the process group out of the terminal, and ends it with itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        question: tuple[Any, ...] = ("connect", settings, namespace, temporary)
        cluster = _Cluster()
        while True:
            pipe.send(_reply(cluster, *question))
            question = pipe.recv()
    except (EOFError, OSError):
        pass
    finally:
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _reply(cluster: _Cluster, what: str, *arguments: Any) -> tuple[str, Any]:
    try:
        return "ok", getattr(cluster, what)(*arguments)
    except UserError as error:
        return "refused", str(error)
    except Exception as error:  # whatever Ray raises
        return "refused", f"Ray: {message(error)}"


class _Cluster:
    """The actors of a cluster in one namespace."""

    def connect(self, settings: RaySettings, namespace: str, temporary: str) -> None:
        """Connect to a cluster, or start one here.

        Args:
            settings: of the jobs; names the cluster.
            namespace: of the names of actors.
            temporary: folder for the files of a local Ray.
        """
        started: dict[str, Any] = {"address": settings.address}
        if settings.is_local:
            for name in list(os.environ):
                if name.startswith("RAY_"):
                    del os.environ[name]
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
            started |= {"num_cpus": cores(), "object_store_memory": OBJECT_STORE}
            started |= {"include_dashboard": False, "_temp_dir": temporary}
        ray: Any = importlib.import_module("ray")
        self._ray = ray
        try:
            ray.init(namespace=namespace, log_to_driver=False, configure_logging=False, **started)
        except Exception as error:  # whatever Ray raises
            raise UserError(f"{_where(settings)}: {message(error)}") from None
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._needs = needs(settings, nodes)
        if settings.is_local:
            check_needs(self._needs, nodes[0])

    def submit(self, jobs: Sequence[tuple[str, tuple[str, ...], Path]]) -> None:
        """Create an actor for each job, unless there is one of its name."""
        actor = self._ray.remote(_actor_class())
        guard = (sys.executable, "-m", "bench.execution.guard", str(self._needs["num_cpus"]))
        environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        for name, command, log in jobs:
            actor.options(
                name=name,
                get_if_exists=True,
                lifetime="detached",
                max_restarts=RESTARTS,
                **self._needs,
            ).remote((*guard, *command), log, Path.cwd(), environment)

    def alive(self) -> list[str]:
        """The names of the actors that are queued or running."""
        names: list[str] = self._ray.util.list_named_actors()
        return names


def needs(settings: RaySettings, nodes: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What each job asks Ray for, with the defaults of a cluster.

    Args:
        settings: as given.
        nodes: the resources of each.
    """
    of_gpus = [node for node in nodes if node.get("GPU")]
    num_gpus = float(bool(of_gpus)) if settings.num_gpus is None else settings.num_gpus
    num_cpus = settings.num_cpus
    if num_cpus is None:
        shares = [node.get("CPU", 1) / node["GPU"] * num_gpus for node in of_gpus]
        num_cpus = max(1, int(min(shares, default=1)))
    asked: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
    if settings.memory is not None:
        asked["memory"] = int(settings.memory * GIGABYTE)
    return asked


def check_needs(asked: Mapping[str, float], machine: Mapping[str, float]) -> None:
    """Refuse jobs that this machine can never run; a cluster may get other nodes.

    Raises:
        UserError: names the setting.
    """
    for name, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        most = machine.get(resource, 0.0)
        if asked.get(name, 0.0) > most:
            unit = GIGABYTE if name == "memory" else 1
            raise UserError(
                f"--engine-set {name}={asked[name] / unit:g}: this machine has {most / unit:g}"
            )


def _actor_class() -> type:
    """The class of a job's actor. Local, so that Ray sends its code: nodes need not import this."""

    class Job:
        """Runs a command in a thread, and ends when that has ended, whatever its status.

        Ray runs it again, on another node, when the node is lost. It needs no submitter for that,
        as it would if the command were a task.
        """

        def __init__(
            self, command: Sequence[str], log: Path, folder: Path, environment: dict[str, str]
        ) -> None:
            import threading

            import ray

            # Also where the variables of a node tell Ray to leave this one alone.
            gpus = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, ray.get_gpu_ids()))}
            self._asked = command, log, folder, environment | gpus
            threading.Thread(target=self._run).start()

        def _run(self) -> None:
            import os
            import subprocess

            import ray

            command, log, folder, environment = self._asked
            # Ray's own, and what it set for the libraries of its workers.
            dropped = ("RAY_", "OMP_NUM_THREADS", "PYTHONBREAKPOINT")
            kept = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
            try:
                with log.open("ab") as output:
                    subprocess.run(
                        command,
                        cwd=folder,
                        env=kept | environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,  # Ray kills the group of an actor without notice
                    )
            finally:
                me = ray.get_runtime_context().current_actor
                ray.kill(me, no_restart=True)

    return Job
