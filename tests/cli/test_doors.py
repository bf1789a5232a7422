"""Methods, tasks, metrics and models that are not of this repository, and leave it untouched.

`tests/outside/` has a task with a metric of its own, two methods and a suite. They come in as
paths, as an installed package, and as Python objects.
"""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from support import SHORT
from torch import nn

import bench as ssl_gap
from bench import plugins
from bench.encoders.encoder import Encoder
from bench.results import storage

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OUTSIDE = ROOT / "tests/outside"
INSTALLED = Path(ssl_gap.__file__).parents[1]  # the repository, or where its wheel is installed

# `scenes.toml`, shrunk as `smoke` shrinks `mini`.
SHRUNK = [
    "synthetic.size=48",
    *(f"synthetic.{split}=40" for split in ("pretraining", "validation")),
    *(f"synthetic.{split}=80" for split in ("train", "test")),
    "datasets.voc.min_positives=3",
    "pretraining.views=64",
    "pretraining.batch=16",
    "pretraining.crop=32",
    "tasks.voc_cls.size=32",
    "tasks.voc_cls.dimensions=64",
    "tasks.voc_cls.costs=[0.1, 1.0]",
    "tasks.class_mean.size=32",
]


def git_status():
    """What git says of the repository; nothing where it is none."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(ROOT), "status", "--porcelain"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", autouse=True)
def untouched():
    """All of it changes nothing in the repository."""
    before = git_status()
    yield
    assert git_status() == before


@dataclass
class Done:
    status: int
    out: str
    err: str

    @property
    def text(self):
        """The output in one line."""
        return " ".join(self.out.split())


@pytest.fixture
def shell(tmp_path):
    """`bench` as a process of its own, in a folder with somebody's files."""
    for file in OUTSIDE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    path = [str(INSTALLED)]

    def call(*arguments, sets=SHRUNK, program=("-m", "bench")):
        overrides = [part for key in sets for part in ("--set", key)]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "SSL_GAP_CACHE": str(tmp_path / "cache"),
        }
        command = [sys.executable, *program, *map(str, arguments), *overrides]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    call.path = path
    return call


