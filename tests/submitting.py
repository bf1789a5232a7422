"""Processes that run `bench run --on ENGINE`, and methods whose cells wait or fail."""

import os
import subprocess
import sys
import time

from support import SHORT, leaderboard, values

from bench.runtime import claims

# As submitters are, less the seconds between two looks.
QUICK = "submit.LIST, submit.WATCH, submit.STALE = 1.0, 0.2, 5.0"
MAIN = "from bench.commands import submit; {}; from bench.cli import main; main()"
OLD = 601  # seconds, of a claim that may be taken over
TWELVE = ("rotation,imagenet,random_init", "--tasks", "voc_cls,voc_cls_finetune", "--seeds", "2")

WAITS = '''"""A method whose cell says which process began it, and waits until a file is there."""

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


def submitter(*arguments, out, cache, patch="", **process):
    """A submitter, as a process of its own; `process` is for `Popen`.

    `patch` is code that changes `submit`.
    """
    code = MAIN.format("; ".join(filter(None, (QUICK, patch))))
    command = [sys.executable, "-c", code, "run"]
    command += ["--suite", "smoke", "--out", out, "--cache", cache]
    command += ["--device", "cpu", "--workers", "1"]
    command += [part for key in SHORT for part in ("--set", key)]
    command += arguments
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*map(str, command)], **pipes, **process)


def ended(process):
    """The status of a submitter, what it printed, and its messages."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def waiting_method(folder):
    """A file of a method that waits, the file of its processes, and what lets it go on."""
    begun, go = folder / "begun", folder / "go"
    path = folder / "waits.py"
    path.write_text(WAITS.format(begun=str(begun), go=str(go)))
    return path, begun, go.touch


def until(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too late"
        time.sleep(0.1)


def claim(out, name, generation=0):
    return out / "smoke" / claims.FOLDER / f"{name}.{generation}"


def held(out):
    """The claims that there are."""
    return list((out / "smoke" / claims.FOLDER).iterdir())


def two_of_twelve_cells(submitters, bench_run, tmp_path, out):
    """The messages of two submitters, whose leaderboard is that of a serial run."""
    both = [submitters("--methods", *TWELVE) for _ in range(2)]
    outcomes = [ended(process) for process in both]
    alone = tmp_path / "alone"
    serial = bench_run(*TWELVE, "--workers", "1", out=alone, cache=tmp_path / "own")
    assert serial.status == 0
    assert [outcome[:2] for outcome in outcomes] == 2 * [(0, serial.out)], outcomes
    assert len(values(out)) == 12
    assert values(out) == values(alone)
    boards = [leaderboard(folder / "smoke", clock=False) for folder in (out, alone)]
    assert boards[0] == boards[1]
    assert held(out) == []
    return [err for _, _, err in outcomes]


def lines(path):
    return path.read_text().split() if path.exists() else []


def age(path):
    """Make a claim one of a worker that gave no sign of life for too long."""
    date = time.time() - OLD
    os.utime(path, (date, date))
