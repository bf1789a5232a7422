"""`bench run` as a user calls it: what it leaves, what it skips, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from support import SMOKE, board

from bench import record


def values(folder):
    """What the records measured, the clock and the machine's state apart."""
    kept = ("method", "seed", "value", "scores", "selection", "data", "encoder", "predictions")
    found = [json.loads(path.read_text()) for path in sorted(folder.rglob("seed*.json"))]
    return [{key: entry[key] for key in kept} for entry in found]


def test_the_main_job_leaves_records_and_a_board(bench_run, tmp_path):
    done = bench_run("random_init,imagenet,rotation,supervised")
    assert done.status == 0, done.err
    folder = tmp_path / "out/mini"
    found = record.read_all(folder)
    assert [path.parent.name for path in found] == [
        "imagenet",
        "random_init",
        "rotation",
        "supervised",
    ]
    for path, entry in found.items():
        assert entry.status == "ok"
        assert 0 <= entry.value <= 100
        arrays = record.read_predictions(path, entry)
        assert arrays["scores"].shape == arrays["truth"].shape
        assert len(arrays["ids"]) == len(arrays["scores"]) == 80
    trained = found[folder / "voc_cls/rotation/seed0.json"]
    assert trained.pretraining.images_seen == 64
    assert "accuracy" in trained.pretraining.monitors
    assert {"corpus", "voc_train", "voc_test"} == {*trained.data}
    text = (folder / "LEADERBOARD.md").read_text()
    assert all(name in text for name in ("imagenet", "random_init", "rotation", "supervised"))
    assert "voc_cls" in done.out
    assert "checking" not in done.out, "stdout carries the table only"

    before = board(folder)
    again = bench_run("rotation,imagenet,supervised,random_init")
    assert again.status == 0
    assert "4 recorded already, 0 to run" in again.err
    assert board(folder) == before


def test_neither_order_nor_company_nor_the_cache_changes_a_number(bench_run, tmp_path):
    for name, methods in {"a": "rotation,random_init", "b": "random_init,rotation"}.items():
        done = bench_run(methods, out=tmp_path / name, cache=tmp_path / f"cache-{name}")
        assert done.status == 0
    assert bench_run("rotation", out=tmp_path / "c", cache=tmp_path / "cache-a").status == 0
    first, second = (values(tmp_path / name / "mini") for name in "ab")
    assert first == second
    assert values(tmp_path / "c/mini") == [
        entry for entry in first if entry["method"] == "rotation"
    ]


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


def test_a_failed_cell_fails_alone_and_is_run_again(bench_run, tmp_path):
    hot = [*SMOKE, "recipes.rotation.learning_rate=1e30", "recipes.rotation.optimiser='sgd'"]
    done = bench_run("rotation,random_init", sets=hot)
    assert done.status == 1
    folder = tmp_path / "out/mini"
    failed = record.read(folder / "voc_cls/rotation/seed0.json")
    assert failed.status == "failed"
    assert "the loss is not finite by step" in failed.error
    assert record.read(folder / "voc_cls/random_init/seed0.json").status == "ok"
    assert "FAILED" in (folder / "LEADERBOARD.md").read_text()
    assert "not finite" in (folder / "LEADERBOARD.md").read_text()
    assert "Traceback" not in done.err
    again = bench_run("rotation,random_init", sets=hot)
    assert "1 recorded already, 1 to run" in again.err


def test_a_workers_error_is_one_line_without_its_traceback(bench_run, tmp_path, monkeypatch):
    def spoilt(image, recipe):
        raise ValueError("cannot crop this")

    monkeypatch.setattr("bench.pretext.random_crop", spoilt)  # workers are forked with it
    assert bench_run("rotation", cache=tmp_path / "cache").status == 1
    failed = record.read(tmp_path / "out/mini/voc_cls/rotation/seed0.json")
    assert failed.error == "ValueError: cannot crop this"


def test_a_record_of_other_settings_is_never_overwritten(bench_run):
    assert bench_run("random_init").status == 0
    done = bench_run("random_init", sets=[*SMOKE, "voc.min_positives=4"])
    assert done.status == 2
    assert "was made by other settings of suite mini" in done.error


def test_a_failed_cell_of_other_settings_does_not_block_the_right_ones(bench_run, tmp_path):
    assert bench_run("random_init", sets=[*SMOKE, "backbone.name='resnet_foo'"]).status == 1
    assert bench_run("random_init").status == 0
    text = (tmp_path / "out/mini/LEADERBOARD.md").read_text()
    assert "FAILED" not in text


