"""`bench run` as a user calls it: what it leaves, what it skips, and what it refuses."""

import json

from PIL import Image
from support import SMOKE, board, forge, values

from bench.results import storage


def test_the_main_job_leaves_records_and_a_board(bench_run, tmp_path):
    done = bench_run("random_init,imagenet,rotation,supervised")
    assert done.status == 0, done.err
    folder = tmp_path / "out/mini"
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


def test_a_deleted_record_comes_back_and_the_board_with_it(bench_run, tmp_path):
    methods = "random_init,imagenet,rotation"
    assert bench_run(methods).status == 0
    folder = tmp_path / "out/mini"
    before = board(folder)
    for file in ("voc_cls/rotation/seed0.json", "voc_cls/rotation/seed0.npz"):
        (folder / file).unlink()
    done = bench_run(methods)
    assert done.status == 0
    assert "2 recorded already, 1 to run" in done.err
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


def test_a_failed_cell_fails_alone_and_is_run_again(bench_run, tmp_path):
    hot = [*SMOKE, "recipes.rotation.learning_rate=1e30", "recipes.rotation.optimizer='sgd'"]
    done = bench_run("rotation,random_init", sets=hot)
    assert done.status == 1
    folder = tmp_path / "out/mini"
    failed = storage.read(folder / "voc_cls/rotation/seed0.json")
    assert failed.status == "failed"
    assert "the loss is not finite by step" in failed.error
    assert storage.read(folder / "voc_cls/random_init/seed0.json").status == "ok"
    assert "FAILED" in (folder / "LEADERBOARD.md").read_text()
    assert "not finite" in (folder / "LEADERBOARD.md").read_text()
    assert "Traceback" not in done.err
    again = bench_run("rotation,random_init", sets=hot)
    assert "1 recorded already, 1 to run" in again.err


def test_a_workers_error_is_one_line_without_its_traceback(bench_run, tmp_path, monkeypatch):
    def spoilt(image, recipe):
        raise ValueError("cannot crop this")

    monkeypatch.setattr("bench.training.pretext.random_crop", spoilt)  # workers are forked with it
    assert bench_run("rotation", cache=tmp_path / "cache").status == 1
    failed = storage.read(tmp_path / "out/mini/voc_cls/rotation/seed0.json")
    assert failed.error == "ValueError: cannot crop this"


def test_a_record_of_other_settings_is_never_overwritten(bench_run):
    assert bench_run("random_init").status == 0
    done = bench_run("random_init", sets=[*SMOKE, "voc.min_positives=4"])
    assert done.status == 2
    assert "was made by other settings of suite mini" in done.error


def test_a_failed_cell_concerns_no_other_method(bench_run, tmp_path):
    done = bench_run("bigan,random_init", "--set", "recipes.bigan.crop=40")
    assert (done.status, "not crop = 40" in done.err) == (1, True)
    assert bench_run("random_init").status == 0  # recorded, and bigan is not asked for
    assert bench_run("random_init_l").status == 0


def test_a_failed_cell_of_other_settings_does_not_block_the_right_ones(bench_run, tmp_path):
    assert bench_run("random_init", sets=[*SMOKE, "backbone.name='resnet_foo'"]).status == 1
    assert bench_run("random_init").status == 0
    text = (tmp_path / "out/mini/LEADERBOARD.md").read_text()
    assert "**Failed cells**" not in text
    assert "| FAILED |" not in text


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
        forge(path, **{key: value})
        assert "0 recorded already, 1 to run" in bench_run("random_init").err
        assert json.loads(path.read_text())[key] == entry[key]


def test_more_seeds_extend_a_run(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    done = bench_run("random_init", "--seeds", "2")
    assert "2 cells, 1 recorded already, 1 to run" in done.err
    row = (tmp_path / "out/mini/leaderboard.csv").read_text().splitlines()[1].split(",")
    assert row[3] == "2"


def test_list_names_everything(bench):
    done = bench("list")
    assert done.status == 0
    for name in ("rotation", "voc_cls", "mini", "1803.07728"):
        assert name in done.out
    assert "voc_cls" not in bench("list", "methods").out


def test_other_images_or_versions_are_refused_before_anything_is_computed(bench_run, tmp_path):
    assert bench_run("random_init").status == 0
    path = tmp_path / "out/mini/voc_cls/random_init/seed0.json"
    entry = storage.read(path)
    for change, message in (
        ({"data": {"voc_test": "0" * 64}}, "was made on other images (voc_test)"),
        ({"task_version": 0}, "was scored by version 0 of voc_cls"),
        ({"task_code": "0" * 64}, "was scored by other code of voc_cls"),
        ({"suite_sha256": "0" * 64}, "was made by other settings of suite mini"),
    ):
        storage.save(entry.model_copy(update=change), path)
        done = bench_run("imagenet")
        assert (done.status, message in done.error) == (2, True)
        assert not list((tmp_path / "out").rglob("imagenet/*"))


def test_changed_code_of_a_task_or_a_method_is_seen(monkeypatch, tmp_path):
    from bench import plugins

    before = plugins.code("tasks", "voc_cls"), plugins.code("methods", "rotation")
    spoilt = tmp_path / "voc_cls.py"
    spoilt.write_text(plugins.source("tasks", "voc_cls").read_text().replace("argmax", "argmin"))
    monkeypatch.setattr(plugins, "source", lambda kind, name: spoilt)
    assert plugins.code("tasks", "voc_cls") != before[0]
    assert plugins.code("methods", "rotation") != before[1]


def test_samples_lie_beside_the_record_and_are_linked(bench_run, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    assert bench_run("split_brain,random_init", out=out, cache=cache).status == 0
    folder = out / "mini" / "voc_cls"
    with Image.open(folder / "split_brain" / "samples.png") as image:
        assert image.width > image.height > 3 * 32  # ten columns, three rows of 32 px crops
        assert len(image.getcolors(1 << 20)) > 100
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