def intervals(folder, task):
    """method -> whether its row of a task has an interval."""
    with (folder / "leaderboard.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == task]
    ends = {row["method"]: (row["value_low"], row["value"], row["value_high"]) for row in rows}
    return {m: all(e) and float(e[0]) <= float(e[1]) <= float(e[2]) for m, e in ends.items()}


RUN = ("run", "--suite", "scenes.toml", "--out", "out", "--device", "cpu")
PATHS = ("--methods", "./two_crops.py,./teacher.py", "--tasks", "./class_mean.py,voc_cls")
ROWS = {"two_crops", "teacher", "random_init"}
WITHOUT_TORCH = """
import sys
from bench import cli
try:
    cli.main()
finally:
    assert "torch" not in sys.modules
"""


def test_files_by_path(shell, tmp_path):
    folder = tmp_path / "out/scenes"
    done = shell(*RUN, *PATHS, "--workers", "2")
    assert done.status == 0, done.err
    assert "6 cells, 0 up to date, 6 to run" in done.err
    for task in ("class_mean", "voc_cls"):
        assert intervals(folder, task) == dict.fromkeys(ROWS, True)
    assert "class accuracy (95% CI)" in (folder / "LEADERBOARD.md").read_text()
    record = storage.read(folder / "class_mean/two_crops/seed0.json")
    assert record.recipe["temperature"] == 0.2
    assert record.task_settings["stage"] == 3
    assert record.metric == "class_accuracy"
    assert record.method_digest and record.task_digest

    again = shell(*RUN, *PATHS, program=("-c", WITHOUT_TORCH))
    assert again.status == 0, again.err
    assert "6 cells, 6 up to date, 0 to run" in again.err
    assert again.out == done.out

    method = tmp_path / "two_crops.py"
    method.write_text(method.read_text().replace("nn.Linear(width, 64)", "nn.Linear(width, 48)", 1))
    method.write_text(method.read_text().replace("nn.Linear(64, 32)", "nn.Linear(48, 32)", 1))
    kept = shell(*RUN, *PATHS, "--keep")
    assert (kept.status, "6 up to date, 0 to run" in kept.err) == (0, True)
    assert storage.read(folder / "class_mean/two_crops/seed0.json").created == record.created
    changed = shell(*RUN, *PATHS)
    assert (changed.status, "4 up to date, 2 to run" in changed.err) == (0, True), changed.err
    now = storage.read(folder / "class_mean/two_crops/seed0.json")
    assert now.method_digest != record.method_digest
    assert now.encoder.weights_sha256 != record.encoder.weights_sha256


def test_a_comment_in_a_file_is_no_change_and_a_version_is(shell, tmp_path):
    what = ("--methods", "./two_crops.py", "--tasks", "voc_cls")
    assert shell(*RUN, *what).status == 0
    method = tmp_path / "two_crops.py"
    text = method.read_text()
    method.write_text(f"# A comment.\n{text}")
    assert "2 up to date, 0 to run" in shell(*RUN, *what).err
    method.write_text(text.replace("version: ClassVar[int] = 1", "version: ClassVar[int] = 2"))
    assert "1 up to date, 1 to run" in shell(*RUN, *what, "--keep").err


def test_a_changed_task_is_refused_for_some_of_its_rows(shell, tmp_path):
    assert shell(*RUN, "--methods", "two_crops.py", "--tasks", "./class_mean.py").status == 0
    task = tmp_path / "class_mean.py"
    task.write_text(task.read_text().replace("votes.argmax(1)", "votes.argmin(1)"))
    refused = shell(*RUN, "--methods", "random_init", "--tasks", "./class_mean.py")
    assert refused.status == 2
    assert (
        "was scored by other code of class_mean, version 1; run it again in the same" in refused.err
    )
    assert "or accept it with --keep" in refused.err.splitlines()[-1]
    whole = shell(*RUN, "--methods", "two_crops.py", "--tasks", "./class_mean.py")
    assert (whole.status, "0 up to date, 2 to run" in whole.err) == (0, True), whole.err


ENTRY_POINTS = """
[ssl_gap.methods]
two_crops = outside.two_crops:TwoCrops
teacher = outside.teacher:Teacher
[ssl_gap.tasks]
class_mean = outside.class_mean:ClassMean
[ssl_gap.metrics]
class_accuracy = outside.class_accuracy:ClassAccuracy
"""


@pytest.fixture
def installed(shell, tmp_path):
    """The same files as a package that is installed, and gone from the working directory."""
    site = tmp_path / "site"
    package = site / "outside"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name in ("two_crops", "teacher", "class_mean", "class_accuracy"):
        shutil.move(tmp_path / f"{name}.py", package)
    about = site / "outside-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    shell.path.insert(0, str(site))
    return package


def test_an_installed_package(shell, installed, tmp_path):
    listed = shell("list", sets=())
    assert listed.status == 0
    assert all(f"  {name} " in listed.out for name in ("two_crops", "teacher", "class_mean"))
    what = ("--methods", "two_crops,teacher", "--tasks", "class_mean,voc_cls")
    done = shell(*RUN, *what)
    assert done.status == 0, done.err
    for task in ("class_mean", "voc_cls"):
        assert intervals(tmp_path / "out/scenes", task) == dict.fromkeys(ROWS, True)
    again = shell(*RUN, *what, program=("-c", WITHOUT_TORCH))
    assert (again.status, "6 cells, 6 up to date, 0 to run" in again.err) == (0, True)
    source = installed / "teacher.py"
    source.write_text(source.read_text().replace("MOMENTUM = 0.9", "MOMENTUM = 0.99"))
    changed = shell(*RUN, *what)
    assert (changed.status, "4 up to date, 2 to run" in changed.err) == (0, True), changed.err

    shutil.copy(OUTSIDE / "two_crops.py", tmp_path)
    twice = shell(*RUN, "--methods", "./two_crops.py", "--tasks", "voc_cls")
    assert twice.status == 2
    places = (installed / "two_crops.py", tmp_path / "two_crops.py")
    assert f"method 'two_crops' exists twice: {places[0]} and {places[1]}" in twice.err

    shell.path.pop(0)  # uninstalled
    without = shell("leaderboard", "--out", "out", sets=())
    assert without.status == 0, without.err
    assert intervals(tmp_path / "out/scenes", "class_mean") == dict.fromkeys(ROWS, False)
    assert intervals(tmp_path / "out/scenes", "voc_cls") == dict.fromkeys(ROWS, True)
    text = (tmp_path / "out/scenes/LEADERBOARD.md").read_text()
    assert "no interval: metric 'class_accuracy' is not installed" in text
    given = shell(
        "leaderboard", "--out", "out", "--metric", installed / "class_accuracy.py", sets=()
    )
    assert given.status == 0, given.err
    assert intervals(tmp_path / "out/scenes", "class_mean") == dict.fromkeys(ROWS, True)


def test_a_script_without_a_guard(shell, tmp_path):
    """Its first line that calls the package renders images, in several processes."""
    (tmp_path / "script.py").write_text(
        "import bench\n"
        "keys = {'suite': 'smoke', 'out': 'out', 'device': 'cpu', 'cache': 'cache'}\n"
        "board = bench.evaluate('random_init', 'voc_cls', **keys)\n"
        "print(board.to_dataframe()['value'].notna().sum())\n"
    )
    done = shell("script.py", sets=(), program=())
    assert (done.status, done.text) == (0, "1"), done.err


@pytest.fixture
def evaluate(own_plugins, tmp_path, cache, capfd):
    """`bench.evaluate` on the shrunken `smoke`: its rows, and what it printed."""

    def call(model, out=tmp_path / "out", **keys):
        keys = {
            "tasks": "voc_cls",
            "suite": "smoke",
            "overrides": SHORT,
            "device": "cpu",
            "cache": cache,
        } | keys
        capfd.readouterr()
        leaderboard = ssl_gap.evaluate(model, out=out, **keys)
        rows = leaderboard.to_dataframe().set_index("method")
        return rows, capfd.readouterr().err

    return call


class Small(nn.Module):
    """A network on RGB in [0, 1] that returns two maps."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, rgb):
        assert rgb.min() >= 0 and rgb.max() <= 1
        first = self.norm(self.first(rgb)).relu()
        return [first, self.second(first).relu()]


def seeded(make):
    """A way to make a model from a seed."""

    def made(seed):
        torch.manual_seed(seed)
        return make()

    return made


MODELS = {
    "module": Small,
    "timm": seeded(lambda: timm.create_model("resnet18", pretrained=False)),
    "encoder": seeded(lambda: Encoder("tf_efficientnet_lite0")),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_a_row(evaluate, kind):
    model = MODELS[kind](0)
    rows, said = evaluate(model, name="model")
    assert "1 cell, 0 up to date, 1 to run" in said
    assert model.training, "the model is left as it is"
    assert 0 <= rows.loc["model", "value_low"] <= rows.loc["model", "value"] <= 100
    again, said = evaluate(model, name="model")
    assert "1 cell, 1 up to date, 0 to run" in said
    assert again.loc["model"].equals(rows.loc["model"])
    _, said = evaluate(MODELS[kind](0), name="model")
    assert "1 cell, 1 up to date, 0 to run" in said, "the same weights, another object"
    other, said = evaluate(MODELS[kind](1), name="model")
    assert "1 cell, 0 up to date, 1 to run" in said
    assert list(other.index) == ["model"]


def test_a_model_of_the_suites_backbone_stands_among_its_rows(evaluate):
    evaluate("random_init")
    rows, _ = evaluate(MODELS["encoder"](7), name="mine")
    assert {*rows.index} == {"mine", "random_init"}
    assert rows["gap_low"].isna().all(), "there is no reference"
    assert rows.loc["mine"].notna()[["value_low", "value_high"]].all()


def test_a_model_of_another_backbone_has_a_table_of_its_own(evaluate):
    evaluate("random_init")
    rows, _ = evaluate(Small(0), name="small")
    assert list(rows.index) == ["random_init", "small"]
    assert rows["matched_gain"].isna().all(), "neither is measured from the other"
    assert {*rows["backbone"]} == {"tf_efficientnet_lite0", "small"}


def test_names_files_and_classes(evaluate, tmp_path):
    shutil.copy(OUTSIDE / "two_crops.py", tmp_path)
    rows, said = evaluate([str(tmp_path / "two_crops.py"), "random_init"], tasks=["voc_cls"])
    assert {*rows.index} == {"two_crops", "random_init"}
    method = tmp_path / "two_crops.py"
    method.write_text(method.read_text().replace("-1e4", "-2e4"))
    _, said = evaluate(str(method))
    assert "2 cells, 1 up to date, 1 to run" in said
    assert plugins.load("methods", "two_crops").__module__ in sys.modules

    rows, said = evaluate(plugins.load("methods", "rotation"), name="turned")
    assert {*rows.index} == {"two_crops", "random_init", "turned"}
    _, said = evaluate(plugins.load("methods", "rotation"), name="turned")
    assert "2 cells, 2 up to date, 0 to run" in said


TEST = ("test", "--suite", "scenes.toml")


@pytest.mark.parametrize("name", ["two_crops", "teacher", "class_mean"])
def test_the_contracts_hold(shell, name):
    done = shell(*TEST, f"./{name}.py")
    assert done.status == 0, done.out
    assert "FAILED" not in done.out
    assert done.out.count(" ok ") >= 5
    assert done.text.startswith(f"{'task' if name == 'class_mean' else 'method'} {name}")


BROKEN = {
    "a wrong count of views": (
        "two_crops",
        "views_per_image: ClassVar[int] = 2",
        "views_per_image: ClassVar[int] = 1",
        "As many images go through the encoder as `views_per_image` says.",
        "views_per_image is 1, but the encoder is shown 2",
    ),
    "labels without saying so": (
        "two_crops",
        "[random_crop(image, self.recipe) for _ in range(2)]",
        "[random_crop(image, self.recipe) + label for _ in range(2)]",
        "The class of an image changes nothing, unless the class says `uses_labels = True`.",
        "`transform` depends on the label; if that is meant, say `uses_labels = True`",
    ),
    "labels of the test split": (
        "class_mean",
        '"predicted": votes.argmax(1).numpy()',
        '"predicted": (votes.argmax(1).numpy() + test.labels) % len(context.dataset.classes)',
        "Other labels of the test images change no prediction.",
        "other labels of the test images changed `predicted`",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_contract_is_named(shell, tmp_path, fault):
    name, right, wrong, title, message = BROKEN[fault]
    file = tmp_path / f"{name}.py"
    text = file.read_text()
    assert right in text
    file.write_text(text.replace(right, wrong))
    done = shell(*TEST, f"./{name}.py")
    assert done.status == 1, done.err
    lines = done.out.splitlines()
    start = next(line.index("outcome") for line in lines if " outcome " in line)
    (failed,) = (line for line in lines if "FAILED" in line)
    assert title.startswith(failed[:start].strip())
    assert f"FAILED: {message}" in " ".join(" ".join(line[start:].split()) for line in lines)
