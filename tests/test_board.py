"""The board from made-up records."""

import csv
import itertools
import json
import shutil

import numpy as np
import pytest
from support import BOARD, forge

from bench import board, leaderboard, record
from bench.errors import UserError
from bench.metrics import mean_average_precision
from bench.record import EncoderFacts, PretrainingFacts, Record

SETTINGS = {
    "summary": "made up",
    "backbone": {"name": "net"},
    "corpus": {"folder": "corpus"},
    "pretraining": {"images": 100, "crop": 8, "learning_rate": 0.1},
    "recipes": {},
    "voc": {
        "folder": "VOC",
        "train": "train",
        "test": "val",
        "classes": ["ape", "bee", "cat"],
        "size": 32,
        "min_positives": 2,
    },
}
OTHER_RECIPE = SETTINGS | {
    "recipes": {"rotation": {"images": 200, "crop": 8, "learning_rate": 0.1}}
}

OTHER_BACKBONE = EncoderFacts(backbone="web", weights_sha256="c" * 64, parameters=1)


def save(folder, method, quality, seed=0, **changes):
    """A record whose scores are the truth times `quality`, plus noise."""
    rng = np.random.default_rng(7)
    truth = np.where(rng.random((120, 3)) < 0.3, 1, -1).astype(np.int8)
    noise = np.random.default_rng([seed, *method.encode()]).normal(size=truth.shape)
    scores = (quality * truth + noise).astype(np.float32)
    value = 100 * mean_average_precision(scores, truth)
    entry = Record(
        suite="made",
        suite_sha256="a" * 64,
        suite_settings=SETTINGS,
        method=method,
        method_code="b" * 64,
        task="voc_cls",
        task_version=1,
        task_code="f" * 64,
        seed=seed,
        status="ok",
        metric="mAP",
        value=value,
        scores={"optimism": 0.5, "stage_mAP": [value - 1, value], "excluded_classes": ["yak"]},
        selection={"stage": 1, "candidates": 10, "unconverged": 0},
        encoder=EncoderFacts(backbone="net", weights_sha256="c" * 64, parameters=1),
        pretraining=PretrainingFacts(
            images_seen=100, seconds=1.0, images_per_second=100.0, monitors={}
        ),
        data={"voc_test": "d" * 64},
        created="2020-01-01T00:00:00+00:00",
    ).model_copy(update=changes)
    path = record.path_of(folder, "made", entry.task, method, seed)
    ids = np.arange(len(truth)).astype(str)
    arrays = {"scores": scores, "truth": truth, "ids": ids} if entry.status == "ok" else None
    return record.save(entry, path, arrays)


@pytest.fixture
def folder(tmp_path):
    for method, quality in {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}.items():
        save(tmp_path, method, quality)
    return tmp_path


def rows(folder):
    return {row.method: row for row in board.load(folder / "made").tables[0].rows}


def test_rows_are_ranked_and_gaps_are_differences(folder):
    found = rows(folder)
    assert list(found) == ["imagenet", "rotation", "random_init"]
    top, middle, low = (found[m].value.value for m in found)
    assert found["rotation"].gap.value == pytest.approx(top - middle)
    assert found["rotation"].over_floor.value == pytest.approx(middle - low)
    share = found["rotation"].closed
    assert share.value == pytest.approx((middle - low) / (top - low))
    assert 0 < share.low < share.value < share.high < 1
    assert found["imagenet"].gap.value == found["imagenet"].gap.low == 0
    assert found["imagenet"].closed == board.Estimate(1, 1, 1)
    assert found["random_init"].closed == board.Estimate(0, 0, 0)
    for row in found.values():
        assert row.value.low < row.value.value < row.value.high


