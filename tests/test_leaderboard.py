"""The board's files, from made-up records."""

import csv

from made_up import OTHER_RECIPE, SETTINGS, TUNING, save
from support import BOARD, forge

from bench.reporting import leaderboard, publish
from bench.results import storage


def test_the_files_say_the_same_each_time_and_check_sees_a_stale_one(folder, bench):
    made = folder / "made"
    assert bench("board", "--out", folder).status == 0
    names = (*BOARD, "stages_voc_cls.svg", "images_voc_cls.svg", "time_voc_cls.svg")
    before = [(made / name).read_bytes() for name in names]
    assert bench("board", "--out", folder).status == 0
    assert [(made / name).read_bytes() for name in names] == before
    assert bench("board", "--out", folder, "--check").status == 0
    save(folder, "late", 1.0)
    done = bench("board", "--out", folder, "--check")
    assert done.status == 2
    assert "stale: LEADERBOARD.md, publish.csv, leaderboard.html;" in done.error


def test_the_csv_has_the_promised_columns(folder):
    text = publish.texts(leaderboard.load(folder / "made"))["leaderboard.csv"].decode()
    first = next(csv.DictReader(text.splitlines()))
    promised = "task task_version method seeds value value_low value_high gap gap_low gap_high"
    assert {*promised.split(), "closed", "views_seen", "seconds", "status"} <= first.keys()
    assert first["method"] == "imagenet"
    assert float(first["value_low"]) < float(first["value"]) < float(first["value_high"])


def test_the_text_says_what_was_measured_on_what(folder):
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
    assert "tested on 120 images of `val`" in text
    assert "official" not in text
    assert "rendered" not in text
    assert "- `rotation`: Rotation: which of four right-angle turns" in text
    for path in storage.read_all(folder / "made"):
        forge(path, images={"corpus": 5000, "voc_train": 90, "voc_test": 120})
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
    assert "Trained on 90 images of `train`, tested on 120 images of `val`" in text
    assert "images of `corpus` (5,000 images)" in text
    scenes = {"seed": 0, "size": 32, "corpus": 40, "train": 50, "test": 120}
    for path in storage.read_all(folder / "made"):
        forge(path, images={}, suite_settings=SETTINGS | {"scenes": scenes})
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
    assert "**The images are rendered**" in text
    assert "rendered scenes, in `VOC`" in text
    assert "Trained on 50 images of `train`, tested on 120 images of `val`" in text


def test_one_methods_own_recipe_leaves_the_table_whole_and_is_named(folder):
    save(folder, "rotation", 0.8, suite_settings=OTHER_RECIPE)
    text = publish.texts(leaderboard.load(folder / "made"))["LEADERBOARD.md"].decode()
    assert "| 100 inputs, crops of 8 px, learning rate 0.1 |" in text
    assert "Other than above: 200 inputs." in text


def test_a_fine_tuned_task_says_how_and_the_overview_has_every_gap(folder):
    tuned = SETTINGS | {"voc_cls_finetune": TUNING}
    for method, quality in (("imagenet", 3.0), ("random_init", 0.5)):
        save(
            folder,
            method,
            quality,
            suite_settings=tuned,
            task="voc_cls_finetune",
            scores={},
            selection={"learning_rate": 0.1, "candidates": 2},
        )
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
    assert "## Overview: gap to imagenet" in text
    assert "| method | voc_cls (mAP) | voc_cls_finetune (mAP) |" in text
    assert "with 640 random crops of 64 px in batches of 8 by sgd" in text.replace(", by", " by")
    assert "learning rate 0.01 or 0.1: each is tried" in text
    assert "does best on a held-out 20% of the training list" in text
    assert "| rate 0.1 |" in text


def test_without_imagenet_there_is_no_gap_and_no_plot(tmp_path):
    save(tmp_path, "rotation", 0.8)
    found = leaderboard.load(tmp_path / "made")
    assert found.tables[0].rows[0].gap is None
    publish.write(found, tmp_path / "made")
    assert not list((tmp_path / "made").glob("gap_*"))
