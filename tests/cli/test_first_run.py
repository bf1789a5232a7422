"""What a user sees of a run while it goes on, and what it leaves where it is stopped."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from support import SHORT, forge

from bench import plugins
from bench.commands import estimate, plan
from bench.commands.request import Request
from bench.config import loader
from bench.reporting import publish
from bench.results import storage

LONG_NAME = "random_init-above_diagonal-below_diagonal"


def request(tmp_path, methods, tasks=("voc_cls",), seeds=(0,)):
    smoke = loader.load("smoke", SHORT)
    return Request(smoke, methods, tasks, seeds, None, tmp_path / "out", tmp_path / "cache", "cpu")


def test_references_come_first_then_untrained_rows(tmp_path):
    methods = ("rotation", "split_brain", "random_init", "supervised", "imagenet")
    cells = plan.cells(request(tmp_path, methods, seeds=(0, 1)))
    assert list(dict.fromkeys(cell.method for cell in cells)) == [
        *("imagenet", "random_init", "random_init-L-ab"),
        *("rotation", "split_brain", "supervised"),
    ]


def test_the_attributes_of_a_method_decide_the_order_not_its_name(tmp_path, own_plugins):
    for name, attributes in {
        "a_pretrained": {},
        "last_by_name": {"reference_row": True, "datasets": ()},
        "not_trained": {"untrained": True, "datasets": ()},
    }.items():
        plugins.add_object("methods", name, type("Own", (), attributes))
    names = ("a_pretrained", "not_trained", "last_by_name", "random_init")
    cells = plan.cells(request(tmp_path, names))
    assert [cell.method for cell in cells] == [
        *("last_by_name", "not_trained", "random_init", "a_pretrained")
    ]


def test_every_row_is_printed_and_on_the_page_when_its_cell_is_finished(
    bench_run, tmp_path, monkeypatch
):
    seen = []
    write = publish.write_without_plots

    def noted(leaderboard, folder):
        write(leaderboard, folder)
        text = (folder / "LEADERBOARD.md").read_text()
        assert ".svg" not in text, "nothing is shown that is not there yet"
        assert '<figure class="plot' not in (folder / "leaderboard.html").read_text()
        seen.append(len(list(csv.DictReader((folder / "leaderboard.csv").open()))))

    monkeypatch.setattr(publish, "write_without_plots", noted)
    done = bench_run("rotation,imagenet")
    assert seen == [1, 2, 3]
    rows = [line for line in done.err.splitlines() if " x voc_cls: mAP " in line]
    assert [line.split()[0] for line in rows] == ["imagenet", "random_init", "rotation"]
    assert "gap to ImageNet" not in rows[0]
    assert all("], gap to ImageNet" in line for line in rows[1:])
    assert [line.split("; ")[1] for line in rows] == [
        "1 of 3 cells",
        "2 of 3 cells",
        "3 of 3 cells",
    ]
    folder = tmp_path / "out/smoke"
    assert f"leaderboard: {folder / 'leaderboard.html'}" in done.err
    assert "gap_voc_cls.svg" in (folder / "LEADERBOARD.md").read_text()


def test_a_leaderboard_that_cannot_be_rendered_stops_no_cell(bench_run, tmp_path, monkeypatch):
    def fail(leaderboard, folder):
        raise RuntimeError("no space")

    monkeypatch.setattr(publish, "write_without_plots", fail)
    done = bench_run("random_init,imagenet")
    assert done.status == 0
    assert done.err.count("the leaderboard was not rendered: no space") == 2
    assert (tmp_path / "out/smoke/leaderboard.html").exists()


def test_the_features_of_a_finished_encoder_are_removed(bench_run, tmp_path):
    cache = tmp_path / "cache"
    assert bench_run("random_init,imagenet", cache=cache).status == 0
    assert not list(cache.glob("features/*/*"))
    assert list(cache.glob("scenes/*/"))


@pytest.mark.parametrize("columns", ["80", None])
def test_the_table_fits_80_columns(bench_run, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    done = bench_run(f"imagenet,random_init,{LONG_NAME}")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = (line for line in lines if line.startswith(LONG_NAME + " "))
    assert row.count("[") == 2, "score and gap are beside the name"


# Stopped runs ---------------------------------------------------------------------------------

SLOW = [*SHORT, "recipes.rotation.views=100_000"]


def start(out, cache, workers):
    sets = [part for key in SLOW for part in ("--set", key)]
    what = ["run", "--methods", "rotation,imagenet", "--tasks", "voc_cls", "--suite", "smoke"]
    where = ["--out", str(out), "--cache", str(cache), "--device", "cpu", "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *what, *where, *sets],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # Where these tests run in the background, Ctrl-C is ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def rows_of(folder):
    path = folder / "leaderboard.csv"
    return [row["method"] for row in csv.DictReader(path.open())] if path.exists() else []


def page_of(folder):
    path = folder / "leaderboard.html"
    return path.read_text().replace("<wbr>", "") if path.exists() else ""


def wait_for(condition, process):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status", "workers"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 2), (signal.SIGKILL, -9, 1)],
)
def test_a_stopped_run_leaves_a_leaderboard_of_the_finished_rows(
    tmp_path, cache, sent, status, workers
):
    folder = tmp_path / "smoke"
    process = start(tmp_path, cache, workers)
    names = ("imagenet", "random_init")
    wait_for(lambda: all(f'data-method="{name}"' in page_of(folder) for name in names), process)
    if sent == signal.SIGKILL:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert sorted(rows_of(folder)) == ["imagenet", "random_init"]
    assert all(f'data-method="{name}"' in page_of(folder) for name in names)
    assert len(storage.read_all(folder)) == 2
    if sent != signal.SIGKILL:
        assert err.splitlines()[-1] == (
            f"bench: interrupted; leaderboard of 2 finished rows: {folder}/leaderboard.html; "
            "run the same command again to resume"
        )
        assert "gap_voc_cls.svg" in (folder / "LEADERBOARD.md").read_text()


@pytest.mark.slow
def test_a_run_that_is_stopped_before_its_first_row_says_so(tmp_path, cache):
    process = start(tmp_path, cache, workers=1)
    wait_for(lambda: (tmp_path / "smoke").exists(), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert err.splitlines()[-1].startswith("bench: interrupted; ")
    assert "Traceback" not in err


# Dry runs -------------------------------------------------------------------------------------

COSTS = estimate.Costs(
    machine="a laptop",
    seconds_once=60.0,
    seconds_per_1000_views={"rotation": 2000.0, "bigan": 4000.0, "jigsaw": 10_000.0},
    seconds_per_row={"voc_cls": 20.0},
    megabytes={"images": 10.0, "encoder": 12.0, "record": 2.0, "in_flight": 100.0},
)


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(estimate, "load", lambda suite: COSTS if suite == "smoke" else None)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(bench_run, measured, tmp_path):
    out = tmp_path / "out"
    new_cache = tmp_path / "cache"
    done = bench_run("rotation,supervised", "--dry-run", out=out, cache=new_cache)
    assert done.status == 0
    assert not list(tmp_path.iterdir()), "no folder either"
    text = done.out
    assert "3 cells, 0 up to date, 3 to run" in text
    assert "  random_init x voc_cls, seed 0: to run, about 20 s" in text
    assert "  rotation x voc_cls, seed 0: to run, about 2 min" in text  # 64 views: 128 s
    assert "  supervised x voc_cls, seed 0: to run, about 5 min" in text  # the median of the others
    assert "time: about 8 min (as measured on a laptop)" in text
    assert f"disk: 134 MB in {new_cache} while it runs, 34 MB afterwards, " in text
    assert f"6 MB in {out / 'smoke'}, " in text
    assert "nothing was computed or written" in text


def test_a_dry_run_counts_what_is_up_to_date(bench_run, measured):
    assert bench_run("random_init").status == 0
    text = bench_run("random_init,imagenet", "--dry-run").out
    assert "2 cells, 1 up to date, 1 to run" in text
    assert "  random_init x voc_cls, seed 0: up to date" in text
    assert "  imagenet x voc_cls, seed 0: to run, about " in text


def test_the_last_runs_tell_what_the_next_takes(bench_run, measured, tmp_path):
    """Those of the same settings, on the same kind of device."""
    assert bench_run("random_init").status == 0
    path = tmp_path / "out/smoke/voc_cls/random_init/seed0.json"
    record = storage.read(path)
    forge(path, timings=record.timings | {"evaluate": 3600.0})
    asked = ("imagenet,rotation", "--dry-run")
    text = bench_run(*asked).out
    assert "  imagenet x voc_cls, seed 0: to run, about 60 min" in text
    assert "  rotation x voc_cls, seed 0: to run, about 62 min" in text  # 128 s as shipped
    assert f"1 threads and {COSTS.machine})" in text
    assert (
        "imagenet x voc_cls, seed 0: to run, about 60 min"
        in bench_run(*asked, "--device", "auto").out
    )
    assert (
        "imagenet x voc_cls, seed 0: to run, about 20 s"
        in bench_run(*asked, "--device", "cuda").out
    )
    forge(path, environment=record.environment | {"device": "NVIDIA H100"})
    assert "imagenet x voc_cls, seed 0: to run, about 20 s" in bench_run(*asked).out


def test_records_alone_tell_it_where_nothing_is_shipped(bench_run, tmp_path):
    named = [*SHORT, "name='mine'", "pretraining.crop=24"]  # no suite that ships is alike
    assert bench_run("rotation", sets=named).status == 0
    rotation = tmp_path / "out/mine/voc_cls/rotation/seed0.json"
    record = storage.read(rotation)
    forge(rotation, pretraining=replace(record.pretraining, seconds=7200.0))
    for path in (rotation, rotation.parents[1] / "random_init/seed0.json"):
        forge(path, timings=record.timings | {"evaluate": 600.0})
    text = bench_run("rotation,supervised", "--dry-run", "--seed", "1", sets=named).out
    assert "  random_init x voc_cls, seed 1: to run, about 10 min" in text
    assert "  rotation x voc_cls, seed 1: to run, about 2.2 h" in text
    assert "  supervised x voc_cls, seed 1: to run, about 2.2 h" in text  # the median of the others
    assert "disk: unknown until it runs" in text


def test_an_encoder_that_is_kept_is_not_trained_again(bench_run, tmp_path):
    cache, folder = tmp_path / "cache", tmp_path / "out/smoke"
    asked = ("rotation", "--tasks", "voc_cls,knn")
    assert bench_run(*asked, cache=cache).status == 0
    (folder / "knn/rotation/seed0.json").unlink()
    trained = folder / "voc_cls/rotation/seed0.json"
    untrained = folder / "knn/random_init/seed0.json"
    forge(trained, pretraining=replace(storage.read(trained).pretraining, seconds=7200.0))
    forge(untrained, timings=storage.read(untrained).timings | {"evaluate": 600.0})
    line = "  rotation x knn, seed 0: to run, about "
    assert f"{line}10 min" in bench_run(*asked, "--dry-run", cache=cache).out
    assert f"{line}2.2 h" in bench_run(*asked, "--dry-run", cache=tmp_path / "empty").out


def test_pretraining_takes_what_it_does_in_a_suite_that_is_alike(bench_run, measured, tmp_path):
    named = [*SHORT, "name='mine'"]
    assert bench_run("random_init", sets=named).status == 0
    path = tmp_path / "out/mine/voc_cls/random_init/seed0.json"
    forge(path, timings=storage.read(path).timings | {"evaluate": 600.0})
    text = bench_run("rotation", "--dry-run", sets=named).out
    assert "  rotation x voc_cls, seed 0: to run, about 12 min" in text  # 128 s as shipped
    assert f"1 threads and {COSTS.machine})" in text
    other = [*named, "pretraining.crop=48"]
    text = bench_run("rotation", "--dry-run", out=tmp_path / "other", sets=other).out
    assert "rotation x voc_cls, seed 0: to run, unknown until it runs" in text


def test_what_was_never_measured_is_unknown(bench_run, measured):
    named = [*SHORT, "name='mine'"]
    text = bench_run("random_init", "--dry-run", sets=named).out
    assert "random_init x voc_cls, seed 0: to run, unknown until it runs" in text
    assert "time: unknown until it runs" in text
    assert "disk: unknown until it runs" in text
    text = bench_run("random_init", "--dry-run", "--tasks", "voc_seg").out
    assert "time: unknown until it runs" in text


def test_the_costs_of_records_are_those_that_were_measured(bench_run, tmp_path):
    assert bench_run("rotation").status == 0
    records = list(storage.read_all(tmp_path / "out/smoke").values())
    costs = estimate.measure(records, 12.34, {"images": 1.0})
    (rotation,) = (record for record in records if record.method == "rotation")
    rate = 1000 * rotation.pretraining.seconds / 64
    assert costs.seconds_per_1000_views == {"rotation": pytest.approx(rate, abs=0.01)}
    assert set(costs.seconds_per_row) == {"voc_cls"}
    assert costs.seconds_once == 12.3
    assert costs.machine.endswith("threads")


@pytest.mark.parametrize("suite", ["mini", "tiny"])
def test_the_shipped_costs_are_of_every_shipped_method_and_task(suite):
    costs = estimate.load(suite)
    trained = [
        m
        for m in plugins.names("methods")
        if plugins.describe("methods", m).trains_on_suite
        and not plan.needed_backbone(m, loader.load(suite))
    ]
    assert {*costs.seconds_per_row} == {*plugins.names("tasks")}
    assert all(costs.pretraining(method, 1000) > 0 for method in trained)
