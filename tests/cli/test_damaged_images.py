"""Pretraining images that turn out damaged while a run trains on them."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from support import SHORT, values, without_rendering

from bench.data.image_files import verify
from bench.results import storage

SKIP = "datasets.pretraining.damaged='skip'"
TWO_PASSES = "recipes.rotation.views=320"  # over 40 images, each in four rotations
WARNING = "1 damaged pretraining images skipped"


@pytest.fixture
def own(smoke, devkit, tmp_path):
    """The file of a suite, its data root, and an image there whose header alone is sound."""
    root = tmp_path / "data"
    shutil.copytree(devkit, root)
    image = sorted((root / "pretraining").glob("*/*.jpg"))[7]
    image.write_bytes(broken_png())
    return without_rendering(smoke, tmp_path / "own.toml"), root, image


def broken_png():
    """A PNG of 40 x 30 pixels, none of which can be decoded."""
    content = io.BytesIO()
    Image.new("RGB", (40, 30)).save(content, "PNG")
    head, tail = content.getvalue().split(b"IDAT")
    return head + b"IDAT" + b"\0" * 8 + tail[8:]


def arguments(own, out, cache, *sets):
    suite, root, _ = own
    what = ["run", "--methods", "rotation", "--tasks", "voc_cls", "--suite", suite, "--device"]
    what += ["cpu", "--data-root", root, "--out", out, "--cache", cache]
    return [*map(str, what), *(part for key in sets for part in ("--set", key))]


def test_it_is_skipped_counted_and_named_once(bench, own, tmp_path):
    cache = tmp_path / "cache"
    assert verify(own[2].parent, [own[2].name], "stop", lambda _: None).files
    done = bench(*arguments(own, tmp_path / "out", cache, SKIP, TWO_PASSES))
    assert done.status == 0, done.err
    assert done.err.count(f"{own[2].name}: cannot be decoded; skipped") == 1
    record = storage.read(tmp_path / "out/smoke/voc_cls/rotation/seed0.json")
    assert record.warnings == [WARNING]
    assert record.pretraining.logged["damaged_images"] == 1
    assert WARNING in (tmp_path / "out/smoke/LEADERBOARD.md").read_text()
    assert not list((cache / "checkpoints").glob("*.damaged"))


def test_without_the_key_it_ends_the_cell_by_name(bench, own, tmp_path, cache):
    done = bench(*arguments(own, tmp_path / "out", cache, TWO_PASSES))
    assert done.status == 1
    record = storage.read(tmp_path / "out/smoke/voc_cls/rotation/seed0.json")
    assert record.error.startswith(f"{own[2]}: cannot be decoded; replace the image")
    assert "damaged = 'skip'" in record.error


def test_sound_images_leave_no_trace_of_the_key(bench, smoke, devkit, tmp_path, cache):
    suite = without_rendering(smoke, tmp_path / "own.toml")
    done = bench(*arguments((suite, devkit, None), tmp_path / "out", cache, SKIP, TWO_PASSES))
    assert done.status == 0, done.err
    record = storage.read(tmp_path / "out/smoke/voc_cls/rotation/seed0.json")
    assert record.warnings == []
    assert "damaged_images" not in record.pretraining.logged


@pytest.mark.slow
def test_a_killed_run_ends_like_a_whole_one(own, tmp_path):
    longer = [*SHORT, SKIP, "recipes.rotation.views=2000"]

    def command(out, cache):
        return [sys.executable, "-m", "bench", *arguments(own, out, cache, *longer)]

    subprocess.run(command(tmp_path / "whole", tmp_path / "other"), check=True)
    out, cache = tmp_path / "killed", tmp_path / "cache"
    process = subprocess.Popen(command(out, cache), start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(cache.glob("checkpoints/*.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(out.rglob("rotation/seed*.json"))
    subprocess.run(command(out, cache), check=True)
    assert values(out) == values(tmp_path / "whole")
    assert values(out)[-1]["pretraining"]["logged"]["damaged_images"] == 1


@pytest.mark.slow
def test_two_processes_skip_what_one_does(own, tmp_path):
    steady = [*SHORT, SKIP, TWO_PASSES, "pretraining.learning_rate=1e-6"]
    one, two = tmp_path / "one", tmp_path / "two"
    bare = arguments(own, one, tmp_path / "a", *steady)
    subprocess.run([sys.executable, "-m", "bench", *bare], check=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    pair = ["-m", "bench", *arguments(own, two, tmp_path / "b", *steady)]
    done = subprocess.run(
        [sys.executable, *launcher, *pair],
        check=True,
        env=surroundings,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stderr.count(f"{own[2].name}: cannot be decoded; skipped") == 1
    for key in ("order", "pixels", "views"):
        traces = [values(out)[-1]["pretraining"]["trace"][key] for out in (one, two)]
        assert traces[0] == traces[1]
    for out in (one, two):
        assert values(out)[-1]["warnings"] == [WARNING]
        assert values(out)[-1]["pretraining"]["logged"]["damaged_images"] == 1
