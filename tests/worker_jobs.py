"""The jobs of tests of worker processes.

They stand beside the tests, since a worker imports what it computes by its module's name, and
pytest's names of test modules exist in its own process alone.
"""

import errno
import functools
import os
import signal
import sys
import time

import torch

from bench.errors import UserError, naming
from bench.runtime.device import prepare_loader_worker
from bench.runtime.pool import fresh_processes


def start(folder):
    return functools.partial(compute, folder)


def compute(folder, job, reporter):
    """Leave a file and yield its length; a job may ask for the end of its process, or an error."""
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exit":
        os._exit(3)
    while job == "hold" and not (folder / "release").exists():
        time.sleep(0.01)
    if job == "refuse":
        raise UserError("no such thing")
    if job == "fail":
        raise ValueError("a bug")
    with reporter.stage("stage", 2) as bar:
        bar.advance(2)
    reporter.say(f"{job} is done")
    (folder / job).write_text(str(os.getpid()))
    if job == "wait":
        time.sleep(600)
    yield f"result of {job}"


class Slow(torch.utils.data.Dataset):
    """Items that take longer than any test."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(600)


def start_children(kind):
    """Start two processes of a kind, then wait for the end of this one."""
    if kind == "loader":
        loader = torch.utils.data.DataLoader(
            Slow(), num_workers=2, worker_init_fn=prepare_loader_worker
        )
        batches = iter(loader)
        print("ready", flush=True)
        next(batches)
    with fresh_processes(2) as pool:
        jobs = [pool.submit(time.sleep, seconds) for seconds in (0.5, 0.5, 0.5, 0.5)]
        for job in jobs:
            job.result()
        print("ready", flush=True)
        sys.stdin.read()


def fill_disk():
    """What writes a file on a disk that is full."""

    def write(path, reporter):
        with naming(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        yield

    return write
