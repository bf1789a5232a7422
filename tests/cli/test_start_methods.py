"""Loaders and workers under every way to start a process: the same numbers."""

import os
import subprocess
import sys

import pytest
from support import SHORT, values

TASKS = "voc_cls,voc_cls_finetune,voc_seg,voc_det"
CODE = """
import multiprocessing
import sys

multiprocessing.set_start_method(sys.argv.pop(1))
from bench.cli import main

main()
"""
# One thread and two cores for loaders: at least one loader process wherever this runs.
LOADERS = "import bench.runtime.workers as w; w.cores = lambda: 2\n"


def run(start_method, out, cache, methods="rotation", *arguments):
    sets = [part for key in SHORT for part in ("--set", key)]
    where = ["--suite", "smoke", "--device", "cpu", "--out", out, "--cache", cache]
    what = ["run", "--methods", methods, "--tasks", TASKS, *where, *sets, *arguments]
    return subprocess.run(
        [sys.executable, "-c", LOADERS + CODE, start_method, *map(str, what)],
        capture_output=True,
        text=True,
        env=os.environ | {"SSL_GAP_WORKERS": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def forked(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("forked")
    done = run("fork", folder / "out", folder / "cache")
    assert done.returncode == 0, done.stderr
    return values(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_every_task_gives_the_same_under_any_start_method(start_method, forked, tmp_path):
    done = run(start_method, tmp_path / "out", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert values(tmp_path / "out") == forked
