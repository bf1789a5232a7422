"""`bench run --on slurm` on a real Slurm: the leaderboard of a serial run, whatever ends when."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from slurm_cluster import cluster, processes, reason_to_skip
from submitting import (
    FAILS,
    age,
    claim,
    ended,
    held,
    lines,
    submitter,
    two_of_twelve_cells,
    until,
    waiting_method,
)
from support import SHORT

from bench.execution.engine import open_engine
from bench.runtime.claims import Claims

pytestmark = pytest.mark.cluster

# faketime changes the monotonic clock, too, but not the waits of threads, which then take 10 min.
UNDER_FAKETIME = """
import threading, time
from bench.cli import main

def wait(self, timeout=None):
    end = time.monotonic() + (timeout or 600)
    while not self.is_set() and time.monotonic() < end:
        time.sleep(0.1)
    return self.is_set()

threading.Event.wait = wait
main()
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of a Slurm's users."""
    reason = reason_to_skip()
    if reason and os.environ.get("CI") != "true":
        pytest.skip(reason)
    assert not reason, reason
    folder = tmp_path_factory.mktemp("slurm")
    with cluster(folder) as environment:
        yield environment
    assert processes(folder / "slurm.conf") == []


@pytest.fixture
def submitters(slurm, tmp_path, cache):
    """Start submitters; those that still run at the end are killed, and their jobs canceled."""
    started = []

    def start(*arguments, patch=""):
        asked = (*arguments, "--on", "slurm")
        where = {"out": tmp_path / "out", "cache": cache, "env": slurm}
        started.append(submitter(*asked, patch=patch, **where))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
    until(lambda: canceled(slurm))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def queue(environment):
    command = ["squeue", "--noheader", "--array"]
    return subprocess.check_output(command, env=environment, text=True).splitlines()


def canceled(environment):
    """Whether the queue is empty; else its jobs are canceled. One that is queued again may stay."""
    if not queue(environment):
        return True
    subprocess.run(["scancel", "--user=root"], env=environment)
    return False


def submitted(out):
    """The names of all jobs, sorted."""
    files = (out / "smoke/jobs/slurm").glob("*/names.json")
    return sorted(name for file in files for name in json.loads(file.read_text()))


def test_two_submitters_of_twelve_cells_give_the_leaderboard_of_a_serial_run(
    bench_run, submitters, tmp_path, out
):
    for messages in two_of_twelve_cells(submitters, bench_run, tmp_path, out):
        assert messages.count(" of 12 cells") == 12, "a line for every finished cell"
    assert len(submitted(out)) == len({*submitted(out)}) == 6


def test_a_killed_worker_is_replaced(submitters, slurm, tmp_path, out):
    path, begun, go = waiting_method(tmp_path)
    process = submitters("--methods", f"{path},random_init", "--tasks", "voc_cls")
    until(lambda: lines(begun))
    os.kill(int(lines(begun)[0]), signal.SIGKILL)
    go()
    until(lambda: not queue(slurm))
    time.sleep(3)
    assert len(lines(begun)) == 1, "nobody knows that it is dead before its claim is old"
    age(claim(out, "waits-seed0"))
    status, _, err = ended(process)
    assert status == 0, err
    assert "waits-seed0: its job ended, but its worker's claim is not old yet" in err
    assert "waits-seed0: its job ended without a record; submitted again (2 of 3)" in err
    assert len(lines(begun)) == 2
    assert submitted(out) == ["random_init-seed0", "waits-seed0", "waits-seed0"]


