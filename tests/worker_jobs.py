"""The jobs of tests of worker processes.

They stand beside the tests, since a worker imports what it computes by its module's name, and
pytest's names of test modules exist in its own process alone.
"""

import functools
import os
import signal
import time

from bench.errors import UserError


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
