"""Two processes under torchrun do what one does."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from support import SHORT

from bench.results.changes import DESCENTS, LOSSES

STATISTICS = """
import copy, sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from timm.layers import BatchNormAct2d
from bench.runtime import distributed as processes
from bench.training.batchnorm import synchronize

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), BatchNormAct2d(8)
    ).double()

def compare():
    torch.manual_seed(1)
    batch = torch.randn(8, 3, 9, 9).double() * 3 + 1
    whole = network()
    whole(batch).square().mean().backward()
    shared = network()
    synchronize(shared)
    parallel = DistributedDataParallel(shared)
    mine = batch.chunk(2)[distributed.get_rank()]
    parallel(mine).square().mean().backward()
    for (name, one), (_, other) in zip(whole.named_parameters(), shared.named_parameters()):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-7, msg=name)
    for (name, one), (_, other) in zip(whole.named_buffers(), shared.named_buffers()):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(shared.eval()(batch), whole.eval()(batch), rtol=1e-5, atol=1e-7)

processes.init()
compare()
"""


OPENING = """
import os, sys
from pathlib import Path
import pytest
from bench.config import loader
from bench.data import image_files
from bench.data.datasets import open_datasets
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.progress import Reporter

distributed.init()
root, cache = map(Path, sys.argv[1:])
suite = loader.load("tiny")
section = suite.datasets["pretraining"].model_copy(update={"train": "images"})
suite = suite.model_copy(update={"datasets": {"pretraining": section}})
read = []
inspect = image_files._inspect
image_files._inspect = lambda *where: read.append(where) or inspect(*where)
opened = open_datasets(suite, ["pretraining"], root, cache, Reporter())["pretraining"].train
assert len(read) == (3 if distributed.is_main() else 0), read
assert [*opened.images.files] == ["a/0.png", "a/1.png", "b/0.png"]
assert opened.labels.tolist() == [0, 0, 1]
with pytest.raises(UserError, match="no such folder"):
    open_datasets(suite, ["pretraining"], root / "images", cache, Reporter())
distributed.barrier()
"""


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # A thread each, as torchrun itself sets where nothing is said: other counts round otherwise.
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=surroundings
    )
    assert done.returncode == 0, done.stderr[:3000]
    return done


@pytest.mark.slow
def test_statistics_are_those_of_all_processes(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(STATISTICS)
    torchrun(script)


@pytest.mark.slow
def test_one_process_reads_the_images_of_all(tmp_path):
    for number, name in enumerate(("a/0.png", "a/1.png", "b/0.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    script = tmp_path / "two_processes.py"
    script.write_text(OPENING)
    torchrun(script, tmp_path, tmp_path / "cache")


def same_training(trace, other):
    """The same images, pixels and rates; losses and descents that differ by rounding alone."""
    for what, tolerance in (("losses", LOSSES), ("descents", DESCENTS)):
        ours = trace.pop(what)
        theirs = other.pop(what)
        assert {*ours} == {*theirs}
        for name, values in ours.items():
            assert values == pytest.approx(theirs[name], rel=tolerance)
    assert trace == other


@pytest.mark.slow
def test_a_run_of_two_processes_measures_what_one_does(bench, cache, tmp_path):
    tasks = ["voc_seg", "voc_cls_finetune"]
    # Steps of the usual size would magnify rounding: tenfold at each.
    settings = [*SHORT, "pretraining.learning_rate=1e-6"]
    settings += [f"tasks.{task}.learning_rates=[1e-6]" for task in tasks]
    what = ["run", "--methods", "random_init,supervised", "--tasks", ",".join(tasks)]
    what += ["--suite", "smoke"]
    what += ["--device", "cpu", *(part for key in settings for part in ("--set", key))]
    one, two = tmp_path / "one", tmp_path / "two"
    done = bench(*what, "--out", one, "--cache", cache)
    assert done.status == 0, done.err
    found = torchrun("-m", "bench", *what, "--out", two, "--cache", tmp_path / "cache")
    assert found.stdout.count("voc_seg (version") == 1  # one process speaks
    for task in tasks:
        for method in ("random_init", "supervised"):
            a, b = (
                json.loads((out / "smoke" / task / method / "seed0.json").read_text())
                for out in (one, two)
            )
            assert b["status"] == "ok"
            assert b["environment"]["processes"] == 2
            assert b["value"] == pytest.approx(a["value"], abs=1.0)
            same_training(b["training"], a["training"])
            if method == "supervised":
                same_training(b["pretraining"]["trace"], a["pretraining"]["trace"])
