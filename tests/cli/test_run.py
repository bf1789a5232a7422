"""`bench run` as a user calls it: what it leaves, what it skips, and what it refuses."""

import csv
import json
from dataclasses import replace

import pytest
from PIL import Image
from support import SHORT, forge, leaderboard, values

from bench import plugins
from bench.results import storage
from bench.runtime.fingerprint import code_digest

# Training of rotation that ends in a loss that is not finite.
DIVERGING = [*SHORT, "recipes.rotation.learning_rate=1e6", "recipes.rotation.optimizer='sgd'"]


def test_the_main_job_leaves_records_and_a_leaderboard(bench_run, tmp_path):
    done = bench_run("random_init,imagenet,rotation,supervised")
    assert done.status == 0, done.err
    folder = tmp_path / "out/smoke"
    found = storage.read_all(folder)
    assert [path.parent.name for path in found] == [
        "imagenet",
        "random_init",
        "rotation",
        "supervised",
    ]
    for path, entry in found.items():
        assert entry.status == "ok"
        assert 0 <= entry.value <= 100
        arrays = storage.read_predictions(path, entry)
        assert arrays["scores"].shape == arrays["truth"].shape
        assert len(arrays["ids"]) == len(arrays["scores"]) == 80
    trained = found[folder / "voc_cls/rotation/seed0.json"]
    assert trained.pretraining.views_seen == 64
    assert "accuracy" in trained.pretraining.logged
    assert {"pretraining_train", "voc_train", "voc_test"} == {*trained.data}
    text = (folder / "LEADERBOARD.md").read_text()
    assert all(name in text for name in ("imagenet", "random_init", "rotation", "supervised"))
    assert "voc_cls" in done.out
    assert "checking" not in done.out, "stdout carries the table only"

    before = leaderboard(folder)
    again = bench_run("rotation,imagenet,supervised,random_init")
    assert again.status == 0
    assert "4 up to date, 0 to run" in again.err
    assert leaderboard(folder) == before


def test_a_deleted_record_comes_back_and_the_leaderboard_with_it(bench_run, tmp_path):
    methods = "random_init,imagenet,rotation"
    assert bench_run(methods).status == 0
    folder = tmp_path / "out/smoke"
    before = leaderboard(folder)
    for file in ("voc_cls/rotation/seed0.json", "voc_cls/rotation/seed0.npz"):
        (folder / file).unlink()
    done = bench_run(methods)
    assert done.status == 0
    assert "2 up to date, 1 to run" in done.err
    assert leaderboard(folder) == before


@pytest.mark.slow
def test_neither_order_nor_company_nor_the_cache_changes_a_number(bench_run, tmp_path):
    for name, methods in {"a": "rotation,random_init", "b": "random_init,rotation"}.items():
        done = bench_run(methods, out=tmp_path / name, cache=tmp_path / f"cache-{name}")
        assert done.status == 0
    assert bench_run("rotation", out=tmp_path / "c", cache=tmp_path / "cache-a").status == 0
    first, second = (values(tmp_path / name / "smoke") for name in "ab")
    assert first == second
    assert values(tmp_path / "c/smoke") == first


def test_a_failed_cell_fails_alone_and_is_run_again(bench_run, tmp_path):
    done = bench_run("rotation,random_init", sets=DIVERGING)
    assert done.status == 1
    folder = tmp_path / "out/smoke"
    failed = storage.read(folder / "voc_cls/rotation/seed0.json")
    assert failed.status == "failed"
    assert "the loss is not finite by step" in failed.error
    assert storage.read(folder / "voc_cls/random_init/seed0.json").status == "ok"
    assert "| failed |" in (folder / "LEADERBOARD.md").read_text()
    assert "not finite" in (folder / "LEADERBOARD.md").read_text()
    assert "Traceback" not in done.err
    again = bench_run("rotation,random_init", sets=DIVERGING)
    assert "1 up to date, 1 to run" in again.err


def test_a_workers_error_is_one_line_without_its_traceback(bench_run, tmp_path, monkeypatch):
    def spoilt(image, recipe):
        raise ValueError("cannot crop this")

    monkeypatch.setattr("bench.training.pretext.random_crop", spoilt)  # workers are forked with it
    assert bench_run("rotation", cache=tmp_path / "cache").status == 1
    failed = storage.read(tmp_path / "out/smoke/voc_cls/rotation/seed0.json")
    assert failed.error == "ValueError: cannot crop this"


def test_a_record_of_other_settings_is_never_overwritten(bench_run):
    assert bench_run("random_init").status == 0
    done = bench_run("random_init", sets=[*SHORT, "pretraining.batch=32"])
    assert done.status == 2
    assert "has other settings of suite smoke" in done.error


