"""Two processes under torchrun do what one does."""

import json
import os
import subprocess
import sys
from collections import Counter

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


FAILING = """
import sys
import pytest
from bench.runtime import distributed

def fail(item):
    if item == 3:  # of the second process
        raise ValueError("three")
    return item

def fail_late():
    for item in distributed.share(range(9)):
        yield fail(item)

def refuse(item):
    if item == 5:  # in the main process, which alone takes items
        raise OSError("full")

distributed.init()
for _ in range(2):  # nobody waits for another afterwards
    with pytest.raises(ValueError, match="three"):
        distributed.in_shares(range(9), fail)
    with pytest.raises(ValueError, match="three"):
        distributed.in_rounds(fail_late(), 9, lambda item: None)
    with pytest.raises(OSError, match="full"):
        distributed.in_rounds(iter(distributed.share(range(9))), 9, refuse)
    with pytest.raises(SystemExit), distributed.together():
        if not distributed.is_main():
            sys.exit(3)
assert distributed.in_shares(range(9), str) == [*"012345678"]
taken = []
distributed.in_rounds(iter(distributed.share(range(9))), 9, taken.append)
assert taken == ([*range(9)] if distributed.is_main() else [])
"""

# Scores untrained networks, and writes the images that each process scored, by what scored them.
SCORING = """
import json, os, sys
from collections import defaultdict
from pathlib import Path
from bench.encoders.pretraining import TrainingTrace
from bench.evaluation import features, finetuned_task
from bench.evaluation.faster_rcnn import Detector
from bench.evaluation.fcn import Segmenter
from bench.evaluation.multilabel import MultiLabel
from bench.runtime.device import seed_everything
from bench.training.finetuning import TuningResult

counts = defaultdict(int)

def count(owner, name, images=lambda value: 1):
    function = getattr(owner, name)
    def counted(first, second, *rest):
        counts[name] += images(second)
        return function(first, second, *rest)
    setattr(owner, name, counted)

def untrained(task, make, score, images, *rest):
    seed_everything(0)
    network = make().eval()
    return TuningResult(network, 0.1, [score(network, range(7))], None)

count(features, "pool_features", len)
for network, name in ((Detector, "detect"), (Segmenter, "segment"), (MultiLabel, "score")):
    count(network, name)
finetuned_task.tune = untrained
finetuned_task.FineTunedTask.visualize = lambda *arguments: None
for task in ("voc_det", "voc_seg"):
    from bench import plugins
    del plugins.load("tasks", task).visualize
sys.argv = ["bench", *sys.argv[1:]]
counted = Path(os.environ["COUNTED"])
from bench.__main__ import main
try:
    main()
finally:
    rank = os.environ.get("RANK", "0")
    (counted / f"{rank}.json").write_text(json.dumps(counts))
"""


def torchrun(*arguments, processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}"]
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
                ours, theirs = (record["pretraining"]["pretext"] for record in (a, b))
                assert ours["num_images"] == theirs["num_images"]
                assert ours["value"] == pytest.approx(theirs["value"], abs=1e-2)


@pytest.mark.slow
def test_what_one_process_raises_every_process_raises(tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    torchrun(script)


@pytest.mark.slow
def test_processes_share_extraction_and_scoring_and_no_byte_changes(cache, tmp_path, monkeypatch):
    script = tmp_path / "scoring.py"
    script.write_text(SCORING)
    what = ["run", "--methods", "random_init", "--tasks", "all", "--suite", "smoke"]
    what += ["--device", "cpu", "--workers", "1"]
    counts = {}
    predictions = {}
    for processes in (1, 2, 4):
        out = tmp_path / f"out{processes}"
        counted = tmp_path / f"counted{processes}"
        counted.mkdir()
        monkeypatch.setenv("COUNTED", str(counted))
        done = torchrun(script, *what, "--out", out, "--cache", cache, processes=processes)
        assert "FAILED" not in done.stderr
        counts[processes] = [
            Counter(json.loads((counted / f"{rank}.json").read_text())) for rank in range(processes)
        ]
        predictions[processes] = {
            path.relative_to(out): path.read_bytes() for path in out.glob("smoke/*/*/seed0.npz")
        }
    (alone,) = counts.pop(1)
    assert {*alone} == {"pool_features", "detect", "segment", "score"}
    for processes, shares in counts.items():
        assert sum(shares, Counter()) == alone
        for name, total in alone.items():
            most = max(share[name] for share in shares)
            assert most <= -(-total // processes) + 32  # a batch of features
        assert len(predictions[1]) == 4
        assert predictions[processes] == predictions[1]
