"""`bench run --on slurm` on a real Slurm: the leaderboard of a serial run, whatever ends when."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from slurm_cluster import cluster, processes, reason_to_skip
from support import SHORT, leaderboard, values

from bench.execution.engine import open_engine
from bench.runtime import claims
from bench.runtime.claims import Claims

TWELVE = ("--methods", "rotation,imagenet,random_init", "--tasks", "voc_cls,voc_cls_finetune")
TWELVE = (*TWELVE, "--seeds", "2")
OLD = 601  # seconds
QUICK = "submit.LIST, submit.WATCH, submit.STALE = 1.0, 0.2, 5.0; "
MAIN = "import sys; from bench.commands import submit; {} from bench.cli import main; main()"

# Its cell waits until a file is there, and says which process began it.
WAITS = '''"""A method that waits."""

import os
import time
from pathlib import Path

from bench.encoders.encoder import Encoder


class Waits:
    reference = "none"
    version = 1
    datasets = ()
    inputs = ("rgb",)
    untrained = True

    def pretrain(self, context):
        with Path({begun!r}).open("a") as file:
            print(os.getpid(), file=file)
        while not Path({go!r}).exists():
            time.sleep(0.1)
        return Encoder(context.backbone.name, self.inputs)
'''
FAILS = '''"""A method that fails."""


class Fails:
    reference = "none"
    version = 1
    datasets = ()

    def pretrain(self, context):
        raise ValueError("no luck")
'''


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
        command = [sys.executable, "-c", MAIN.format(QUICK + patch), "run", "--suite", "smoke"]
        command += ["--out", tmp_path / "out", "--cache", cache]
        command += ["--device", "cpu", "--workers", "1", "--on", "slurm"]
        command += [part for key in SHORT for part in ("--set", key)]
        command += arguments
        process = subprocess.Popen(
            [*map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=slurm,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    subprocess.run(["scancel", "--user=root"], env=slurm)
    until(lambda: not queue(slurm))


@pytest.fixture
def waits(tmp_path):
    """A method that waits, the file of its processes, and a function that lets it go on."""
    begun, go = tmp_path / "begun", tmp_path / "go"
    path = tmp_path / "waits.py"
    path.write_text(WAITS.format(begun=str(begun), go=str(go)))
    return path, begun, go.touch


def queue(environment):
    command = ["squeue", "--noheader", "--array"]
    return subprocess.check_output(command, env=environment, text=True).splitlines()


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too late"
        time.sleep(0.1)


def ended(process):
    """The status of a submitter, what it printed, and its messages."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def submitted(folder):
    """The names of all jobs, sorted."""
    files = (folder / "out/smoke/jobs/slurm").glob("*/names.json")
    return sorted(name for file in files for name in json.loads(file.read_text()))


def claim(folder, name, generation=0):
    return folder / "out/smoke" / claims.FOLDER / f"{name}.{generation}"


def lines(path):
    return path.read_text().split() if path.exists() else []


def age(path):
    date = time.time() - OLD
    os.utime(path, (date, date))


pytestmark = pytest.mark.cluster


def test_twelve_cells_give_the_leaderboard_of_a_serial_run(bench_run, submitters, tmp_path):
    alone = tmp_path / "alone"
    serial = bench_run(TWELVE[1], *TWELVE[2:], "--workers", "1", out=alone, cache=tmp_path / "own")
    assert serial.status == 0
    status, out, err = ended(submitters(*TWELVE))
    assert (status, out) == (0, serial.out), err
    assert "6 jobs submitted" in err
    assert err.count(" of 12 cells") == 12, "a line for every finished cell"
    assert len(values(tmp_path / "out")) == 12
    assert values(tmp_path / "out") == values(alone)
    boards = [leaderboard(folder / "smoke", clock=False) for folder in (tmp_path / "out", alone)]
    assert boards[0] == boards[1]
    assert len(submitted(tmp_path)) == 6
    assert list((tmp_path / "out/smoke" / claims.FOLDER).iterdir()) == []


def test_a_killed_worker_is_replaced(submitters, slurm, waits, tmp_path):
    path, begun, go = waits
    process = submitters("--methods", f"{path},random_init", "--tasks", "voc_cls")
    until(lambda: lines(begun))
    os.kill(int(lines(begun)[0]), signal.SIGKILL)
    go()
    # Nobody knows that it is dead before its claim is old.
    until(lambda: not queue(slurm))
    time.sleep(3)
    age(claim(tmp_path, "waits-seed0"))
    status, _, err = ended(process)
    assert status == 0, err
    assert "waits-seed0: its job ended, but its worker's claim is not old yet" in err
    assert "waits-seed0: its job ended without a record; submitted again (2 of 3)" in err
    assert len(lines(begun)) == 2
    assert submitted(tmp_path) == ["random_init-seed0", "waits-seed0", "waits-seed0"]


