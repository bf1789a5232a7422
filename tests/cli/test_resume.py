"""A run that is killed and started again ends like one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support import SHORT, leaderboard, values

from bench.commands.execute import compute
from bench.commands.request import Cell, Request
from bench.runtime import partial
from bench.runtime.progress import Reporter

SLOWER = [*SHORT, "recipes.rotation.views=3000", "synthetic.test=200"]
SLOWER += ["tasks.voc_cls.dimensions=512", "tasks.voc_cls.costs=[0.01, 0.1, 1.0, 10.0, 100.0]"]


def command(out, cache):
    sets = [part for key in SLOWER for part in ("--set", key)]
    places = ["--out", str(out), "--cache", str(cache), "--device", "cpu"]
    what = ["run", "--methods", "rotation,random_init,imagenet", "--tasks", "voc_cls"]
    what += ["--suite", "smoke"]
    return [sys.executable, "-m", "bench", *what, *places, *sets]


def kill_when(condition, out, cache):
    """Start the run and SIGKILL it, with its workers, as soon as the condition holds."""
    process = subprocess.Popen(
        command(out, cache), stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_with_nothing_to_do_sweeps_what_a_killed_one_left(bench_run, tmp_path, monkeypatch):
    where = {"out": tmp_path / "out", "cache": tmp_path / "cache"}
    assert bench_run("random_init", **where).status == 0
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "pymp-left"
    half = tmp_path / "cache/features/partial-half-left"
    for folder in (left, half):
        folder.mkdir()
    (left / partial.OWN).touch()
    again = bench_run("random_init", **where)
    assert "1 cell, 1 up to date, 0 to run" in again.err
    assert not left.exists()
    assert not half.exists()


def test_features_are_removed_before_the_last_record_is_shown(smoke, tmp_path):
    """A run that is killed while it renders leaves none."""
    request = Request(
        smoke, ("random_init",), ("voc_cls",), (0,), None, tmp_path / "out", tmp_path, "cpu"
    )
    shown = []
    compute(
        [Cell("random_init", "voc_cls", 0)],
        request,
        Reporter(),
        announce=lambda *_: shown.append(list(tmp_path.glob("features/*/"))),
    )
    assert shown == [[]]
    assert list(tmp_path.glob("features/*.lock"))


@pytest.mark.slow
def test_a_run_killed_at_any_stage_ends_like_an_undisturbed_one(tmp_path):
    cache, other = tmp_path / "cache", tmp_path / "other"
    whole = subprocess.run(command(tmp_path / "whole", other), stderr=subprocess.PIPE, check=True)
    assert b"rotation" in whole.stderr
    shutil.copytree(other / "scenes", cache / "scenes")

    def some(pattern, at_least=1):
        return lambda: len(list(cache.glob(pattern))) >= at_least

    out = tmp_path / "killed"

    def recorded():
        return sorted(path.parent.name for path in out.rglob("seed*.json"))

    training = some("checkpoints/*.pt")
    kill_when(lambda: training() and len(recorded()) == 2, out, cache)
    assert recorded() == ["imagenet", "random_init"]
    kill_when(some("features/partial-*"), out, cache)
    kill_when(some("features/*/stages.json", 2), out, cache)  # both splits done: probing
    assert recorded() == ["imagenet", "random_init"]
    resumed = subprocess.run(command(out, cache), stderr=subprocess.PIPE, check=True)
    assert b"3 cells, 2 up to date" in resumed.stderr
    assert values(out / "smoke") == values(tmp_path / "whole/smoke")
    assert leaderboard(out / "smoke", clock=False) == leaderboard(
        tmp_path / "whole/smoke", clock=False
    )
    assert not list(cache.glob("checkpoints/*.pt"))
    assert not list(cache.glob("features/*/*")), "neither whole nor partial ones are left"
