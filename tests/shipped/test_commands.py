"""Every command that README and docs print is run, page by page, in a reader's order.

The commands run as they are printed, in a folder where the first run of README was made. Less than
for a reader: the suite `mini` has the size of `smoke`, `--methods all` means three, and no plot is
drawn. What cannot be run here is in `PARSED`, with the reason: `bench run` makes a dry run of it,
and of other commands, and of jobs on a cluster, the arguments are parsed.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from printed import blocks, parse, steps, words
from support import SHORT, write_lists

from bench.config import loader
from bench.reporting import plots

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FIRST = "rotation,random_init,imagenet"  # README's first look
CLASSES = ("cup", "spoon")
MENTION = re.compile(r"bench( (-?-?[a-z-]+|[A-Z]+))+")  # names a command in a sentence
CLUSTER = "needs a cluster; tests/cli/test_slurm.py, test_ray.py and test_torchrun.py have one"
DOWNLOAD = "needs a download; tests/cli/test_data.py has a server"
ARCHIVES = "needs the archives of the data sets"
MINUTES = "takes minutes; .ci/run, tests/contracts or a slow test does the same"
PARSED = {
    r"bench run .*--on (slurm|ray).*": CLUSTER,
    r"torchrun .*": CLUSTER,
    r"bench merge /records/node.*": CLUSTER,
    r"bench data (get|verify) .*": DOWNLOAD,
    r"bench (run|audit) .*--suite (tiny|voc) --data-root DIR.*": ARCHIVES,
    r"bench leaderboard --check --out results/reference": MINUTES,
    r"bench check --reference results/check": MINUTES,
    r"bench reproduce results/reference/.*": MINUTES,
    r"bench test \./(flip|my_rotation)\.py": MINUTES,  # of a task it takes seconds
    r"bench run .*--seeds 3": MINUTES,
    r"bench calibrate results/local/mini": "needs five seeds; tests/cli/test_calibrate.py has them",
    r"bench publish .*": "needs results of a suite that ships; tests/cli/test_publish.py has some",
    r"bench compare results/local/voc/rotation literature": ARCHIVES,
    r"bench run --methods ./flip.py,rotation --tasks ./class_mean.py": "says what is accepted",
}
XML = """<annotation><size><width>48</width><height>48</height></size><object>
<name>{}</name><difficult>0</difficult><truncated>0</truncated>
<bndbox><xmin>13</xmin><ymin>13</ymin><xmax>36</xmax><ymax>36</ymax></bndbox>
</object></annotation>"""


def cups(root, images=16):
    """Images of cups and spoons in the three layouts of docs/own-data.md, and unlabeled ones."""
    rng = np.random.default_rng(0)
    devkit = root / "VOCdevkit/MINE"
    for split in ("train", "test", "unlabeled"):
        annotations, labels = [], {}
        for number in range(images):
            label = number % 2
            pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
            pixels[12:36, 12:36, label] = 255
            name = f"{split}{number}"
            labels[name] = label
            places = [root / "coco" / split, root / "mine" / split / CLASSES[label]]
            for folder in (
                [root / split] if split == "unlabeled" else [*places, devkit / "JPEGImages"]
            ):
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{name}.jpg")
            entry = {"id": number, "image_id": number, "category_id": label}
            annotations.append(entry | {"bbox": [12, 12, 24, 24], "iscrowd": 0, "area": 576})
            (devkit / "Annotations").mkdir(parents=True, exist_ok=True)
            (devkit / f"Annotations/{name}.xml").write_text(XML.format(CLASSES[label]))
        if split != "unlabeled":
            write_lists(devkit / "ImageSets", split, labels, CLASSES)
            content = {
                "images": [{"id": k, "file_name": f"{name}.jpg"} for k, name in enumerate(labels)],
                "annotations": annotations,
                "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES)],
            }
            (root / f"coco/{split}.json").write_text(json.dumps(content))


def checkpoint(path):
    """A ResNet-50 whose batch norms have seen images, as a trained one's have."""
    if path.exists():
        return
    torch.manual_seed(0)
    model = timm.create_model("resnet50")
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(4, 3, 64, 64))
    torch.save(model.state_dict(), path)


