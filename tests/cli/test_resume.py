"""A run that is killed and started again ends like one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time

from support import SMOKE, board, values

SLOWER = [*SMOKE, "recipes.rotation.images=3000", "scenes.test=200", "probe.dimensions=512"]
SLOWER += ["probe.costs=[0.01, 0.1, 1.0, 10.0, 100.0]"]


def command(out, cache):
    sets = [part for key in SLOWER for part in ("--set", key)]
    places = ["--out", str(out), "--cache", str(cache), "--device", "cpu"]
    what = ["run", "--methods", "rotation,random_init,imagenet", "--tasks", "voc_cls"]
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


def test_a_run_killed_at_any_stage_ends_like_an_undisturbed_one(tmp_path):
    cache, other = tmp_path / "cache", tmp_path / "other"
    whole = subprocess.run(command(tmp_path / "whole", other), stderr=subprocess.PIPE, check=True)
    assert b"rotation" in whole.stderr
    shutil.copytree(other / "scenes", cache / "scenes")

    def some(pattern, at_least=1):
        return lambda: len(list(cache.glob(pattern))) >= at_least

    out = tmp_path / "killed"
    kill_when(some("checkpoints/*.pt"), out, cache)
    assert not list(out.rglob("seed*.json"))
    kill_when(some("features/partial-*"), out, cache)
    kill_when(some("features/*/stages.json", 2), out, cache)  # both lists done: probing
    assert not list(out.rglob("seed*.json"))
    resumed = subprocess.run(command(out, cache), stderr=subprocess.PIPE, check=True)
    assert b"3 cells, 0 recorded already" in resumed.stderr
    assert values(out / "mini") == values(tmp_path / "whole/mini")
    assert board(out / "mini", clock=False) == board(tmp_path / "whole/mini", clock=False)
    assert not list(cache.glob("checkpoints/*.pt"))