def test_the_time_limit_queues_a_job_again_and_one_failing_cell_stops_nothing(
    submitters, tmp_path, out
):
    path, begun, go = waiting_method(tmp_path)
    fails = tmp_path / "fails.py"
    fails.write_text(FAILS)
    methods = f"{path},{fails},random_init"
    settings = ("--engine-set", "time=1,signal=5")  # a minute; Slurm looks every 30 s
    process = submitters("--methods", methods, "--tasks", "voc_cls", *settings)
    until(lambda: lines(begun) and not claim(out, "waits-seed0").exists())
    go()
    status, printed, err = ended(process)
    assert status == 1, err
    assert "FAILED: ValueError: no luck" in err
    assert "without a record" not in err, "it was queued again, not submitted again"
    assert len(lines(begun)) >= 2
    assert submitted(out) == ["fails-seed0", "random_init-seed0", "waits-seed0"]
    log = open_engine("slurm", {}, out / "smoke/jobs/slurm").log("waits-seed0").read_text()
    assert log.index("interrupted; run the same command again") < log.index("1 recorded, 0 failed")
    assert "no luck" in (out / "smoke/LEADERBOARD.md").read_text()
    assert "waits" in printed and "random_init" in printed
    assert held(out) == []


def test_a_submitter_that_is_stopped_or_killed_is_joined(submitters, tmp_path, out):
    path, begun, go = waiting_method(tmp_path)
    asked = ("--methods", f"{path},random_init", "--tasks", "voc_cls")
    first = submitters(*asked)
    until(lambda: lines(begun))
    first.send_signal(signal.SIGINT)
    status, _, err = ended(first)
    assert status == 130
    assert err.endswith("the jobs go on; run the same command again to join them\n")
    second = submitters(*asked)
    until(lambda: "already" in second.stderr.readline())
    second.kill()
    third = submitters(*asked)
    until(lambda: "already" in third.stderr.readline())
    go()
    status, _, err = ended(third)
    assert status == 0, err
    assert len(lines(begun)) == 1
    assert submitted(out) == ["random_init-seed0", "waits-seed0"]


def test_a_stale_claim_is_taken_over_and_a_living_one_is_not(submitters, out):
    other = Claims(claim(out, "x").parent, 600, lambda name: None, lambda name: None)
    assert other.take("imagenet-seed0") and other.take("random_init-seed0")
    age(claim(out, "random_init-seed0"))
    process = submitters("--methods", "imagenet,random_init", "--tasks", "voc_cls")
    until(lambda: (out / "smoke/voc_cls/random_init/seed0.json").exists())
    assert submitted(out) == ["random_init-seed0"]
    age(claim(out, "imagenet-seed0"))
    status, _, err = ended(process)
    assert status == 0, err
    assert submitted(out) == ["imagenet-seed0", "random_init-seed0"]


def test_a_clock_that_is_ten_minutes_off_changes_nothing(bench, submitters, tmp_path, out, cache):
    path, begun, go = waiting_method(tmp_path)
    worker = ["faketime", "-f", "+10m", sys.executable, "-c", UNDER_FAKETIME]
    worker += ["work", "--stale-after", "30"]
    asked = ("--methods", f"{path}", "--tasks", "voc_cls")
    process = submitters(*asked, patch=f"submit.WORKER = {worker}")
    until(lambda: lines(begun))
    places = ["--suite", "smoke", "--out", out, "--cache", cache]
    places += [part for key in SHORT for part in ("--set", key)]
    until(lambda: "running: " in bench("status", *asked, *places).out)
    assert "no sign of life" not in bench("status", *asked, *places).out
    go()
    status, _, err = ended(process)
    assert status == 0, err
    assert len(lines(begun)) == 1
    assert submitted(out) == ["waits-seed0"]
    record = json.loads((out / "smoke/voc_cls/waits/seed0.json").read_text())
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 300))
    assert record["created"] > later, "its clock was off"


def test_a_worker_that_cannot_start_is_given_up(submitters, out):
    asked = ("--methods", "random_init", "--tasks", "voc_cls", "--device", "cuda")
    status, _, err = ended(submitters(*asked))
    assert status == 1, err
    assert "random_init-seed0: its job ended 3 times without a record: " in err
    assert "bench: --device cuda: " in err
    assert submitted(out) == 3 * ["random_init-seed0"]


def test_sbatch_refuses_in_one_line(submitters):
    asked = ("--methods", "random_init", "--tasks", "voc_cls", "--engine-set", "partition=none")
    status, printed, err = ended(submitters(*asked))
    assert (status, printed) == (2, "")
    assert "bench: sbatch: " in err.splitlines()[-1] and "partition" in err.splitlines()[-1]