def test_pairing_narrows_the_gap(tmp_path):
    save(tmp_path, "imagenet", 2.0)
    twin = save(tmp_path, "twin", 2.0)
    path = tmp_path / "made/voc_cls"
    same = record.read_predictions(
        path / "imagenet/seed0.json", record.read(path / "imagenet/seed0.json")
    )
    whole = record.read(path / "imagenet/seed0.json").value
    record.save(twin.model_copy(update={"value": whole}), path / "twin/seed0.json", same)
    assert rows(tmp_path)["twin"].gap.low == rows(tmp_path)["twin"].gap.high
    found = board.load(tmp_path / "made").tables[0]
    assert [(row.rank, row.last_rank) for row in found.rows] == [(1, 2), (1, 2)]
    assert found.rows[0].above_next == 0.5


def test_ranks_are_the_places_that_a_row_may_have(folder):
    save(folder, "near", 0.8)
    save(folder, "broken", 0, status="failed", value=None, error="RuntimeError: boom", scores={})
    found = board.load(folder / "made").tables[0]
    places = {row.method: (row.rank, row.last_rank) for row in found.rows}
    assert places["imagenet"] == (1, 1)
    assert places["rotation"] == places["near"] == (2, 3)
    assert places["random_init"] == (4, 4)
    assert places["broken"] == (None, None)
    pair = found.pairs["rotation", "near"]
    assert pair.difference.low < 0 < pair.difference.high
    text = leaderboard.texts(board.load(folder / "made"))["LEADERBOARD.md"].decode()
    assert "| 2-3 | rotation |" in text


def test_a_probability_is_the_share_of_resamples_in_that_order(folder):
    save(folder, "near", 0.75)
    found = board.load(folder / "made").tables[0]
    for (one, other), pair in found.pairs.items():
        assert pair.above + found.pairs[other, one].above == pytest.approx(1)
        assert pair.difference.value == pytest.approx(
            -found.pairs[other, one].difference.value, abs=1e-9
        )
        assert (pair.difference.low > 0) <= (pair.above >= 0.975)
    named = {row.method: row for row in found.rows}
    order = [row.method for row in found.rows]
    for above, below in itertools.pairwise(order):
        assert named[above].above_next == found.pairs[above, below].above
    assert named[order[-1]].above_next is None


def test_without_a_distance_between_floor_and_ceiling_no_share_is_closed(tmp_path):
    for method, quality in {"imagenet": 0.5, "rotation": 0.8, "random_init": 0.5}.items():
        save(tmp_path, method, quality)
    assert all(row.closed is None for row in rows(tmp_path).values())
    text = leaderboard.markdown(board.load(tmp_path / "made"))
    assert "No **closed**: imagenet is not above random_init by more than chance." in text


def test_seeds_are_averaged(folder):
    other = save(folder, "rotation", 0.8, seed=1)
    row = rows(folder)["rotation"]
    assert row.value.value == pytest.approx(np.mean([other.value, row.records[0].value]))
    assert len(row.scored) == 2


def test_seeds_that_differ_widen_an_interval_and_seeds_that_do_not_leave_it(folder):
    one = rows(folder)["rotation"].value
    assert "**One run per row" in leaderboard.markdown(board.load(folder / "made"))
    for seed in (1, 2):
        save(folder, "rotation", 0.8, seed=seed)
    alike = rows(folder)["rotation"].value
    save(folder, "rotation", 0.2, seed=1)
    save(folder, "rotation", 1.6, seed=2)
    apart = rows(folder)["rotation"]
    assert apart.value.high - apart.value.low > 2 * (alike.high - alike.low)
    assert apart.value.high - apart.value.low > 2 * (one.high - one.low)
    assert apart.gap.high - apart.gap.low > 2 * (one.high - one.low)
    text = leaderboard.markdown(board.load(folder / "made"))
    assert "**One seed** of imagenet, random_init: their intervals are over test" in text


def test_rows_that_show_nothing_say_so(folder):
    save(folder, "worse", 0.0)
    save(folder, "same", 0.2)
    found = rows(folder)
    assert found["worse"].flags == ("below random_init",)
    assert "random_init" in found["same"].flags[0]
    assert found["rotation"].flags == ()