def test_a_recipe_of_one_method_leaves_the_others_recorded(bench_run):
    assert bench_run("random_init,rotation").status == 0
    other = [*SMOKE, "recipes.jigsaw.learning_rate=0.5"]
    assert "2 recorded already, 0 to run" in bench_run("random_init,rotation", sets=other).err
    done = bench_run("rotation", sets=[*SMOKE, "recipes.rotation.learning_rate=0.5"])
    assert done.status == 2
    assert "rotation/seed0.json: was trained by another recipe than suite mini now" in done.error


def test_a_changed_method_or_task_version_runs_again(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    path = tmp_path / "out/mini/voc_cls/random_init/seed0.json"
    for key, value in (("method_code", "0" * 64), ("task_code", "0" * 64), ("task_version", 0)):
        entry = json.loads(path.read_text())
        path.write_text(json.dumps(entry | {key: value}))
        assert "0 recorded already, 1 to run" in bench_run("random_init").err
        assert json.loads(path.read_text())[key] == entry[key]


def test_more_seeds_extend_a_run(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    done = bench_run("random_init", "--seeds", "2")
    assert "2 cells, 1 recorded already, 1 to run" in done.err
    row = (tmp_path / "out/mini/leaderboard.csv").read_text().splitlines()[1].split(",")
    assert row[3] == "2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--methods", "rotatoin", "--tasks", "all"], "unknown method 'rotatoin'"),
        (["run", "--methods", "all", "--tasks", "voc_clss"], "unknown task 'voc_clss'"),
        (["run", "--methods", "all", "--tasks", "all", "--suite", "huge"], "unknown suite 'huge'"),
        (["run", "--methods", "all", "--tasks", "all", "--set", "a.b=1"], "unknown key 'a'"),
        (["run", "--methods", "all", "--tasks", "all", "--suite", "tiny"], "--data-root DIR"),
        (["board", "--out", "/nonexistent"], "holds no records"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(bench, arguments, message, tmp_path):
    if "--out" not in arguments:
        arguments = [*arguments, "--out", tmp_path]
    done = bench(*arguments)
    assert done.status == 2
    assert message in done.error
    assert done.error.startswith("bench: ")
    assert done.out == ""


def test_missing_and_empty_data_roots(bench, tmp_path):
    what = ["run", "--methods", "random_init", "--tasks", "all", "--suite", "tiny"]
    what += ["--out", tmp_path / "out"]
    done = bench(*what, "--data-root", tmp_path / "absent")
    assert (done.status, "absent: no such folder" in done.error) == (2, True)
    (tmp_path / "empty").mkdir()
    done = bench(*what, "--data-root", tmp_path / "empty")
    assert (done.status, "empty: the folder is empty" in done.error) == (2, True)


def test_a_truncated_picture_stops_before_training(bench, devkit, tmp_path, cache):
    root = tmp_path / "data"
    shutil.copytree(devkit, root)
    suite = Path(__file__).parents[1] / "bench/suites/mini.toml"
    text = suite.read_text()
    start, end = text.index("[scenes]"), text.index("[corpus]")
    (tmp_path / "own.toml").write_text(text[:start] + text[end:])
    bad = sorted((root / "corpus").glob("*/*.jpg"))[7]
    bad.write_bytes(bad.read_bytes()[:200])
    what = ["run", "--methods", "rotation", "--tasks", "voc_cls", "--suite", tmp_path / "own.toml"]
    what += ["--data-root", root, "--out", tmp_path / "out", "--cache", cache]
    for key in SMOKE:
        what += ["--set", key] if not key.startswith("scenes") else []
    done = bench(*what)
    assert done.status == 2
    assert f"{bad.name}: is truncated" in done.error
    assert "pretraining:" not in done.err
    done = bench(*what, "--set", "corpus.damaged='skip'")
    assert done.status == 0
    entry = record.read(tmp_path / "out/mini/voc_cls/rotation/seed0.json")
    assert entry.flags == ["1 damaged corpus pictures skipped"]
    assert "1 damaged corpus pictures skipped" in (tmp_path / "out/mini/LEADERBOARD.md").read_text()


def test_foreign_files_in_the_cache_are_named(bench_run, tmp_path):
    cache = tmp_path / "cache"
    assert bench_run("rotation", cache=cache).status == 0
    (weights,) = cache.glob("encoders/*.safetensors")
    weights.write_bytes(b"not safetensors")
    done = bench_run("rotation", cache=cache, out=tmp_path / "second")
    assert done.status == 1
    assert f"{weights.name}: not an encoder's file; delete it and run again" in done.err
    weights.unlink()
    checkpoint = cache / "checkpoints" / f"{weights.stem}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    for content, message in (
        (b"junk", "not a checkpoint"),
        (None, "the checkpoint of another run"),
    ):
        if content is None:
            import torch

            torch.save({"key": "other"}, checkpoint)
        else:
            checkpoint.write_bytes(content)
        done = bench_run("rotation", cache=cache, out=tmp_path / "second")
        assert done.status == 1
        assert message in done.err
        assert "delete it and run again" in done.err


