"""The leaderboard's files, from made-up records."""

import csv

import numpy as np
import pytest
from made_up import (
    FAILED,
    OTHER_RECIPE,
    SUITE,
    TUNED,
    TUNING,
    calibrate,
    encoder,
    save,
    text_of,
)
from support import FILES, forge

from bench.config.schema import Synthetic
from bench.reporting import leaderboard, plots, publish
from bench.results import storage
from bench.results.record import Provenance


def test_the_files_say_the_same_each_time_and_check_sees_a_stale_one(folder, bench):
    made = folder / "made"
    assert bench("leaderboard", "--out", folder).status == 0
    names = (*FILES, "stages_voc_cls.svg", "views_voc_cls.svg", "time_voc_cls.svg")
    before = [(made / name).read_bytes() for name in names]
    assert bench("leaderboard", "--out", folder).status == 0
    assert [(made / name).read_bytes() for name in names] == before
    assert bench("leaderboard", "--out", folder, "--check").status == 0
    save(folder, "late", 1.0)
    done = bench("leaderboard", "--out", folder, "--check")
    assert done.status == 2
    assert "stale: LEADERBOARD.md, leaderboard.csv, leaderboard.html;" in done.error


def test_the_csv_has_the_promised_columns(folder):
    text = publish.texts(leaderboard.load(folder / "made"))["leaderboard.csv"].decode()
    first = next(csv.DictReader(text.splitlines()))
    promised = "task task_version method seeds value value_low value_high gap gap_low gap_high"
    assert {*promised.split(), "gap_closed", "views_seen", "seconds", "status"} <= first.keys()
    assert first["method"] == "imagenet"
    assert float(first["value_low"]) < float(first["value"]) < float(first["value_high"])


def test_the_text_says_what_was_measured_on_what(folder):
    text = text_of(folder)
    assert "tested on 120 images of `VOC/val`" in text
    assert "official" not in text
    assert "rendered" not in text
    assert "- `rotation`: Rotation: which of four right-angle rotations" in text
    counts = {"pretraining_train": 5000, "voc_train": 90, "voc_test": 120}
    data = {name: name[0] * 64 for name in counts}
    for path in storage.read_all(folder / "made"):
        forge(path, num_images=counts, data=data)
    text = text_of(folder)
    assert "Trained on 90 images of `VOC/train`, tested on 120 images of `VOC/val`" in text
    assert "5,000 images of `corpus`" in text
    synthetic = Synthetic(seed=0, size=32, pretraining=40, validation=9, train=50, test=120)
    for path in storage.read_all(folder / "made"):
        suite = SUITE.model_copy(update={"synthetic": synthetic})
        forge(path, num_images={}, suite_settings=suite, data={"voc_test": "d" * 64})
    text = text_of(folder)
    assert "**The images are rendered**" in text
    assert "40 rendered scenes of `corpus`" in text
    assert "Trained on 50 images of `VOC/train`, tested on 120 images of `VOC/val`" in text


def test_control_characters_of_a_record_are_nowhere(folder, bench):
    """Neither in files nor in what Python and the terminal get: ESC may rewrite a terminal."""
    made = folder / "made"
    bad = "a\u202eb\x00\x1b[31m\u2028\u00ad\n# h"
    names = {bad: 0.5}
    save(folder, "broken", 0, error=bad, data={"voc_test": bad}, **FAILED)
    images = {"data": {"voc_test": bad}, "num_images": {bad: 5}, "timings": names}
    facts = {"warnings": [bad], "diagnostics": names, "weights": {bad: bad}, "recipe": {bad: bad}}
    for path in storage.files(made):
        record = storage.read(path)
        if record.status == "failed":
            continue
        with np.load(path.with_suffix(".npz")) as archive:
            arrays = dict(archive)
        arrays["classes"] = np.array([bad, "bee", "cat"])
        values = {bad if name == "ape" else name: v for name, v in record.per_class.items()}
        changes = {**facts, **images, "per_class": values, "excluded_classes": [bad]}
        changes["environment"] = {bad: bad, "processor": bad, "cpu": bad}
        changes["provenance"] = Provenance(command=[bad])
        changes["suite_settings"] = SUITE.model_copy(update={"summary": bad})
        changes["encoder"] = encoder(bad)
        storage.save(record.model_copy(update=changes), path, arrays)
    loaded = leaderboard.load(made)
    assert not loaded.problems
    publish.render(loaded, made, pytest.fail)
    files = [p for p in made.iterdir() if p.suffix in (".md", ".csv", ".html", ".svg")]
    texts = {path.name: path.read_text() for path in files}
    texts["latex"] = loaded.to_latex() + loaded.to_latex("voc_cls")
    texts["pandas"] = loaded.to_dataframe().to_csv() + loaded.pairs_dataframe().to_csv()
    for command in (["compare", "rotation", "random_init"], ["leaderboard"]):
        done = bench(*command, "--out", folder)
        assert done.status == 0
        texts[command[0]] = done.out + done.err
    for name, text in texts.items():
        odd = {c for c in text if not c.isprintable() and c not in "\n\t"}
        assert not odd, name
    for name in ("LEADERBOARD.md", "leaderboard.csv", "leaderboard.html", "compare"):
        assert r"\u202e" in texts[name], name