def test_a_row_whose_input_no_untrained_row_shares_is_flagged_all_the_same(folder):
    gray = EncoderFacts(backbone="net", sees=["l"], weights_sha256="c" * 64, parameters=1)
    save(folder, "hopeless", -2.0, encoder=gray)
    row = rows(folder)["hopeless"]
    assert row.untrained is None
    assert row.flags == ("below random_init",)


def test_a_collapsed_generator_is_flagged(folder):
    for name, diversity in (("dull", 0.02), ("lively", 0.7)):
        facts = {"images_seen": 100, "seconds": 1.0, "images_per_second": 100.0}
        learnt = PretrainingFacts(**facts, monitors={"diversity": diversity})
        save(folder, name, 1.0, pretraining=learnt)
    found = rows(folder)
    assert found["dull"].flags == ("generated pictures collapsed",)
    assert found["lively"].flags == ()


def test_a_row_is_compared_with_what_its_own_input_gives_untrained(folder):
    def facts(sees):
        return EncoderFacts(backbone="net", sees=[sees], weights_sha256="c" * 64, parameters=1)

    low = save(folder, "random_init_l", 0.1, encoder=facts("l"))
    gray = save(folder, "gray", 0.8, encoder=facts("l"))
    idle = save(folder, "idle", 0.1, encoder=facts("l"))
    save(folder, "alone", 0.8, encoder=facts("ab"))
    found = rows(folder)
    assert found["gray"].untrained == "random_init_l"
    assert found["gray"].over_untrained.value == pytest.approx(gray.value - low.value)
    assert found["rotation"].untrained == "random_init"
    assert found["rotation"].over_untrained == found["rotation"].over_floor
    assert found["idle"].over_untrained.value == pytest.approx(idle.value - low.value)
    assert any("random_init_l" in flag for flag in found["idle"].flags)
    assert found["alone"].over_untrained is None
    for floor in ("random_init", "random_init_l"):
        assert found[floor].over_untrained is None
        assert found[floor].flags == ()