def test_no_network_for_hub_weights_fails_that_cell_with_one_line(bench_run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = [*SMOKE, "backbone.imagenet='timm'"]
    done = bench_run("imagenet,random_init", sets=hub)
    assert done.status == 1
    message = "are not in the Hugging Face cache and cannot be downloaded"
    entry = record.read(tmp_path / "out/mini/voc_cls/imagenet/seed0.json")
    assert message in entry.error
    assert "\n" not in entry.error
    assert record.read(tmp_path / "out/mini/voc_cls/random_init/seed0.json").status == "ok"


def test_an_output_folder_that_cannot_be_written(bench_run, tmp_path):
    (tmp_path / "file").write_text("")
    done = bench_run("random_init", out=tmp_path / "file/out")
    assert (done.status, "cannot be written (Not a directory)" in done.error) == (2, True)
    done = bench_run("random_init", out=Path("/proc/bench"))
    assert (done.status, "cannot be written" in done.error) == (2, True)


def test_a_full_disk_is_one_line(bench_run, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, "fsync", full)
    done = bench_run("random_init")
    assert done.status == 2
    assert "seed0.json: cannot be written (No space left on device); see --out" in done.error


def test_an_unknown_device(bench_run):
    done = bench_run("random_init", "--device", "abacus")
    assert (done.status, "--device abacus" in done.error) == (2, True)


def test_list_names_everything(bench):
    done = bench("list")
    assert done.status == 0
    for name in ("rotation", "voc_cls", "mini", "1803.07728"):
        assert name in done.out
    assert "voc_cls" not in bench("list", "methods").out


def test_other_pictures_or_versions_are_refused_before_anything_is_computed(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    path = tmp_path / "out/mini/voc_cls/random_init/seed0.json"
    entry = json.loads(path.read_text())
    for change, message in (
        ({"data": {"voc_test": "0" * 64}}, "was made on other pictures (voc_test)"),
        ({"task_version": 0}, "was scored by version 0 of voc_cls"),
        ({"task_code": "0" * 64}, "was scored by other code of voc_cls"),
        ({"suite_sha256": "0" * 64}, "was made by other settings of suite mini"),
    ):
        path.write_text(json.dumps(entry | change))
        done = bench_run("imagenet")
        assert (done.status, message in done.error) == (2, True)
        assert not list((tmp_path / "out").rglob("imagenet/*"))


def test_changed_code_of_a_task_or_a_method_is_seen(monkeypatch, tmp_path):
    from bench import plugins

    core = Path(plugins.__file__).parent
    for module in (*plugins.TASK_CORE, *plugins.METHOD_CORE):
        assert (core / f"{module}.py").is_file(), module
    before = plugins.task_code("voc_cls"), plugins.method_code("rotation")
    spoilt = tmp_path / "voc_cls.py"
    spoilt.write_text(plugins.source("tasks", "voc_cls").read_text().replace("argmax", "argmin"))
    monkeypatch.setattr(plugins, "source", lambda kind, name: spoilt)
    assert plugins.task_code("voc_cls") != before[0]
    assert plugins.method_code("rotation") != before[1]


def test_samples_lie_beside_the_record_and_are_linked(bench_run, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    assert bench_run("split_brain,random_init", out=out, cache=cache).status == 0
    folder = out / "mini" / "voc_cls"
    with Image.open(folder / "split_brain" / "samples.png") as picture:
        assert picture.width > picture.height > 3 * 32  # ten columns, three rows of 32 px crops
        assert len(picture.getcolors(1 << 20)) > 100
    assert not (folder / "random_init" / "samples.png").exists()
    text = (out / "mini" / "LEADERBOARD.md").read_text()
    assert "[split_brain](voc_cls/split_brain/samples.png)" in text
    first = (folder / "split_brain" / "samples.png").read_bytes()
    assert bench_run("split_brain", out=tmp_path / "again", cache=cache).status == 0  # from cache
    again = tmp_path / "again" / "mini" / "voc_cls" / "split_brain" / "samples.png"
    assert again.read_bytes() == first


def test_samples_that_may_not_be_copied_are_not_linked(bench, bench_run, tmp_path):
    out = tmp_path / "out"
    assert bench_run("split_brain,random_init", out=out).status == 0
    (out / "mini" / "voc_cls" / "split_brain" / "samples.png").unlink()
    assert bench("board", "--check", "--out", out).status == 2
    assert bench("board", "--out", out).status == 0
    assert "samples.png" not in (out / "mini" / "LEADERBOARD.md").read_text()