def test_a_subset_of_an_official_split_is_called_one(folder):
    voc = SUITE.datasets["voc"].model_copy(update={"test": ("VOC2007/test",)})
    suite = SUITE.model_copy(update={"datasets": SUITE.datasets | {"voc": voc}})
    for path in storage.read_all(folder / "made"):
        forge(path, suite_settings=suite)
    text = text_of(folder)
    assert "**A subset of VOC, no official numbers**" in text
    assert "VOC2007/test has 120 images, officially 4,952" in text


def test_one_methods_own_recipe_leaves_the_table_whole_and_is_named(folder):
    save(folder, "rotation", 0.8, recipe=OTHER_RECIPE)
    text = text_of(folder)
    assert "| 100 views, batch 10, crops of 8 px, crop area 0.5 to 1 of the image, sgd," in text
    assert "Own recipe: 200 views." in text


def test_a_methods_own_keys_are_part_of_its_recipe(folder):
    save(folder, "rotation", 0.8, recipe=OTHER_RECIPE | {"temperature": 0.2})
    assert "Own recipe: 200 views, temperature 0.2." in text_of(folder)


def tune(folder):
    for method, quality in (("imagenet", 3.0), ("random_init", 0.5)):
        save(folder, method, quality, task="voc_cls_finetune", task_settings=TUNING, **TUNED)


def test_a_fine_tuned_task_says_how_and_the_overview_has_every_gap(folder):
    tune(folder)
    text = text_of(folder)
    assert "## Overview: gap to ImageNet" in text
    assert "| Method | voc_cls (mAP) | voc_cls_finetune (mAP) |" in text
    overview = text.split("## Overview")[1].split("##")[0]
    assert "| rotation |" not in overview, "rotation ran in one task"
    assert "| imagenet | - | - |" in overview
    assert "on 640 random crops of 64 px in batches of 8: sgd" in text
    assert "learning rate 0.01 or 0.1. Each rate is tried" in text
    assert "The best on a held-out 20% of the training split" in text
    assert "| learning rate 0.1 |" in text


def test_without_imagenet_there_is_no_gap_and_no_plot(tmp_path):
    save(tmp_path, "rotation", 0.8)
    found = leaderboard.load(tmp_path / "made")
    assert found.tables[0].rows[0].gap is None
    publish.write(found, tmp_path / "made")
    assert not list((tmp_path / "made").glob("gap_*"))
    assert "Gap to ImageNet |" not in text_of(tmp_path).split("## Glossary")[0].split("###")[1]


def test_a_plot_that_fails_loses_no_table(folder, monkeypatch):
    def fail(table):
        raise RuntimeError("no font")

    monkeypatch.setattr(plots, "gap", fail)
    found = leaderboard.load(folder / "made")
    with pytest.raises(RuntimeError, match="no font"):
        publish.write(found, folder / "made")
    texts = publish.texts(found)
    for name, content in texts.items():
        assert (folder / "made" / name).read_bytes() == content
    assert b"<code>rotation</code></button>" in (folder / "made/leaderboard.html").read_bytes()
    monkeypatch.undo()
    publish.write(found, folder / "made")
    assert publish.stale(found, folder / "made") == []


def test_a_section_order_is_figure_sentence_table_more_and_how(folder):
    save(folder, "worse", 0.0)
    calibrate(folder)
    text = text_of(folder)
    parts = [
        "## voc_cls\n\n![Gap to ImageNet](gap_voc_cls.svg)\n\n`imagenet` reaches",
        "| Rank range | Method | mAP (95% CI) | Gap to ImageNet | Gain over random init | Warn",
        "Points of mAP below ImageNet",
        "### More columns",
        "### How each row was obtained",
        "](classes_voc_cls.svg)",
        "## How to read the tables",
        "## Glossary",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_a_column_that_says_nothing_of_any_row_is_left_out(folder):
    text = text_of(folder)
    assert "| Method | mAP (95% CI), test images only | Gap to ImageNet | Gain over random" in text
    assert "Warnings |" not in text


def test_what_a_record_says_cannot_break_a_table(folder):
    save(folder, "rotation", 0.8, warnings=["a | b\n<img src=x>"])
    calibrate(folder)
    line = next(x for x in text_of(folder).splitlines() if "img" in x)
    assert line.startswith("| 2 | Rotation `rotation` |")
    assert "a \\| b &lt;img src=x>" in line
