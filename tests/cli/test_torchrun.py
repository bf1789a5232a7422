"""Several processes under torchrun do what one does, and share the work."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support import SHORT, values

from bench.results.changes import DESCENTS, LOSSES
from bench.runtime.claims import Claims

STATISTICS = """
import copy, sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from timm.layers import BatchNormAct2d
from bench.runtime import distributed as processes
from bench.training.batchnorm import population_statistics, synchronize
from bench.training.whole_batch import rows_of_all

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
    with torch.no_grad(), population_statistics(shared.train()):
        for scale in (1, 2):
            shared(scale * mine)
        values = whole[0](torch.cat([batch, 2 * batch])).transpose(0, 1).flatten(1)
    torch.testing.assert_close(shared[1].running_mean, values.mean(1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        shared[1].running_var, values.var(1, correction=0), rtol=1e-5, atol=1e-7
    )

processes.init()
compare()

def vectors():
    # A batch norm of vectors, and a loss of all rows at once.
    torch.manual_seed(1)
    batch = torch.randn(8, 5).double() * 3 + 1
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    shared = copy.deepcopy(whole)
    synchronize(shared)
    loss = lambda rows: (rows @ rows.T).softmax(1).diagonal().log().sum()
    expected = loss(whole(batch))
    expected.backward()
    parallel = DistributedDataParallel(shared)
    rows = rows_of_all(parallel(batch.chunk(2)[distributed.get_rank()]))
    torch.testing.assert_close(loss(rows), expected, rtol=1e-5, atol=1e-7)
    loss(rows).backward()
    for (name, one), (_, other) in zip(whole.named_parameters(), shared.named_parameters()):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5, msg=name)

vectors()
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


# The command line in a process that counts what it does, and writes that to a file at its end.
COUNTED = """
import json, os, sys
from pathlib import Path
from bench import cli, plugins
from bench.data.stream import Stream
from bench.evaluation import features
from bench.training import trainer
from bench.training.pretext import PretextTask

counts = {"extracted": [], "tested": [], "trained": [], "questioned": []}
features.loader_workers = trainer.loader_workers = lambda: 0  # so that this process does it all
read = features.read
# Names alone repeat in the folders of a labeled data set.
features.read = lambda path: counts["extracted"].append("/".join(path.parts[-3:])) or read(path)

class Counted(Stream):
    def __getitem__(self, position):
        counts["trained"].append(position)
        return super().__getitem__(position)

trainer.Stream = Counted
score = PretextTask._score_part

def counted(task, stream, part, device):
    counts["questioned"] += part.tolist()
    return score(task, stream, part, device)

PretextTask._score_part = counted

def count_reads(task, module):
    module.read = lambda path: counts["tested"].append(f"{task} {path.name}") or read(path)

for task in ("voc_det", "voc_seg", "voc_cls_finetune"):
    plugin = plugins.load("tasks", task)
    plugin.visualize = lambda *arguments: None  # which reads some images once more
    count_reads(task, sys.modules[plugin.__module__])
folder = Path(sys.argv.pop(1))
try:
    cli.main()
finally:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{os.environ.get('RANK', 0)}.json").write_text(json.dumps(counts))
"""

FROZEN = ("voc_cls", "voc_lowshot", "imagenet_linear", "knn")
TASKS = (*FROZEN, "voc_cls_finetune", "voc_det", "voc_seg")

# A process fails at its share of what all do together; all raise that, and none waits.
FAILING = """
import os, sys, time
from pathlib import Path
from bench.errors import UserError
from bench.runtime import distributed
from bench.training.trainer import NonFiniteLossError

class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)

distributed.init()
size = distributed.world_size()
items = list(range(3 * size + 1))
assert distributed.in_shares(items, lambda item: (item, distributed.rank())) == [
    (item, item % size) for item in items
]
assert distributed.in_shares([7], str) == ["7"]
last = size - 1

def failing(error):
    def make(item):
        if item == last:
            raise error
        return item
    return make

for error in (UserError("bad image"), NonFiniteLossError("nan"), SystemExit(3)):
    try:
        distributed.in_shares(items, failing(error))
    except type(error) as raised:
        assert raised.args == error.args
    else:
        raise AssertionError("not raised")
try:
    distributed.in_shares(items, failing(Unpicklable("odd", 2)))
except (RuntimeError, Unpicklable) as raised:
    assert "odd" in str(raised)

def fail():
    raise OSError(28, "No space left on device")

try:
    distributed.from_main(fail)
except OSError as raised:
    assert raised.errno == 28
else:
    raise AssertionError("not raised")
assert distributed.from_main(lambda: 5) == 5
distributed.barrier()
Path(sys.argv[1], str(distributed.rank())).touch()
"""


