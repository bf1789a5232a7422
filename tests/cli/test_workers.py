"""Encoders computed side by side: the same numbers, and one failure alone."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bench.commands import execute
from bench.commands.request import Cell
from bench.runtime.workers import Ended

METHODS = "rotation,colorization,imagenet"
TASKS = ("--tasks", "voc_cls,voc_cls_finetune")


def results(folder):
    """Predictions and values by cell."""
    records = {}
    for path in sorted(folder.rglob("seed0.json")):
        with np.load(path.with_suffix(".npz")) as arrays:
            predictions = {name: arrays[name].tobytes() for name in arrays.files}
        record = json.loads(path.read_text())
        records[path.relative_to(folder)] = (record["value"], predictions)
    return records


@pytest.mark.slow
def test_side_by_side_gives_what_one_after_another_gives(bench_run, tmp_path):
    alone = tmp_path / "alone"
    together = tmp_path / "together"
    first = bench_run(METHODS, *TASKS, out=alone, cache=tmp_path / "a")
    assert first.status == 0
    second = bench_run(METHODS, *TASKS, "--workers", "2", out=together, cache=tmp_path / "b")
    assert second.status == 0, second.err
    assert second.err.count("10 of 10 cells") == 1
    assert "Traceback" not in second.err
    assert results(together) == results(alone)
    assert len(results(alone)) == 10
    threads = {json.loads(p.read_text())["environment"]["threads"] for p in alone.rglob("*0.json")}
    assert threads == {1}


BROKEN = '''"""A method that ends its process."""

import os

import bench


class Broken:
    reference = "none"
    version = 1
    datasets = ()

    def pretrain(self, context):
        os.kill(os.getpid(), 9)
'''


@pytest.mark.slow
def test_a_method_from_a_path_that_kills_its_process_fails_alone(bench_run, tmp_path, own_plugins):
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    done = bench_run(f"{path},random_init,imagenet", "--workers", "2", out=tmp_path / "out")
    assert done.status == 1
    assert "broken x voc_cls, seed 0: FAILED: signal 9 ended its process" in done.err
    record = json.loads((tmp_path / "out/smoke/voc_cls/broken/seed0.json").read_text())
    assert record["status"] == "failed"
    assert sorted(p.parent.name for p in (tmp_path / "out").rglob("seed0.npz")) == [
        "imagenet",
        "random_init",
    ]


def test_what_a_killed_process_had_recorded_stays(monkeypatch):
    """A cell that failed before is not replaced by the failure of its process."""
    first = Cell("rotation", "voc_cls", 0)
    second = Cell("rotation", "voc_seg", 0)
    outcomes = [(0, (first, "failed for a reason")), (0, Ended(-9))]

    def lost(jobs, *_):
        list(jobs)
        yield from outcomes

    monkeypatch.setattr(execute.processes, "compute", lost)
    monkeypatch.setattr(execute, "_about_method", lambda *_: {})
    monkeypatch.setattr(execute, "_save_failure", lambda cell, *_: f"{cell} was lost")
    job = SimpleNamespace(start=None, workers=2, request=None, context=lambda *_: None)
    results = list(execute._side_by_side([[first, second]], job, None))
    assert results == [(first, "failed for a reason"), (second, f"{second} was lost")]


@pytest.mark.parametrize("option", ["--workers", "--threads"])
def test_numbers_below_the_least_are_refused(bench_run, option):
    done = bench_run("imagenet", option, "-1")
    assert done.status == 2
