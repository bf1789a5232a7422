"""Worker processes on this machine: each takes the next job until none is left.

A worker is a fresh process, as in `runtime.pool`. What it says and how far it has come arrives over
a pipe, so that one process alone writes to the terminal. It ends with its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bench.errors import UserError
from bench.runtime.pool import hidden_main_module
from bench.runtime.progress import RemoteReporter, Reporter

Work = Callable[[Any, Reporter], None]  # computes one job


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
    jobs: Sequence[Any], start: Callable[[], Work], workers: int, reporter: Reporter
) -> Iterator[tuple[int, int]]:
    """Compute jobs in several processes, in any order.

    Args:
        jobs: picklable.
        start: called once in each worker, picklable; what it returns computes a job.
        workers: how many processes, at most.
        reporter: shows what the workers do.

    Yields:
        The index of each job as it ends, with 0, or the number of the signal that ended its
        process: the job is lost, and a new process takes the next one.
    """
    waiting = list(range(len(jobs)))
    pool: list[_Worker] = []
    try:
        while waiting or any(worker.job is not None for worker in pool):
            while waiting and len(pool) < min(workers, len(jobs)):
                pool.append(_start(start))
                _hand_out(pool[-1], waiting, jobs)
            ready = wait([worker.pipe for worker in pool])
            for worker in [worker for worker in pool if worker.pipe in ready]:
                ended = _receive(worker, reporter)
                if ended is None:
                    continue
                assert worker.job is not None
                yield worker.job, ended
                worker.job = None
                if ended:
                    pool.remove(worker)
                elif waiting:
                    _hand_out(worker, waiting, jobs)
    finally:
        for worker in pool:
            worker.process.terminate()
        for worker in pool:
            worker.process.join()


def _start(start: Callable[[], Work]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    with hidden_main_module():
        process = context.Process(target=_serve, args=(child_end, start), daemon=False)
        process.start()
    child_end.close()
    return _Worker(process, parent_end)


def _hand_out(worker: _Worker, waiting: list[int], jobs: Sequence[Any]) -> None:
    worker.job = waiting.pop(0)
    worker.pipe.send(jobs[worker.job])


def _receive(worker: _Worker, reporter: Reporter) -> int | None:
    """Pass on what a worker says; None while its job goes on, else how that ended."""
    try:
        what, *values = worker.pipe.recv()
    except (EOFError, OSError):  # its process is gone
        worker.process.join()
        return abs(worker.process.exitcode or 0) or int(signal.SIGKILL)
    if what == "refused":
        raise UserError(*values)
    if what == "error":
        raise RuntimeError(*values)
    if what == "done":
        return 0
    reporter.show(id(worker), what, *values)
    return None


def _serve(pipe: Connection, start: Callable[[], Work]) -> None:
    """Compute the jobs that arrive, one after another; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = start()
        reporter = RemoteReporter(lambda *event: pipe.send(event))
        while True:
            work(pipe.recv(), reporter)
            pipe.send(("done",))
    except EOFError:
        return
    except UserError as error:
        pipe.send(("refused", str(error)))
    except Exception:  # the parent raises it
        pipe.send(("error", traceback.format_exc()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