def test_the_time_limit_queues_a_job_again_and_one_failing_cell_stops_nothing(
    submitters, waits, tmp_path
):
    path, begun, go = waits
    fails = tmp_path / "fails.py"
    fails.write_text(FAILS)
    methods = f"{path},{fails},random_init"
    settings = ("--engine-set", "time=1,signal=40")
    process = submitters("--methods", methods, "--tasks", "voc_cls", *settings)
    until(lambda: claim(tmp_path, "waits-seed0").exists())
    until(lambda: lines(begun) and not claim(tmp_path, "waits-seed0").exists())
    go()
    status, out, err = ended(process)
    assert status == 1, err
    assert "FAILED: ValueError: no luck" in err
    assert "without a record" not in err, "it was queued again, not submitted again"
    assert len(lines(begun)) == 2
    assert submitted(tmp_path) == ["fails-seed0", "random_init-seed0", "waits-seed0"]
    log = open_engine("slurm", {}, tmp_path / "out/smoke/jobs/slurm").log("waits-seed0").read_text()
    assert log.index("interrupted; run the same command again") < log.index("1 recorded, 0 failed")
    board = (tmp_path / "out/smoke/LEADERBOARD.md").read_text()
    assert "no luck" in board
    assert "waits" in out and "random_init" in out


def test_a_submitter_that_is_stopped_or_killed_is_joined(submitters, slurm, waits, tmp_path):
    path, begun, go = waits
    asked = ("--methods", f"{path},random_init", "--tasks", "voc_cls")
    first = submitters(*asked)
    until(lambda: lines(begun))
    first.send_signal(signal.SIGINT)
    status, _, err = ended(first)
    assert status == 130
    assert err.endswith("the jobs go on; run the same command again to join them\n")
    second = submitters(*asked)
    time.sleep(8)
    second.kill()
    assert "submitted" not in second.communicate()[1]
    third = submitters(*asked)
    time.sleep(8)
    go()
    status, _, err = ended(third)
    assert status == 0, err
    assert "1 job queued or running already" in err
    assert "submitted" not in err
    assert len(lines(begun)) == 1
    assert submitted(tmp_path) == ["random_init-seed0", "waits-seed0"]


def test_two_submitters_at_once_submit_nothing_twice(submitters, tmp_path):
    asked = ("--methods", "imagenet,random_init", "--tasks", "voc_cls", "--seeds", "2")
    both = [submitters(*asked) for _ in range(2)]
    outcomes = [ended(process) for process in both]
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    assert outcomes[0][1] == outcomes[1][1]
    names = [f"{method}-seed{seed}" for method in ("imagenet", "random_init") for seed in (0, 1)]
    assert submitted(tmp_path) == names


def test_a_stale_claim_is_taken_over_and_a_living_one_is_not(submitters, tmp_path):
    folder = tmp_path / "out/smoke" / claims.FOLDER
    other = Claims(folder, 600, lambda name: None, lambda name: None)
    assert other.take("imagenet-seed0") and other.take("random_init-seed0")
    age(claim(tmp_path, "random_init-seed0"))
    process = submitters("--methods", "imagenet,random_init", "--tasks", "voc_cls")
    until(lambda: (tmp_path / "out/smoke/voc_cls/random_init/seed0.json").exists())
    time.sleep(3)
    assert submitted(tmp_path) == ["random_init-seed0"]
    age(claim(tmp_path, "imagenet-seed0"))
    status, _, err = ended(process)
    assert status == 0, err
    assert submitted(tmp_path) == ["imagenet-seed0", "random_init-seed0"]


def test_a_clock_that_is_ten_minutes_off_changes_nothing(bench, submitters, waits, tmp_path, cache):
    path, begun, go = waits
    worker = "'faketime', '-f', '+10m', *submit.WORKER, '--stale-after', '30'"
    asked = ("--methods", f"{path},random_init", "--tasks", "voc_cls")
    process = submitters(*asked, patch=f"submit.WORKER = ({worker}); ")
    until(lambda: lines(begun))
    places = ["--suite", "smoke", "--out", tmp_path / "out", "--cache", cache]
    places += [part for key in SHORT for part in ("--set", key)]
    until(lambda: "running: " in bench("status", *asked, *places).out)
    time.sleep(10)
    shown = bench("status", *asked, *places).out
    assert "running: " in shown and "no sign of life" not in shown
    go()
    status, _, err = ended(process)
    assert status == 0, err
    assert len(lines(begun)) == 1
    assert submitted(tmp_path) == ["random_init-seed0", "waits-seed0"]
    record = json.loads((tmp_path / "out/smoke/voc_cls/waits/seed0.json").read_text())
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 300))
    assert record["created"] > later, "its clock was off"


def test_a_worker_that_cannot_start_is_given_up(submitters, tmp_path):
    asked = ("--methods", "random_init", "--tasks", "voc_cls", "--device", "cuda")
    status, _, err = ended(submitters(*asked))
    assert status == 1, err
    assert "random_init-seed0: its job ended 3 times without a record: " in err
    assert "; log: " in err
    assert submitted(tmp_path) == 3 * ["random_init-seed0"]


def test_sbatch_refuses_in_one_line(submitters):
    asked = ("--methods", "random_init", "--tasks", "voc_cls", "--engine-set", "partition=none")
    status, _, err = ended(submitters(*asked))
    assert status == 2
    assert "bench: sbatch: " in err.splitlines()[-1] and "partition" in err.splitlines()[-1]
