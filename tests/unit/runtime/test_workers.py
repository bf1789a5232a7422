"""Worker processes: every job once, what they say, and what ends them."""

import functools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from worker_jobs import start

from bench.errors import UserError
from bench.runtime import workers


class Log:
    """A reporter that remembers."""

    def __init__(self):
        self.events = []

    def show(self, worker, what, *values):
        self.events.append((what, *values))

    def forget(self, worker):
        self.events.append(("forget",))


@pytest.fixture
def run(tmp_path):
    def call(*jobs, count=2):
        log = Log()
        results = dict(workers.compute(jobs, functools.partial(start, tmp_path), count, log))
        return results, log.events

    return call


def test_every_job_is_computed_in_one_of_the_processes(run, tmp_path):
    results, events = run("a", "b", "c")
    assert results == {0: "result of a", 1: "result of b", 2: "result of c"}
    processes = {(tmp_path / job).read_text() for job in "abc"}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes
    said = [event for event in events if event[0] == "say"]
    assert sorted(said) == [("say", f"{job} is done") for job in "abc"]
    assert events.count(("open", "stage", 2, "img")) == 3
    assert events.count(("advance", 2)) == events.count(("close",)) == 3


def test_a_process_that_dies_loses_its_job_alone(run, tmp_path):
    results, _ = run("die", "a", "b", count=1)
    assert results == {0: workers.Ended(-9), 1: "result of a", 2: "result of b"}
    assert str(results[0]) == "signal 9 ended its process; too little memory does so"
    assert str(workers.Ended(-11)) == "signal 11 ended its process"
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()


def test_an_idle_process_that_dies_loses_nothing(tmp_path):
    log = Log()
    jobs = workers.compute(("a", "hold"), functools.partial(start, tmp_path), 2, log)
    assert next(jobs) == (0, "result of a")
    time.sleep(0.5)  # until it waits for another job
    os.kill(int((tmp_path / "a").read_text()), signal.SIGKILL)
    (tmp_path / "release").touch()
    assert list(jobs) == [(1, "result of hold")]


def test_it_works_outside_of_the_main_thread(run):
    with ThreadPoolExecutor(1) as pool:
        results, _ = pool.submit(run, "a", "b").result()
    assert results == {0: "result of a", 1: "result of b"}


def test_a_process_that_exits_is_not_said_to_be_killed(run):
    results, _ = run("exit")
    assert str(results[0]) == "its process ended with status 3"


def test_what_a_user_did_wrong_is_raised_as_such(run):
    with pytest.raises(UserError, match="no such thing"):
        run("refuse", "a")


def test_any_other_error_is_raised_with_its_traceback(run):
    with pytest.raises(RuntimeError, match="ValueError: a bug"):
        run("fail")


def test_the_processes_end_with_the_loop(tmp_path):
    jobs = workers.compute(("a", "wait"), functools.partial(start, tmp_path), 2, Log())
    next(jobs)
    for _ in range(6000):
        if (tmp_path / "wait").exists():
            break
        time.sleep(0.01)
    process = int((tmp_path / "wait").read_text())
    jobs.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def children(process):
    """Numbers of the processes that one has started."""
    listing = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in listing.read_text().split()]


def is_alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["pool", "loader"])
def test_children_end_with_their_parent_alone(kind, number):
    code = f"import worker_jobs; worker_jobs.start_children({kind!r})"
    tests = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(Path.cwd())])},
    )
    assert parent.stdout.readline() == b"ready\n"
    started = children(parent.pid)
    assert len(started) >= 2
    parent.send_signal(number)
    parent.wait()
    deadline = time.monotonic() + 20
    while any(map(is_alive, started)):
        assert time.monotonic() < deadline, "a child is left"
        time.sleep(0.05)
    parent.stdin.close()
    parent.stdout.close()