def test_a_failed_cell_concerns_no_other_method(bench_run, tmp_path):
    done = bench_run("bigan,random_init", "--set", "recipes.bigan.crop=40")
    assert (done.status, "not crop = 40" in done.err) == (1, True)
    assert bench_run("random_init").status == 0  # recorded, and bigan is not asked for
    assert bench_run("random_init-L").status == 0


def test_a_failed_cell_of_other_settings_does_not_block_the_right_ones(bench_run, tmp_path):
    assert bench_run("rotation", sets=DIVERGING).status == 1
    assert bench_run("rotation").status == 0
    text = (tmp_path / "out/smoke/LEADERBOARD.md").read_text()
    assert "**Failed cells**" not in text
    assert "| failed |" not in text


def test_a_recipe_of_one_method_leaves_the_others_recorded(bench_run):
    assert bench_run("random_init,rotation").status == 0
    other = [*SHORT, "recipes.jigsaw.learning_rate=0.5"]
    assert "2 up to date, 0 to run" in bench_run("random_init,rotation", sets=other).err
    done = bench_run("rotation", sets=[*SHORT, "recipes.rotation.learning_rate=0.5"])
    assert done.status == 2
    assert (
        "rotation/seed0.json: was trained by another recipe than suite smoke has for rotation"
        in done.error
    )


def test_a_changed_method_or_task_version_runs_again(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    path = tmp_path / "out/smoke/voc_cls/random_init/seed0.json"
    for key in ("method_version", "task_version"):
        entry = json.loads(path.read_text())
        forge(path, **{key: 0})
        assert "0 up to date, 1 to run" in bench_run("random_init").err
        assert json.loads(path.read_text())[key] == entry[key]


def test_the_code_of_what_ships_decides_nothing_and_its_version_does(
    bench_run, tmp_path, monkeypatch
):
    assert bench_run("random_init").status == 0
    sources = plugins._sources
    changed = tmp_path / "random_init.py"

    def with_the_changed_file(kind):
        own = {"random_init": replace(sources("methods")["random_init"], path=changed)}
        return sources(kind) | (own if kind == "methods" else {})

    text = plugins.source("methods", "random_init").path.read_text()
    before = plugins.code("methods", "random_init")
    monkeypatch.setattr(plugins, "_sources", with_the_changed_file)
    changed.write_text(text.replace("self", "me"))
    assert plugins.code("methods", "random_init") != before
    assert "1 up to date, 0 to run" in bench_run("random_init").err
    changed.write_text(text.replace("version: ClassVar[int] = 1", "version: ClassVar[int] = 2"))
    assert "0 up to date, 1 to run" in bench_run("random_init").err
    record = storage.read(tmp_path / "out/smoke/voc_cls/random_init/seed0.json")
    assert record.method_version == 2


EDITED = '''"""Edited: its file is edited while it is at work."""

from pathlib import Path

from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import Pretraining


class Edited:
    """An untrained encoder."""

    reference = "ours"
    version = 1
    datasets = {datasets}

    def pretrain(self, context):
        file = Path(__file__)
        file.write_text(file.read_text() + "EDITED = True\\n")
        encoder = Encoder(context.backbone.name)
        encoder.pretraining = Pretraining(views_seen=64)
        return encoder
'''


@pytest.mark.parametrize("datasets", ["()", '("pretraining",)'])
def test_a_record_is_of_the_code_with_which_its_method_began(
    bench_run, tmp_path, own_plugins, datasets
):
    file = tmp_path / "edited.py"
    file.write_text(EDITED.format(datasets=datasets))
    begun = code_digest([file])
    assert bench_run(str(file)).status == 0
    record = storage.read(tmp_path / "out/smoke/voc_cls/edited/seed0.json")
    assert (record.status, record.method_digest) == ("ok", begun)
    assert code_digest([file]) != begun
    later = bench_run(str(file), "--dry-run")
    assert "1 to run" in later.out + later.err, "by the code as it is now"


UNSAVED = '''"""Unsaved: the truth as its own prediction, and something that no file can have."""

import numpy as np

from bench.config.schema import TaskSettings
from bench.evaluation.task import TaskResult


class Unsaved:
    """Perfect scores."""

    reference = "ours"
    version = 1
    metric = "mAP"
    dataset_kinds = ("voc",)

    class Settings(TaskSettings):
        """Which data set."""

        dataset: str = "voc"

    def evaluate(self, encoder, context):
        test = context.dataset.test
        predictions = {{
            "ids": np.array(test.ids),
            "classes": np.array(context.dataset.classes),
            "scores": test.labels.astype(np.float32),
            "truth": test.labels,
        }}
        return TaskResult({result})
'''


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("predictions, image=np.ones((8, 8, 3))", "TypeError: Cannot handle this data type"),
        ("predictions, image=np.ones((8, 8), np.float32)", "OSError: cannot write mode F as PNG"),
        ('predictions | {"own": np.array([{}])}', "ValueError: Object arrays cannot be saved"),
    ],
)
def test_a_result_that_cannot_be_saved_is_a_failed_cell_and_the_others_go_on(
    bench_run, tmp_path, own_plugins, result, message
):
    file = tmp_path / "unsaved.py"
    file.write_text(UNSAVED.format(result=result))
    done = bench_run("random_init", "--tasks", f"{file},voc_cls")
    assert (done.status, "Traceback" in done.err) == (1, False)
    path = tmp_path / "out/smoke/unsaved/random_init/seed0.json"
    failed = storage.read(path)
    assert failed.status == "failed"
    assert failed.error.startswith(message)
    assert not path.with_suffix(".npz").exists()
    assert storage.read(tmp_path / "out/smoke/voc_cls/random_init/seed0.json").status == "ok"


