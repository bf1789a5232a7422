"""Bad input: one line that says what, where and what to do, and the exit status."""

import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from support import SHORT, values, without_rendering

from bench.commands import request
from bench.commands.evaluate import evaluate
from bench.errors import UserError
from bench.results import storage
from bench.runtime import files, pool, workers
from bench.runtime.device import loader_workers
from bench.runtime.progress import Reporter
from bench.training.checkpoint import save_checkpoint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--methods", "rotatoin", "--tasks", "all"], "unknown method 'rotatoin'"),
        (["run", "--methods", "all", "--tasks", "voc_clss"], "unknown task 'voc_clss'"),
        (["run", "--methods", "all", "--tasks", "all", "--suite", "huge"], "unknown suite 'huge'"),
        (["run", "--methods", "all", "--tasks", "all", "--set", "a.b=1"], "unknown key 'a'"),
        (["run", "--methods", "all", "--tasks", "all", "--suite", "tiny"], "--data-root DIR"),
        (
            ["run", "--methods", "random_init", "--tasks", "voc_cls", "--device", "nosuch"],
            "--device nosuch: ",
        ),
        (
            ["run", "--methods", "mae", "--tasks", "voc_cls"],
            "mae trains plain transformers, and backbone.name 'tf_efficientnet_lite0' is none; "
            "set one, for example --set backbone.name=vit_tiny_patch16_224",
        ),
        (
            ["run", "--methods", "all,split_brain", "--tasks", "all", "--suite", "mini_vit"],
            "split_brain trains convolutional networks, and backbone.name 'test_vit' is none; ",
        ),
        (["leaderboard", "--out", "/nonexistent"], "has no records of suites; make some"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(bench, arguments, message, tmp_path):
    if "--out" not in arguments:
        arguments = [*arguments, "--out", tmp_path / "new"]
    done = bench(*arguments)
    assert done.status == 2
    assert not (tmp_path / "new").exists(), "a mistyped command leaves a folder"
    assert message in done.error
    assert done.error.startswith("bench: ")
    assert done.out == ""


@pytest.mark.parametrize(
    ("suite", "left_out", "kept"),
    [
        ("mini", "mae: not for the backbone tf_efficientnet_lite0", "split_brain"),
        ("mini_vit", "split_brain, split_brain_halves: not for the backbone test_vit", "mae"),
    ],
)
def test_all_leaves_out_what_cannot_train_the_backbone(bench, suite, left_out, kept, tmp_path):
    asked = ["--methods", "all", "--tasks", "voc_cls", "--suite", suite, "--out", tmp_path / "new"]
    done = bench("run", *asked, "--dry-run")
    assert (done.status, done.out.count(f"  {kept} x voc_cls, seed 0: to run")) == (0, 1)
    assert f"'all' leaves out {left_out}" in (done.out + done.err).splitlines()
    assert not [name for name in left_out.split(": ")[0].split(", ") if f" {name} x" in done.out]


@pytest.mark.usefixtures("own_plugins")
def test_a_kind_of_backbone_that_is_unknown_is_named(bench, tmp_path):
    text = 'class Own:\n    reference = "http"\n    version = 1\n    backbones = "cnn"\n'
    (tmp_path / "own.py").write_text(text)
    done = bench("run", "--methods", tmp_path / "own.py", "--tasks", "voc_cls", "--out", tmp_path)
    assert done.status == 2
    assert "own: unknown kind in `backbones` 'cnn': there are convolutional, transf" in done.error


def test_the_folder_of_a_suite_is_not_that_of_the_records(bench, folder):
    done = bench("leaderboard", "--out", folder / "made")
    assert (done.status, f"name the folder above, {folder}" in done.error) == (2, True)


def test_a_plot_that_fails_is_one_line_and_leaves_the_tables(bench, folder, monkeypatch):
    def fail(table):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr("bench.reporting.plots.gap", fail)
    done = bench("leaderboard", "--out", folder)
    assert (done.status, done.error) == (0, f"{folder}/made: the plots were not drawn: no font")
    assert (folder / "made/LEADERBOARD.md").is_file()


@pytest.mark.parametrize("option", ["--seeds", "--threads"])
def test_a_huge_number_is_one_line(bench, option, tmp_path):
    what = ["run", "--methods", "all", "--tasks", "all", "--out", tmp_path]
    done = bench(*what, option, 100_000_000)
    assert (done.status, "at most 1000 of each" in done.error) == (2, True)


def test_a_rank_without_a_launcher_is_refused(bench, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    done = bench("list")
    assert (done.status, "without RANK and WORLD_SIZE" in done.error) == (2, True)


def test_an_interrupted_command_says_that_it_goes_on(bench, monkeypatch, folder):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.reporting.leaderboard.load", interrupted)
    done = bench("leaderboard", "--out", folder)
    assert (done.status, done.error) == (
        130,
        "bench: interrupted; run the same command again to resume",
    )


def test_missing_and_empty_data_roots(bench, tmp_path):
    what = ["run", "--methods", "random_init", "--tasks", "all", "--suite", "tiny"]
    what += ["--out", tmp_path / "out"]
    done = bench(*what, "--data-root", tmp_path / "absent")
    assert (done.status, "absent: no such folder" in done.error) == (2, True)
    (tmp_path / "empty").mkdir()
    done = bench(*what, "--data-root", tmp_path / "empty")
    assert (done.status, "empty: the folder is empty" in done.error) == (2, True)


def test_a_truncated_image_stops_before_training(bench, smoke, devkit, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.runtime.progress.PLAIN_SECONDS", 0.0)  # every stage has lines
    root = tmp_path / "data"
    shutil.copytree(devkit, root)
    own = without_rendering(smoke, tmp_path / "own.toml")
    bad = sorted((root / "pretraining").glob("*/*.jpg"))[7]
    bad.write_bytes(bad.read_bytes()[:200])
    what = ["run", "--methods", "rotation", "--tasks", "voc_cls", "--suite", own]
    what += ["--data-root", root, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    done = bench(*what)
    assert done.status == 2
    assert f"{bad.name}: is truncated" in done.error
    assert "rotation seed 0: pretraining:" not in done.err
    done = bench(*what, "--set", "datasets.pretraining.damaged='skip'")
    assert done.status == 0
    assert "rotation seed 0: pretraining:" in done.err
    entry = storage.read(tmp_path / "out/smoke/voc_cls/rotation/seed0.json")
    assert entry.warnings == ["1 damaged pretraining images skipped"]
    assert (
        "1 damaged pretraining images skipped"
        in (tmp_path / "out/smoke/LEADERBOARD.md").read_text()
    )


@pytest.mark.slow
def test_damaged_files_in_the_cache_are_named_and_made_again(bench_run, tmp_path):
    cache = tmp_path / "cache"
    assert bench_run("rotation", cache=cache).status == 0
    first = values(tmp_path / "out")
    (weights,) = cache.glob("encoders/*.safetensors")
    (about,) = cache.glob("encoders/*.files.json")
    image, other, *_ = sorted(cache.glob("scenes/*/pretraining/**/*.jpg"))
    checkpoint = cache / "checkpoints" / f"{weights.stem}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    flipped = bytearray(weights.read_bytes())
    flipped[-1000] ^= 64
    weights.write_bytes(flipped)
    checkpoint.write_bytes(b"junk")
    shutil.copy(other, image)
    done = bench_run("rotation", cache=cache, out=tmp_path / "damaged")
    assert done.status == 0
    for name in (weights.name, checkpoint.name, image.relative_to(cache).parts[1]):
        assert f"{name}: is damaged or of an older format; it is computed anew" in done.err
    assert values(tmp_path / "damaged") == first
    about.write_text("{}")  # as a version of before wrote it
    save_checkpoint(checkpoint, "other", {})
    done = bench_run("rotation", cache=cache, out=tmp_path / "foreign")
    assert done.status == 1
    assert f"{about.name}: is damaged or of an older format; it is computed anew" in done.err
    assert f"{checkpoint.name}: the checkpoint of another run; delete it and run again" in done.err


def test_no_network_for_hub_weights_fails_that_cell_with_one_line(bench_run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = [*SHORT, "backbone.imagenet='timm'"]
    done = bench_run("imagenet,random_init", sets=hub)
    assert done.status == 1
    message = "are not in the Hugging Face cache and cannot be downloaded"
    entry = storage.read(tmp_path / "out/smoke/voc_cls/imagenet/seed0.json")
    assert message in entry.error
    assert "\n" not in entry.error
    assert storage.read(tmp_path / "out/smoke/voc_cls/random_init/seed0.json").status == "ok"


def test_an_output_folder_that_cannot_be_written(bench_run, tmp_path):
    (tmp_path / "file").write_text("")
    done = bench_run("random_init", out=tmp_path / "file/out")
    assert (done.status, "cannot be written (Not a directory)" in done.error) == (2, True)
    done = bench_run("random_init", out=Path("/proc/bench"))
    assert (done.status, "cannot be written" in done.error) == (2, True)


def test_a_full_disk_is_one_line(bench_run, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    done = bench_run("random_init")
    assert done.status == 2
    assert "seed0.json: cannot be written (No space left on device); see --out" in done.error


def test_an_unknown_device(bench_run):
    done = bench_run("random_init", "--device", "abacus")
    assert (done.status, "--device abacus" in done.error) == (2, True)


@pytest.mark.parametrize("name", ["meta", "hpu", "vulkan", "mkldnn", "cpu:x", "x" * 500])
def test_a_device_that_cannot_compute(bench_run, tmp_path, name):
    done = bench_run("random_init", "--device", name, cache=tmp_path / "new")
    usable = "cpu, cuda, cuda:1 or auto" if torch.cuda.is_available() else "cpu or auto"
    assert done.status == 2
    assert done.error == f"bench: --device {name[:40]}: cannot be used here; use {usable}"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new").exists()


REFUSED = (
    ["plan"],
    ["status"],
    ["work", "--shard", "4/4"],
    ["work", "--cells", "missing"],
    ["run", "--suite", "tiny"],
    ["run", "--dry-run"],
)


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_computes_nothing_leaves_nothing(bench, tmp_path, arguments):
    asked = ["--methods", "rotation", "--tasks", "voc_cls", "--suite", "smoke"]
    places = ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    verb, *own = arguments
    done = bench(verb, *asked, *places, *own)
    assert done.status in (0, 2)
    assert not any(tmp_path.iterdir())


def test_a_check_of_leaderboards_leaves_no_cache(folder, bench, tmp_path):
    bench("leaderboard", "--out", folder)
    cache = tmp_path / "new"
    assert bench("leaderboard", "--out", folder, "--cache", cache, "--check").status == 0
    assert not cache.exists()


def test_a_cache_that_cannot_be_used(bench_run, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    (cache / "features").mkdir(parents=True)
    (cache / "manifests").write_text("")
    done = bench_run("random_init", cache=cache)
    assert done.status == 2
    assert done.error == f"bench: {cache}/manifests: is no folder; move it away, or see --cache"
    done = bench_run("random_init", cache=cache / "manifests")
    assert done.error.endswith("manifests: is no folder; move it away, or see --cache")
    (cache / "manifests").unlink()
    make = tempfile.TemporaryFile

    def read_only(dir):
        if cache / "features" == dir:
            raise OSError(30, "Read-only file system")
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    done = bench_run("random_init", cache=cache)
    assert done.status == 2
    assert done.error == (
        f"bench: {cache}/features: cannot be written (Read-only file system); see --cache"
    )
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_removed_from_the_cache_costs_no_cell(bench_run, monkeypatch):
    def stuck(encoder, cache):
        raise OSError(13, "Permission denied", "x.lock")

    monkeypatch.setattr("bench.commands.execute.discard", stuck)
    done = bench_run("random_init")
    assert done.status == 0
    assert "the features of random_init stay in the cache: x.lock: Permission denied" in done.err


def test_a_daemonic_process_is_refused_before_anything_is_computed(monkeypatch, tmp_path):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    places = {"out": tmp_path / "out", "cache": tmp_path / "cache"}
    with pytest.raises(UserError, match=r"daemonic process.*use concurrent\.futures"):
        evaluate("random_init", "voc_cls", "smoke", **places)
    assert not any(tmp_path.iterdir())
    with pytest.raises(UserError, match="daemonic process"), pool.fresh_processes(1):
        pass
    with pytest.raises(UserError, match="daemonic process"):
        loader_workers()
    with pytest.raises(UserError, match="daemonic process"):
        next(workers.compute([0], list, 1, Reporter()))


def test_a_folder_that_must_not_be_read_is_not_one_without_records(folder, bench, monkeypatch):
    scan = os.scandir

    def forbidden(path):
        if str(path).endswith("rotation"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    for command in (["leaderboard"], ["compare", "rotation", "random_init"]):
        done = bench(*command, "--out", folder)
        assert done.status == 2
        assert "rotation: cannot be read (Permission denied); change its" in done.error


def test_a_section_of_no_known_plug_in_is_told(bench_run, tmp_path):
    suite = tmp_path / "own.toml"
    suite.write_text(
        'extends = "smoke"\nname = "own"\n[recipes.theirs]\nviews = 64\n[tasks.theirs]\nsize = 3\n'
    )
    done = bench_run("random_init", "--dry-run", suite=suite)
    assert done.status == 0, done.err
    for section in ("[recipes.theirs]", "[tasks.theirs]"):
        assert f"{section} of the suite is not used: no plug-in of that name" in done.out
    assert "[recipes.rotation]" not in done.out


@pytest.mark.parametrize("last", ["raise SystemExit(0)", "import sys; sys.exit(3)"])
def test_a_plug_in_that_ends_the_program_is_named(bench_run, tmp_path, own_plugins, last):
    path = tmp_path / "own.py"
    path.write_text(
        'class Own:\n    """Own."""\n    reference = "none"\n    version = 1\n'
        f"    datasets = ()\n{last}\n"
    )
    done = bench_run(f"{path},random_init")
    assert done.status == 2, done.err
    assert "own.py: cannot be imported (SystemExit" in done.error


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretraining.precision=fp16", "precision = 'fp16': needs a GPU; use auto, bf16 or no"),
        ("backbone.name=resnet-50", "backbone.name 'resnet-50': timm has no such model; did you"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_computed(
    bench_run, tmp_path, override, message
):
    done = bench_run("rotation", "--set", override)
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_a_user_without_a_home_folder_is_told_to_give_a_cache(bench, monkeypatch, tmp_path, folder):
    def homeless(name):
        raise RuntimeError("could not determine the home directory for '~/.cache'")

    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    assert request._user_cache() == request.NOWHERE
    done = bench("leaderboard", "--out", folder, "--cache", request.NOWHERE)
    assert done.status == 2
    assert done.err.strip().splitlines()[-1].startswith("bench: there is no home folder for the")
    with pytest.raises(UserError, match="no home folder for the cache; give one"):
        evaluate("random_init", "voc_cls", "smoke", cache=request.NOWHERE)


def test_results_that_were_moved_away_during_a_run_are_missed(bench_run, monkeypatch, tmp_path):
    def lose(rows, cell, record):
        if cell.method == "random_init":
            shutil.move(tmp_path / "out/smoke", tmp_path / "elsewhere")

    monkeypatch.setattr("bench.commands.run._Rows.show", lose)
    done = bench_run("random_init,rotation")
    assert done.status == 2
    assert "random_init/seed0.json: is gone, with 1 of 2 new records" in done.err
    assert (tmp_path / "elsewhere/voc_cls/random_init/seed0.json").exists()


def test_a_copy_of_a_suite_s_folder_is_named_and_the_others_are_rendered(bench, folder):
    copy = folder / "a copy"
    shutil.copytree(folder / "made", copy)
    done = bench("leaderboard", "--out", folder)
    assert done.status == 2
    assert f"is of suite made; move {copy} out of {folder}" in done.error
    assert (folder / "made/LEADERBOARD.md").exists()


def test_predictions_given_for_a_record_are_not_to_be_deleted(bench, folder, tmp_path):
    predictions = folder / "made/voc_cls/rotation/seed0.npz"
    for command in (
        ["export", predictions, tmp_path / "new.safetensors"],
        ["reproduce", predictions],
    ):
        done = bench(*command)
        assert (done.status, done.error) == (
            2,
            f"bench: {predictions}: is no record; name one, TASK/METHOD/seedK.json",
        )


def test_a_folder_that_is_not_there_is_named_as_it_was_typed(bench, folder, monkeypatch):
    monkeypatch.chdir(folder)
    done = bench("compare", "made/rotation", "nothere")
    assert done.status == 2
    assert "bench: nothere: is no folder, and results/local has no records" in done.err
