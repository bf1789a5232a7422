"""Bad input: one line that says what, where and what to do, and the exit status."""

import shutil
from pathlib import Path

import pytest
from support import SMOKE

from bench.results import record, storage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--methods", "rotatoin", "--tasks", "all"], "unknown method 'rotatoin'"),
        (["run", "--methods", "all", "--tasks", "voc_clss"], "unknown task 'voc_clss'"),
        (["run", "--methods", "all", "--tasks", "all", "--suite", "huge"], "unknown suite 'huge'"),
        (["run", "--methods", "all", "--tasks", "all", "--set", "a.b=1"], "unknown key 'a'"),
        (["run", "--methods", "all", "--tasks", "all", "--suite", "tiny"], "--data-root DIR"),
        (["board", "--out", "/nonexistent"], "holds no records of suites; make some"),
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


def test_the_folder_of_a_suite_is_not_that_of_the_records(bench, folder):
    done = bench("board", "--out", folder / "made")
    assert (done.status, f"name the folder above, {folder}" in done.error) == (2, True)


def test_an_interrupted_command_says_that_it_goes_on(bench, monkeypatch, folder):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.reporting.leaderboard.load", interrupted)
    done = bench("board", "--out", folder)
    assert (done.status, done.error) == (130, "bench: stopped; the same command goes on from here")


def test_missing_and_empty_data_roots(bench, tmp_path):
    what = ["run", "--methods", "random_init", "--tasks", "all", "--suite", "tiny"]
    what += ["--out", tmp_path / "out"]
    done = bench(*what, "--data-root", tmp_path / "absent")
    assert (done.status, "absent: no such folder" in done.error) == (2, True)
    (tmp_path / "empty").mkdir()
    done = bench(*what, "--data-root", tmp_path / "empty")
    assert (done.status, "empty: the folder is empty" in done.error) == (2, True)


def test_a_truncated_image_stops_before_training(bench, devkit, tmp_path, cache):
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
    entry = storage.read(tmp_path / "out/mini/voc_cls/rotation/seed0.json")
    assert entry.flags == ["1 damaged corpus images skipped"]
    assert "1 damaged corpus images skipped" in (tmp_path / "out/mini/LEADERBOARD.md").read_text()


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
    entry = storage.read(tmp_path / "out/mini/voc_cls/imagenet/seed0.json")
    assert message in entry.error
    assert "\n" not in entry.error
    assert storage.read(tmp_path / "out/mini/voc_cls/random_init/seed0.json").status == "ok"


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