def test_a_failed_row_stands_last_with_its_error(folder):
    save(folder, "broken", 0, status="failed", value=None, error="RuntimeError: boom", scores={})
    found = board.load(folder / "made")
    assert found.failed({"broken", "imagenet"}, {"voc_cls"})
    assert not found.failed({"imagenet"}, {"voc_cls"}), "nothing that was asked for failed"
    assert found.tables[0].rows[-1].method == "broken"
    text = leaderboard.texts(found)["LEADERBOARD.md"].decode()
    assert "| broken | - |" in text
    assert "RuntimeError: boom" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite_sha256": "e" * 64}, "settings of the suite"),
        ({"task_version": 2}, "task version"),
        ({"task_code": "e" * 64}, "code that scored voc_cls"),
        ({"encoder": OTHER_BACKBONE}, "backbone"),
        ({"suite_settings": SETTINGS | {"voc_cls": {"rate": 1}}}, "settings of voc_cls"),
        ({"method": "rotation", "seed": 1, "method_code": "e" * 64}, "code of rotation"),
        ({"method": "rotation", "seed": 1, "suite_settings": OTHER_RECIPE}, "recipe of rotation"),
        ({"data": {"voc_test": "e" * 64}}, r"pictures \(voc_test\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, change, message):
    save(folder, **{"method": "other", "quality": 1.0} | change)
    with pytest.raises(UserError, match=message):
        board.load(folder / "made")


def test_one_methods_own_recipe_leaves_the_table_whole_and_is_named(folder):
    save(folder, "rotation", 0.8, suite_settings=OTHER_RECIPE)
    text = leaderboard.texts(board.load(folder / "made"))["LEADERBOARD.md"].decode()
    assert "| 100 inputs, crops of 8 px, learning rate 0.1 |" in text
    assert "Other than above: 200 inputs." in text


def test_a_copied_record_is_refused_not_counted_as_a_seed(folder):
    place = folder / "made/voc_cls/rotation"
    shutil.copytree(place, place.with_name("rotation_backup"))
    with pytest.raises(UserError, match=r"rotation_backup/seed0\.json: is a copy of the record"):
        board.load(folder / "made")


def test_a_value_that_its_predictions_do_not_give_is_refused(folder):
    for value in (99.9, float("nan")):
        forge(folder / "made/voc_cls/rotation/seed0.json", value=value)
        with pytest.raises(UserError, match=rf"says {value}, but its predictions give"):
            board.load(folder / "made")


def test_a_change_to_any_field_of_a_record_is_noticed(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    content = path.read_text()
    entry = json.loads(content)
    changed = 0
    for key, value in entry.items():
        other = {str: "x", int: 7, float: 7.5, list: ["x"], dict: {}}.get(type(value), "x")
        path.write_text(json.dumps(entry | {key: other}))
        if entry[key] != other:
            changed += 1
            with pytest.raises(UserError, match=r"seed0\.json|differ in"):
                board.load(folder / "made")
    assert changed > 20
    entry["suite_settings"]["pretraining"]["crop"] += 1
    path.write_text(json.dumps(entry))
    with pytest.raises(UserError, match=r"rotation/seed0\.json: has no seal, or was changed"):
        board.load(folder / "made")


def test_any_byte_of_a_record_or_its_predictions_is_noticed(folder):
    rng = np.random.default_rng(0)
    for name in ("seed0.json", "seed0.npz"):
        path = folder / "made/voc_cls/rotation" / name
        content = path.read_bytes()
        for place in rng.integers(len(content), size=60):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << rng.integers(7)
            path.write_bytes(spoilt)
            try:
                board.load(folder / "made")
            except UserError:
                continue
            # Not noticed, so it says the same: white space, or another way to write it.
            assert name == "seed0.json"
            assert json.loads(spoilt) == json.loads(content)
        path.write_bytes(content)
    board.load(folder / "made")


def test_what_the_cache_keeps_changes_no_byte_and_hides_no_change(folder, bench, tmp_path):
    cache, made = tmp_path / "cache", folder / "made"
    fresh = leaderboard.texts(board.load(made))
    assert leaderboard.texts(board.load(made, cache)) == fresh
    kept = sorted((cache / "resampled").iterdir())
    assert len(kept) == 3
    assert leaderboard.texts(board.load(made, cache)) == fresh
    rng = np.random.default_rng(0)
    content = kept[0].read_bytes()
    for place in [*range(60), *rng.integers(len(content), size=40), *range(-120, 0)]:
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.integers(8)
        kept[0].write_bytes(spoilt)
        assert leaderboard.texts(board.load(made, cache)) == fresh
    arrays = made / "voc_cls/rotation/seed0.npz"
    arrays.write_bytes(arrays.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"seed0\.npz: is not the file"):
        board.load(made, cache)


def test_many_records_are_resampled_in_processes_to_the_same_board(folder, tmp_path, monkeypatch):
    fresh = leaderboard.texts(board.load(folder / "made"))
    monkeypatch.setattr("bench.drawn.WORTHWHILE", 1)
    seen = []
    monkeypatch.setattr("bench.bootstrap.drawn_values", lambda *_: seen.append(1))  # not here
    assert leaderboard.texts(board.load(folder / "made", tmp_path / "cache")) == fresh
    assert not seen


def test_a_record_whose_seal_was_taken_off_is_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    entry = json.loads(path.read_text())
    del entry["seal"]
    path.write_text(json.dumps(entry))
    with pytest.raises(UserError, match=r"seed0\.json: has no seal, or was changed"):
        board.load(folder / "made")


def test_predictions_of_another_number_of_pictures_are_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    found = record.read(path)
    arrays = {name: array[:-1] for name, array in record.read_predictions(path, found).items()}
    value = 100 * mean_average_precision(arrays["scores"], arrays["truth"])
    record.save(found.model_copy(update={"value": value}), path, arrays)
    with pytest.raises(
        UserError, match=r"predictions of 1(19|20) pictures, .* of 1(19|20): never in"
    ):
        board.load(folder / "made")


@pytest.mark.parametrize("change", [{"value": None}, {"encoder": None}, {"suite_settings": {}}])
def test_an_incomplete_record_is_named(folder, change):
    path = folder / "made/voc_cls/rotation/seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"seed0\.json: not a record .*without"):
        board.load(folder / "made")


def test_changed_predictions_are_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"seed0\.npz: is not the file"):
        board.load(folder / "made")


def test_a_file_that_is_no_record_is_named(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"colour": "red"}))
    with pytest.raises(UserError, match=r"rotation/seed0\.json: not a record \(key 'colour'"):
        board.load(folder / "made")


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
    assert "LEADERBOARD.md, leaderboard.csv, leaderboard.html is stale" in done.error