def test_more_seeds_extend_a_run(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    done = bench_run("random_init", "--seeds", "2")
    assert "2 cells, 1 up to date, 1 to run" in done.err
    (row,) = csv.DictReader((tmp_path / "out/smoke/leaderboard.csv").open())
    assert row["seeds"] == "2"


def test_list_names_everything(bench):
    done = bench("list")
    assert done.status == 0
    for name in ("rotation", "voc_cls", "mini", "1803.07728"):
        assert name in done.out
    assert "voc_cls" not in bench("list", "methods").out


def test_other_images_or_versions_are_refused_before_anything_is_computed(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    path = tmp_path / "out/smoke/voc_cls/random_init/seed0.json"
    entry = storage.read(path)
    for change, message in (
        (
            {"data": {"voc_test": "0" * 64}},
            "the images changed since this result was recorded (voc_test)",
        ),
        ({"task_version": 0}, "was scored by version 0 of voc_cls"),
        ({"task_digest": "0" * 64}, "was scored by other code of voc_cls, version 1"),
        (
            {"task_settings": entry.task_settings | {"folds": 9}},
            "other settings or data than [tasks.voc_cls] of suite smoke has (folds); use another",
        ),
        ({"task_settings": {}}, ", 2 more); use another --out"),
        ({"suite_sha256": "0" * 64}, "has other settings of suite smoke"),
    ):
        storage.save(entry.model_copy(update=change), path)
        done = bench_run("imagenet")
        assert (done.status, message in done.error) == (2, True)
        assert not list((tmp_path / "out").rglob("imagenet/*"))


def test_changed_code_of_a_task_or_a_method_is_seen(monkeypatch, tmp_path):
    before = plugins.code("tasks", "voc_cls"), plugins.code("methods", "rotation")
    spoilt = tmp_path / "voc_cls.py"
    source = plugins.source("tasks", "voc_cls")
    spoilt.write_text(source.path.read_text().replace("argmax", "argmin"))
    monkeypatch.setattr(plugins, "source", lambda kind, name: replace(source, path=spoilt))
    assert plugins.code("tasks", "voc_cls") != before[0]
    assert plugins.code("methods", "rotation") != before[1]


def test_samples_are_beside_the_record_and_are_linked(bench_run, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    assert bench_run("split_brain,random_init", out=out, cache=cache).status == 0
    folder = out / "smoke" / "voc_cls"
    with Image.open(folder / "split_brain" / "samples.png") as image:
        assert image.width > image.height > 3 * 32  # ten columns, three rows of 32 px crops
        assert len(image.getcolors(1 << 20)) > 100
    assert not (folder / "random_init" / "samples.png").exists()
    text = (out / "smoke" / "LEADERBOARD.md").read_text()
    assert "[split_brain](voc_cls/split_brain/samples.png)" in text
    first = (folder / "split_brain" / "samples.png").read_bytes()
    assert bench_run("split_brain", out=tmp_path / "again", cache=cache).status == 0  # from cache
    again = tmp_path / "again" / "smoke" / "voc_cls" / "split_brain" / "samples.png"
    assert again.read_bytes() == first


def test_samples_that_may_not_be_copied_are_not_linked(bench, bench_run, tmp_path):
    out = tmp_path / "out"
    assert bench_run("split_brain,random_init", out=out).status == 0
    (out / "smoke" / "voc_cls" / "split_brain" / "samples.png").unlink()
    assert bench("leaderboard", "--check", "--out", out).status == 2
    assert bench("leaderboard", "--out", out).status == 0
    assert "samples.png" not in (out / "smoke" / "LEADERBOARD.md").read_text()
