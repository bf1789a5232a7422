"""Loaders and workers under every way to start a process: the same numbers."""

import subprocess
import sys

import pytest
from support import SHORT, values

SMALLER = [
    *SHORT,
    "recipes.rotation.views=32",
    *(f"tasks.{task}.views=8" for task in ("voc_det", "voc_seg", "voc_cls_finetune")),
    "tasks.voc_cls.costs=[0.1]",
    "datasets.voc.min_positives=1",
    "synthetic.pretraining=16",
    "synthetic.validation=16",
    "synthetic.train=32",
    "synthetic.test=32",
]
# The cells of one encoder: `bench run` would add those of the untrained one. One thread and two
# cores for loaders: at least one loader process wherever this runs.
CODE = f"""
import multiprocessing
import sys
from pathlib import Path

import bench.runtime.workers

multiprocessing.set_start_method(sys.argv[1])
multiprocessing.set_forkserver_preload(["torch"])
bench.runtime.workers.cores = lambda: 2
from bench.commands.execute import compute
from bench.commands.request import Cell, Request
from bench.config import loader
from bench.runtime.progress import Reporter

tasks = ("voc_cls", "voc_cls_finetune", "voc_seg", "voc_det")
suite = loader.load("smoke", {SMALLER!r})
out, cache = map(Path, sys.argv[2:])
request = Request(suite, ("rotation",), tasks, (0,), None, out, cache, "cpu")
compute([Cell("rotation", task, 0) for task in tasks], request, Reporter())
"""


def run(start_method, out, cache):
    done = subprocess.run(
        [sys.executable, "-c", CODE, start_method, out, cache],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return values(out)


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forked")
    return run("fork", folder / "out", folder / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_every_task_gives_the_same_under_any_start_method(start_method, forked, tmp_path):
    results = run(start_method, tmp_path / "out", tmp_path / "cache")
    assert [record["status"] for record in results] == ["ok"] * 4
    assert results == forked