def test_the_csv_has_the_promised_columns(folder):
    text = leaderboard.texts(board.load(folder / "made"))["leaderboard.csv"].decode()
    first = next(csv.DictReader(text.splitlines()))
    promised = "task task_version method seeds value value_low value_high gap gap_low gap_high"
    assert {*promised.split(), "closed", "images_seen", "seconds", "status"} <= first.keys()
    assert first["method"] == "imagenet"
    assert float(first["value_low"]) < float(first["value"]) < float(first["value_high"])


def test_the_text_says_what_was_measured_on_what(folder):
    text = leaderboard.markdown(board.load(folder / "made"))
    assert "tested on 120 pictures of `val`" in text
    assert "official" not in text
    assert "rendered" not in text
    assert "- `rotation`: Rotation: which of four right-angle turns" in text
    for path in record.read_all(folder / "made"):
        forge(path, pictures={"corpus": 5000, "voc_train": 90, "voc_test": 120})
    text = leaderboard.markdown(board.load(folder / "made"))
    assert "Trained on 90 pictures of `train`, tested on 120 pictures of `val`" in text
    assert "pictures of `corpus` (5,000 pictures)" in text
    scenes = {"seed": 0, "size": 32, "corpus": 40, "train": 50, "test": 120}
    for path in record.read_all(folder / "made"):
        forge(path, pictures={}, suite_settings=SETTINGS | {"scenes": scenes})
    text = leaderboard.markdown(board.load(folder / "made"))
    assert "**The pictures are rendered**" in text
    assert "rendered scenes, in `VOC`" in text
    assert "Trained on 50 pictures of `train`, tested on 120 pictures of `val`" in text


def test_without_imagenet_there_is_no_gap_and_no_plot(tmp_path):
    save(tmp_path, "rotation", 0.8)
    found = board.load(tmp_path / "made")
    assert found.tables[0].rows[0].gap is None
    leaderboard.write(found, tmp_path / "made")
    assert not list((tmp_path / "made").glob("gap_*"))


def test_a_record_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    record.write(path, b"old")

    def crash(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        record.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_fine_tuned_task_says_how_and_the_overview_has_every_gap(folder):
    tuned = SETTINGS | {
        "voc_cls_finetune": {
            "images": 640,
            "size": 64,
            "batch": 8,
            "optimiser": "sgd",
            "schedule": "step",
            "learning_rates": [0.01, 0.1],
            "held_out": 0.2,
            "trial": 0.25,
            "frozen": False,
        }
    }
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
    text = leaderboard.markdown(board.load(folder / "made"))
    assert "## Overview: gap to imagenet" in text
    assert "| method | voc_cls (mAP) | voc_cls_finetune (mAP) |" in text
    assert "with 640 random crops of 64 px in batches of 8 by sgd" in text.replace(", by", " by")
    assert "learning rate 0.01 or 0.1: each is tried" in text
    assert "does best on a held-out 20% of the training list" in text
    assert "| rate 0.1 |" in text