@pytest.fixture
def small_mini(monkeypatch):
    """The suite `mini` at the size of `smoke`."""
    settings = loader.load("smoke", [*SHORT, "name='mini'"]).model_dump(mode="json")
    read = loader.read_tables
    text = loader.to_toml({key: value for key, value in settings.items() if value is not None})
    tables = loader.parse_toml(text.encode(), "mini")
    tables["uncertainty"] = read("mini")["uncertainty"]  # for the results that ship
    monkeypatch.setattr(
        loader, "read_tables", lambda name: tables if name == "mini" else read(name)
    )


@pytest.fixture
def desk(tmp_path, monkeypatch, small_mini, own_plugins, bench, cache):
    """A reader's folder: what the clone has, data, a checkpoint, and README's first run."""
    for name in ("methods", "tasks", "results/reference", "results/check"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results/literature", tmp_path / "results/literature")
    for person, method in {"ann": "imagenet", "bob": "rotation"}.items():
        place = f"mini/voc_cls/{method}"
        shutil.copytree(ROOT / "results/reference" / place, tmp_path / "results" / person / place)
    cups(tmp_path / "DIR")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "draw", lambda table: {})
    first = cache / "first_run"  # once for all pages
    if not first.exists():
        assert bench("run", "--methods", FIRST, "--tasks", "voc_cls", "--out", first).status == 0
    shutil.copytree(first, "results/local")
    return tmp_path


@pytest.fixture(scope="module")
def taken():
    """The commands of other pages."""
    return set()


def plain(command):
    """A command without its comment and alignment."""
    return " ".join(command.partition(" #")[0].split())


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=() if p.name == "README.md" else pytest.mark.slow) for p in PAGES],
    ids=[page.name for page in PAGES],
)
def test_the_commands_of_a_page_run_in_its_order(page, desk, bench, taken):
    names = {}
    for kind, step in steps(page.read_text()):
        if kind == "write":
            name, content = step
            (desk / name).write_text(content)
        elif kind == "python":
            exec(step.replace("pretrained=True", "pretrained=False"), names)  # no download
        else:
            take(kind, plain(step), bench, taken)


def take(kind, command, bench, taken):
    """Run one command, or parse it."""
    tool, *arguments = words(re.sub("^torchrun .* -m ", "", command))
    if kind == "mention" and MENTION.fullmatch(command):
        parse(command)
        return
    if any(re.fullmatch(known, command) for known in PARSED):
        if kind == "run" and arguments[0] == "run" and "--on" not in arguments:
            assert bench(*arguments, "--dry-run").status == 0
        else:
            parse(command)
        return
    if tool == "cp":
        shutil.copy(*arguments)
        return
    if "my.pth" in command:
        if command in taken:
            return  # on another page
        checkpoint(Path("my.pth"))
    if "--dry-run" not in arguments:
        arguments = [FIRST if word == "all" else word for word in arguments]
    done = bench(*arguments)
    assert done.status == 0, (command, done.out, done.err)
    taken.add(command)


def test_the_suite_of_the_page_on_running_loads(tmp_path):
    page = (ROOT / "docs/running.md").read_text()
    (code,) = [code for language, code in blocks(page) if language == "toml"]
    (tmp_path / "suite.toml").write_text(code)
    assert loader.load(str(tmp_path / "suite.toml")).tasks["voc_det"]["dataset"] == "coco"


def test_what_is_only_parsed_is_printed_somewhere():
    printed = [
        plain(step)
        for page in PAGES
        for kind, step in steps(page.read_text())
        if kind in ("run", "mention")
    ]
    for known in PARSED:
        assert any(re.fullmatch(known, command) for command in printed), known
