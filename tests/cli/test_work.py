"""Several workers on one matrix: the same records as one run, whoever ends when."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support import SHORT, leaderboard, values

from bench.commands.request import Cell, Request
from bench.commands.work import _Queue
from bench.runtime import claims
from bench.runtime.claims import Claims
from bench.runtime.progress import Reporter, Stage

SETS = [part for key in SHORT for part in ("--set", key)]
TWELVE = ("--methods", "rotation,imagenet,random_init", "--tasks", "voc_cls,voc_cls_finetune")
TWELVE = (*TWELVE, "--seeds", "2")
LIGHT = ("--methods", "imagenet,random_init", "--tasks", "voc_cls")  # no training
OLD = 601  # seconds


def options(out, cache, *selection):
    places = ["--suite", "smoke", "--out", str(out), "--cache", str(cache), "--device", "cpu"]
    return [*selection, *places, "--workers", "1", *SETS]


def start(*arguments):
    """A worker, as a process of its own."""
    command = [sys.executable, "-m", "bench", "work", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def until(condition, process, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too late"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def records(out):
    return sorted(path.parent.name for path in out.glob("smoke/*/*/seed*.json"))


def age(path, seconds):
    date = time.time() - seconds
    os.utime(path, (date, date))


def hold(out, *names, at=None):
    """Claims of another worker, which is alive."""
    other = Claims(out / "smoke" / claims.FOLDER, 600, lambda name: at, lambda name: None)
    for name in names:
        assert other.take(name)
        other._renew(name)
    return other


@pytest.mark.slow
def test_shards_side_by_side_give_what_one_run_gives(bench, bench_run, cache, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    run = bench_run(TWELVE[1], *TWELVE[2:], "--workers", "1", out=alone, cache=tmp_path / "own")
    assert run.status == 0
    asked = options(together, tmp_path / "other", *TWELVE)
    workers = [start(*asked, "--shard", f"{index}/2") for index in range(2)]
    said = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert [text.count("6 recorded, 0 failed, 0 not recorded yet") for text in said] == [1, 1]
    assert not list((together / "smoke").glob("*.md")), "a worker renders nothing"
    assert list((together / "smoke" / claims.FOLDER).iterdir()) == []
    assert bench("leaderboard", "--out", together).status == 0
    assert len(values(together)) == 12
    assert values(together) == values(alone)
    folders = [out / "smoke" for out in (together, alone)]
    assert leaderboard(folders[0], clock=False) == leaderboard(folders[1], clock=False)


@pytest.mark.slow
def test_workers_on_the_same_cells_compute_each_once(tmp_path):
    asked = options(tmp_path / "out", tmp_path / "cache", *LIGHT, "--seeds", "3")
    workers = [start(*asked) for _ in range(2)]
    said = [worker.communicate()[1] for worker in workers]
    statuses = [worker.returncode for worker in workers]
    assert {0} <= {*statuses} <= {0, 75}, said
    lines = [line for text in said for line in text.splitlines() if ": mAP " in line]
    assert len(lines) == len({line.split(":")[0] for line in lines}) == 6
    assert len(records(tmp_path / "out")) == 6
    for text, status in zip(said, statuses, strict=True):
        assert ("0 not recorded yet" in text) == (status == 0)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_when_its_claim_is_old(bench, cache, tmp_path):
    out = tmp_path / "out"
    asked = options(out, cache, "--methods", "rotation,random_init", "--tasks", TWELVE[3])
    worker = start(*asked)
    rotation = out / "smoke" / claims.FOLDER / "rotation-seed0.0"
    until(rotation.exists, worker)
    worker.kill()
    worker.communicate()
    assert records(out) == ["random_init", "random_init"]
    age(rotation, 10)
    early = bench("work", *asked)
    assert early.status == 75
    assert (
        f"rotation-seed0: 2 of its cells not recorded yet, {os.uname().nodename} pid" in early.err
    )
    assert "2 recorded, 0 failed, 2 not recorded yet" in early.err
    age(rotation, OLD)
    shown = bench("status", *asked).out
    assert "claim rotation-seed0: " in shown and "gave no sign of life for 10 min" in shown
    late = bench("work", *asked)
    assert late.status == 0
    assert "4 cells, 2 up to date, 2 to run" in late.err
    assert len(values(out)) == 4
    assert not list(rotation.parent.iterdir())


@pytest.mark.slow
def test_a_worker_leaves_what_another_one_has(bench, cache, tmp_path):
    asked = options(tmp_path, cache, *LIGHT)
    other = hold(tmp_path, "imagenet-seed0")
    done = bench("work", *asked)
    assert done.status == 75
    assert records(tmp_path) == ["random_init"]
    other.release("imagenet-seed0")
    assert bench("work", *asked).status == 0
    assert records(tmp_path) == ["imagenet", "random_init"]
    again = bench("work", *asked)
    assert again.status == 0
    assert "2 recorded, 0 failed" in again.err


BROKEN = '''"""A method that fails."""


class Broken:
    reference = "none"
    version = 1
    datasets = ()

    def pretrain(self, context):
        {body}
'''


@pytest.fixture
def broken(tmp_path, own_plugins):
    def write(body):
        path = tmp_path / "broken.py"
        path.write_text(BROKEN.format(body=body))
        return ("--methods", f"{path},random_init", "--tasks", "voc_cls")

    return write


def test_a_cell_that_fails_is_recorded_and_fails_alone(bench, broken, cache, tmp_path):
    asked = options(tmp_path, cache, *broken("raise ValueError('first\\nand last')"))
    done = bench("work", *asked)
    assert done.status == 1
    assert "1 recorded, 1 failed, 0 not recorded yet" in done.err
    shown = bench("status", *asked).out
    assert "1 done, 0 running, 1 failed, 0 stale, 0 to do" in shown
    assert "voc_cls/broken/seed0       failed: and last" in shown
    assert bench("work", *asked).err.count("FAILED") == 1, "the same command tries it again"


def test_what_fails_elsewhere_meanwhile_is_not_tried_again(bench, broken, cache, tmp_path, smoke):
    asked = options(tmp_path, cache, *broken("raise ValueError"))
    request = Request(smoke, ("broken",), ("voc_cls",), (0,), None, tmp_path, cache, "cpu")
    cell = Cell("broken", "voc_cls", 0)
    queue = _Queue([cell], request, Reporter())
    assert bench("work", *asked).status == 1
    with Claims(queue.folder, 600, queue.progress, queue.lost) as queue.claims:
        assert queue.following() == []
    assert queue.status([cell]) == 1
    retried = _Queue([cell], request, Reporter())
    with Claims(retried.folder, 600, retried.progress, retried.lost) as retried.claims:
        assert retried.following() == [cell]
    assert retried.status([cell]) == 75, "it has yet to be tried again"


SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=["TERM", "USR1", "USR2"])
def test_a_signal_asks_for_the_work_to_be_queued_again(bench, broken, cache, tmp_path, number):
    body = f"import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(30)"
    done = bench("work", *options(tmp_path, cache, *broken(body)))
    assert (done.status, done.error) == (
        75,
        "bench: interrupted; run the same command again to resume",
    )
    assert list((tmp_path / "smoke" / claims.FOLDER).iterdir()) == [], "others may go on at once"
    assert signal.getsignal(number) == signal.SIG_DFL


def test_ctrl_c_is_what_it_is_elsewhere(bench, broken, cache, tmp_path):
    body = "import os, time; os.kill(os.getpid(), 2); time.sleep(30)"
    assert bench("work", *options(tmp_path, cache, *broken(body))).status == 130


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=["TERM", "USR1", "USR2"])
def test_a_signal_at_the_very_start_does_so_too(number, tmp_path):
    code = "import bench.__main__ as m; print('>', flush=True); m.main()"
    command = [sys.executable, "-c", code, "work", *options(tmp_path, tmp_path, *LIGHT)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.read(1) == ">"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()[-1][:18]) == (75, "bench: interrupted")


def test_a_worker_whose_claim_was_taken_over_ends(bench, broken, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.05)
    folder = tmp_path / "smoke" / claims.FOLDER
    taken = f"open({str(folder / 'broken-seed0.1')!r}, 'x')"
    body = f"import time; {taken}; time.sleep(30)"
    done = bench("work", *options(tmp_path, cache, *broken(body)))
    assert done.status == 75
    assert "broken-seed0: another worker took it over, as this one gave no sign of life" in done.err
    assert {path.name for path in folder.iterdir()} == {"broken-seed0.0", "broken-seed0.1"}


@pytest.mark.slow
def test_several_encoders_of_a_worker_are_computed_side_by_side(bench, cache, tmp_path):
    asked = options(tmp_path, cache, *LIGHT, "--seeds", "2")
    hold(tmp_path, "imagenet-seed1")
    done = bench("work", *asked, "--workers", "2")
    assert done.status == 75
    assert "3 recorded, 0 failed, 1 not recorded yet" in done.err
    names = [path.name for path in (tmp_path / "smoke" / claims.FOLDER).iterdir()]
    assert names == ["imagenet-seed1.0"]


def test_status_says_who_is_at_what(bench, cache, tmp_path):
    asked = options(tmp_path, cache, "--methods", "random_init", "--tasks", TWELVE[3])
    stage = Stage("random_init x voc_cls, seed 0: features", 30, 120, 300.0)
    hold(tmp_path, "random_init-seed0", at=("random_init x voc_cls, seed 0", stage))
    shown = bench("status", *asked)
    me = f"{os.uname().nodename} pid {os.getpid()}, for 10 s"
    assert shown.status == 0
    assert "0 done, 1 running, 0 failed, 0 stale, 1 to do" in shown.out
    assert f"running: {me}; features, 25%, about 5 min left of this stage" in shown.out
    assert f"to do: with {me}" in shown.out
    first, second = json.loads(bench("status", *asked, "--json").out)["cells"]
    assert (first["state"], second["state"]) == ("running", "to do")
    assert first["worker"]["share_done"] == 0.25
    assert first["worker"]["pid"] == os.getpid()
    assert second["worker"]["cell"] == "random_init x voc_cls, seed 0"


def test_status_names_records_of_other_settings(bench, cache, tmp_path):
    asked = options(tmp_path, cache, "--methods", "random_init", "--tasks", "voc_cls")
    assert bench("work", *asked).status == 0
    assert "1 done, 0 running, 0 failed, 0 stale, 0 to do" in bench("status", *asked).out
    shown = bench("status", *asked, "--set", "pretraining.views=128").out
    assert "0 done, 0 running, 0 failed, 1 stale, 0 to do" in shown
    assert "stale: " in shown and "has other settings of suite smoke" in shown


STATUS = """
import atexit, sys
from bench.cli import main
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
main()
"""


def test_status_reads_files_alone(bench, cache, tmp_path):
    asked = options(tmp_path, cache, *LIGHT)
    assert bench("plan", *asked).status == 0
    hold(tmp_path, "random_init-seed0")
    command = [sys.executable, "-c", STATUS, "status", *asked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "2 to do" in done.stdout
    assert done.stderr.strip() == "False", "torch was imported"


def test_a_plan_has_what_a_worker_needs(bench, cache, tmp_path):
    asked = options(tmp_path, cache, *LIGHT, "--seeds", "2")
    plan = json.loads(bench("plan", *asked, "--json").out)
    assert not list(tmp_path.rglob("*.json")), "nothing is computed"
    assert [cell["id"] for cell in plan["cells"]] == [
        *("voc_cls/imagenet/seed0", "voc_cls/imagenet/seed1"),
        *("voc_cls/random_init/seed0", "voc_cls/random_init/seed1"),
    ]
    assert plan["cells"][1] == {
        "id": "voc_cls/imagenet/seed1",
        "method": "imagenet",
        "task": "voc_cls",
        "seed": 1,
        "group": "imagenet-seed1",
        "up_to_date": False,
        "needs": {"device": "cpu"},
        "hours": None,
    }
    assert plan["suite_settings"]["pretraining"]["views"] == 64
    assert plan["records"] == str(tmp_path / "smoke")
    file = tmp_path / "plan.json"
    plan["cells"] = plan["cells"][1:3]
    file.write_text(json.dumps(plan))
    done = bench("work", *plan["arguments"], "--cells", file)
    assert done.status == 0
    assert records(tmp_path) == ["imagenet", "random_init"]
    again = json.loads(bench("plan", *asked, "--json").out)
    assert [cell["up_to_date"] for cell in again["cells"]] == [False, True, True, False]
    text = bench("plan", *asked).out
    assert "4 cells, 2 up to date, 2 to run" in text
    assert "voc_cls/random_init/seed0  up to date" in text


def test_a_plan_estimates_hours_where_a_suite_was_measured(bench, cache, tmp_path):
    asked = ["--methods", "rotation", "--tasks", "voc_cls", "--out", tmp_path, "--cache", cache]
    plan = json.loads(bench("plan", *asked, "--json").out)
    assert all(0 < cell["hours"] < 1 for cell in plan["cells"])
    assert plan["cells"][0]["needs"] == {"device": "auto"}


def test_one_seed_alone(bench, cache, tmp_path):
    asked = options(tmp_path, cache, "--methods", "random_init", "--tasks", "voc_cls")
    assert bench("run", *asked, "--seed", "3").status == 0
    assert [path.name for path in tmp_path.rglob("seed*.json")] == ["seed3.json"]
    assert "voc_cls/random_init/seed0  to run" in bench("plan", *asked, "--seed", "0").out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--shard", "2/2"), "--shard 2/2: write I/N with I from 0 to N-1, for example 0/4"),
        (("--shard", "one"), "--shard one: write I/N with I from 0 to N-1, for example 0/4"),
        (("--seed", "1", "--seeds", "2"), "--seed 1: must be less than 1000, and without --seeds"),
        (("--seed", "1000"), "--seed 1000: must be less than 1000, and without --seeds"),
        (("--shard", "0/2", "--cells", "a.json"), "--cells and --shard: give one of them"),
        (("--cells", "absent.json"), "absent.json: cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_request_is_one_line(bench, cache, tmp_path, wrong, message):
    done = bench("work", *options(tmp_path, cache, *LIGHT), *wrong)
    assert (done.status, done.error) == (2, f"bench: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        (
            "",
            ("--set", "tasks.voc_cls.dimensions=77"),
            "was planned with other settings than suite",
        ),
        ("", ("--seed", "5"), "voc_cls/imagenet/seed0 is none of the cells here"),
        ("[1]", (), "is no plan; make one with bench plan --json"),
        ('{"cells": [3], "suite_settings": 1}', (), "is no plan; make one with bench plan --json"),
    ],
)
def test_a_plan_of_another_request_is_refused(bench, cache, tmp_path, change, asked, message):
    places = options(tmp_path / "out", cache, *LIGHT)
    file = tmp_path / "plan.json"
    file.write_text(change or bench("plan", *places, "--json").out)
    done = bench("work", *places, *asked, "--cells", file)
    assert done.status == 2
    assert done.error.startswith(f"bench: --cells {file}: ") and message in done.error