ROUNDS = """
import sys
import pytest
from bench.runtime import distributed

def fail(item):
    if item == 3:
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


def torchrun(*arguments, processes=2, status=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}"]
    # A thread each, as torchrun itself sets where nothing is said: other counts round otherwise.
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=surroundings
    )
    assert done.returncode == status, done.stderr[:3000]
    return done


def smoke_run(methods, tasks, verb="run"):
    """Arguments of a run of the shrunken `smoke`."""
    settings = [part for key in SHORT for part in ("--set", key)]
    what = [verb, "--methods", methods, "--tasks", ",".join(tasks), "--suite", "smoke"]
    return [*what, "--device", "cpu", "--workers", "1", *settings]


def counted(folder, processes, *arguments):
    """Run the counting command line; what each process counted."""
    folder.mkdir(exist_ok=True)
    script = folder / "counted.py"
    script.write_text(COUNTED)
    places = ["--out", folder / "out", "--cache", folder / "cache"]
    command = [script, folder / "counts", *arguments, *places]
    if processes == 1:
        surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, *map(str, command)], check=True, env=surroundings, capture_output=True
        )
    else:
        torchrun(*command, processes=processes)
    paths = sorted((folder / "counts").glob("*.json"))
    assert len(paths) == processes
    return [json.loads(path.read_text()) for path in paths]


def together(counts, what):
    """How often the processes did something, all of them together."""
    return sum((Counter(own[what]) for own in counts), Counter())


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
        for name, own in ours.items():
            assert own == pytest.approx(theirs[name], rel=tolerance)
    assert trace | {"machines": []} == other | {"machines": []}


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
            assert ["2 processes" in part for part in b["training"]["machines"]] == [True]
            if method == "supervised":
                same_training(b["pretraining"]["trace"], a["pretraining"]["trace"])
                ours, theirs = (record["pretraining"]["pretext"] for record in (a, b))
                assert ours["num_images"] == theirs["num_images"]
                assert ours["value"] == pytest.approx(theirs["value"], abs=1e-2)


VIEWED = ("simclr", "moco", "byol", "barlow_twins", "dino")


@pytest.mark.slow
def test_losses_of_a_whole_batch_are_those_of_one_process(bench, cache, tmp_path):
    what = ["run", "--methods", ",".join(VIEWED), "--tasks", "voc_cls", "--suite", "smoke"]
    what += ["--device", "cpu", *(part for key in SHORT for part in ("--set", key))]
    one, two = tmp_path / "one", tmp_path / "two"
    done = bench(*what, "--out", one, "--cache", cache)
    assert done.status == 0, done.err
    torchrun("-m", "bench", *what, "--out", two, "--cache", tmp_path / "cache")
    for method in VIEWED:
        a, b = (
            json.loads((out / "smoke/voc_cls" / method / "seed0.json").read_text())["pretraining"]
            for out in (one, two)
        )
        same_training(b["trace"], a["trace"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder and counts of one process that scores an untrained encoder at all tasks."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    return folder, counted(folder, 1, *smoke_run("random_init", TASKS))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_score_each_image_once_and_to_the_same_bytes(alone, tmp_path, processes):
    folder, (counts,) = alone
    shared = tmp_path / "run"
    shutil.copytree(folder / "cache", shared / "cache")  # with the fine-tuned networks
    own = counted(shared, processes, *smoke_run("random_init", TASKS))
    extracted = together(own, "extracted")
    assert extracted == Counter(counts["extracted"])
    assert set(extracted.values()) == {1}
    assert sum(bool(each["extracted"]) for each in own) == min(processes, 3)  # of three batches
    tested = together(own, "tested")
    assert set(tested.values()) == {1}
    assert len(tested) == 3 * 80  # test images of `smoke`, by task
    assert max(len(each["tested"]) for each in own) == 3 * 80 / processes
    for task in TASKS:
        name = f"smoke/{task}/random_init/seed0.npz"
        with np.load(folder / "out" / name) as one, np.load(shared / "out" / name) as several:
            assert {*one} == {*several}
            for key in one:
                assert one[key].dtype == several[key].dtype
                np.testing.assert_array_equal(one[key], several[key], err_msg=f"{task} {key}")
    assert values(shared / "out") == values(folder / "out")
    place = json.loads((shared / "out/smoke/voc_seg/random_init/seed0.json").read_text())
    assert place["environment"]["processes"] == processes  # that scored
    assert [part for part in place["training"]["machines"] if "processes" in part] == []


@pytest.mark.slow
def test_a_dense_probe_of_several_processes_is_that_of_one(tmp_path):
    arguments = smoke_run("random_init", ["voc_seg_linear"])
    folders = [tmp_path / "one", tmp_path / "several"]
    for folder, processes in zip(folders, (1, 3), strict=True):
        counted(folder, processes, *arguments)
    assert values(folders[1] / "out") == values(folders[0] / "out")
    paths = [folder / "out/smoke/voc_seg_linear/random_init/seed0.npz" for folder in folders]
    with np.load(paths[0]) as one, np.load(paths[1]) as several:
        np.testing.assert_array_equal(one["confusion"], several["confusion"])


@pytest.mark.slow
def test_a_process_decodes_only_its_share_of_the_training_images(tmp_path):
    processes = 4
    arguments = smoke_run("rotation", ["voc_cls"])
    (one,) = counted(tmp_path / "one", 1, *arguments)
    several = counted(tmp_path / "several", processes, *arguments)
    assert set(Counter(one["trained"]).values()) == {1}
    assert len(one["trained"]) == 64 / 4  # views by rotations
    for what in ("trained", "questioned", "extracted"):
        assert together(several, what) == Counter(one[what])
    for own in several:
        assert len(own["trained"]) == len(one["trained"]) / processes


@pytest.mark.slow
def test_what_one_process_raises_all_raise(tmp_path):
    processes = 3
    script = tmp_path / "processes.py"
    script.write_text(FAILING)
    ends = tmp_path / "ends"
    ends.mkdir()
    torchrun(script, ends, processes=processes)
    assert len(list(ends.iterdir())) == processes
    script.write_text(ROUNDS)
    torchrun(script, processes=processes)


BROKEN = """
import os, sys
from bench import cli, plugins

