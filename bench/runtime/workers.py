"""Worker processes on this machine: each takes the next job until none is left.

A worker is a fresh process, as in `runtime.pool`. What it says and how far it has come arrives over
a pipe, so that one process alone writes to the terminal. It ends with its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bench.errors import UserError, explanation
from bench.runtime import signals
from bench.runtime.pool import check_daemon, end_with_parent, hidden_main_module
from bench.runtime.progress import RemoteReporter, Reporter

PATIENCE = 1.0  # seconds between the signals that one program sends to all processes of a job

Work = Callable[[Any, Reporter], Iterable[Any]]  # computes the results of one job


@dataclass(frozen=True)
class Ended:
    """The end of a process that had not finished its job.

    Attributes:
        status: its exit status; less than 0 is the number of the signal that ended it.
    """

    status: int

    def __str__(self) -> str:
        if self.status < 0:
            memory = "; too little memory does so" if -self.status == signal.SIGKILL else ""
            return f"signal {-self.status} ended its process{memory}"
        return f"its process ended with status {self.status}"


def load() -> float:
    """Cores that were busy on average over the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


@dataclass
class _Worker:
    """A process, the pipe to it, and the index of the job that it computes."""

    process: BaseProcess
    pipe: Connection
    job: int | None = None


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compute(
    jobs: Iterable[Any], start: Callable[[], Work], workers: int, reporter: Reporter
) -> Iterator[tuple[int, Any]]:
    """Compute jobs in several processes, in any order.

    Args:
        jobs: picklable; the next one is asked for when a process is free.
        start: called once in each worker, picklable; what it returns computes a job and yields
            results, picklable too.
        workers: how many processes, at most.
        reporter: shows what the workers do.

    Yields:
        The index of a job and one of its results, as it comes; or `Ended`: the process was lost,
        and a new one goes on with the next job.
    """
    waiting = enumerate(jobs)
    pool: list[_Worker] = []
    try:
        while True:
            while len(pool) < workers and (job := next(waiting, None)) is not None:
                pool.append(_start(start))
                _hand_out(pool[-1], job)
            if all(worker.job is None for worker in pool):
                return
            ready = wait([worker.pipe for worker in pool])
            for worker in [worker for worker in pool if worker.pipe in ready]:
                what, *values = _receive(worker)
                if what == "result":
                    assert worker.job is not None
                    yield worker.job, values[0]
                elif what == "ended":
                    pool.remove(worker)
                    reporter.forget(id(worker))
                    if worker.job is not None:
                        yield worker.job, Ended(*values)
                elif what == "done":
                    worker.job = None
                    if (job := next(waiting, None)) is not None:
                        _hand_out(worker, job)
                else:
                    reporter.show(id(worker), what, *values)
    finally:
        for worker in pool:
            worker.process.terminate()
        for worker in pool:
            worker.process.join()


def _start(start: Callable[[], Work]) -> _Worker:
    check_daemon()
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    with hidden_main_module(), _ignored_interrupts():
        process = context.Process(target=_serve, args=(child_end, start), daemon=False)
        process.start()
    child_end.close()
    return _Worker(process, parent_end)


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Let processes that are started here ignore what their parent decides about, as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may set what a signal does
        return
    numbers = [n for n in (*signals.STATUS, *signals.NOTICES) if n != signal.SIGTERM]
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _hand_out(worker: _Worker, job: tuple[int, Any]) -> None:
    worker.job = job[0]
    with suppress(OSError):  # of a process that is gone; the next message says so
        worker.pipe.send(job[1])


def _receive(worker: _Worker) -> Sequence[Any]:
    """What a worker sent; `ended` if its process is gone."""
    try:
        message: Sequence[Any] = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        status = worker.process.exitcode or 0
        if status == -signal.SIGTERM:
            time.sleep(PATIENCE)  # what ends all processes of a job ends this one now, too
        return "ended", status
    if message[0] == "refused":
        raise UserError(*message[1:])
    if message[0] == "error":
        raise RuntimeError(*message[1:])
    return message


def _serve(pipe: Connection, start: Callable[[], Work]) -> None:
    """Compute the jobs that arrive, one after another; the main function of a worker."""
    end_with_parent()
    try:
        work = start()
        reporter = RemoteReporter(lambda *event: pipe.send(event))
        while True:
            for result in work(pipe.recv(), reporter):
                pipe.send(("result", result))
            pipe.send(("done",))
    except EOFError:
        return
    except Exception as error:  # the parent raises it
        line = explanation(error)
        pipe.send(("refused", line) if line else ("error", traceback.format_exc()))