plugin = plugins.load("tasks", "voc_seg")
module = sys.modules[plugin.__module__]
read_mask = module.read_mask

def read(path):
    if os.environ["RANK"] == "1":
        raise MemoryError("too little memory here")
    return read_mask(path)

module.read_mask = read
cli.main()
"""


@pytest.mark.slow
def test_a_cell_that_fails_in_one_process_fails_in_all_and_the_next_goes_on(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    places = ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    torchrun(script, *smoke_run("random_init", ["voc_seg", "voc_cls"]), *places, status=1)
    failed, ok = (
        json.loads((tmp_path / f"out/smoke/{task}/random_init/seed0.json").read_text())
        for task in ("voc_seg", "voc_cls")
    )
    assert failed["status"] == "failed"
    assert "too little memory here" in failed["error"]
    assert ok["status"] == "ok"


ALONE = """
import os
from datetime import timedelta
from bench import cli
from bench.runtime import distributed
from bench.training.trainer import Trainer

distributed.FAILURE = timedelta(seconds=3)
step = Trainer._take_step

def fail(trainer, *rest):
    if os.environ["RANK"] == "1":
        raise MemoryError("too little memory here")
    return step(trainer, *rest)

Trainer._take_step = fail
cli.main()
"""


@pytest.mark.slow
def test_a_process_that_alone_fails_ends_the_run(tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    places = ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    done = torchrun(script, *smoke_run("rotation", ["voc_cls"]), *places, status=1)
    assert "process 1 alone failed, so the run ends: MemoryError: too little memory" in done.stderr


STATUS = """
import os, sys
from pathlib import Path
from bench import cli

folder = Path(sys.argv.pop(1))
try:
    cli.main()
except SystemExit as end:
    (folder / f"status{os.environ['RANK']}").write_text(str(end.code))
"""


@pytest.mark.slow
def test_a_worker_of_several_processes_computes_each_encoder_once(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(STATUS)
    places = ["--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    arguments = [*smoke_run("random_init,imagenet", ["voc_cls"], "work"), *places]
    folder = tmp_path / "out/smoke/claims"
    other = Claims(folder, 600, lambda name: None, lambda name: None)
    assert other.take("imagenet-seed0")

    def work():
        said = torchrun(script, tmp_path, *arguments).stderr
        return said, [(tmp_path / f"status{rank}").read_text() for rank in range(2)]

    said, statuses = work()
    assert statuses == ["75", "75"]
    assert "1 recorded, 0 failed, 1 not recorded yet" in said
    other.release("imagenet-seed0")
    assert list(folder.iterdir()) == []
    said, statuses = work()
    assert statuses == ["0", "0"]
    assert said.count("imagenet x voc_cls, seed 0: mAP ") == 1
    assert "2 recorded, 0 failed, 0 not recorded yet" in said
    assert len(values(tmp_path / "out")) == 2
    assert list(folder.iterdir()) == []
