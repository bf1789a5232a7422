"""The board's rows, from made-up records: values, gaps, ranks, seeds, flags."""

import itertools

import numpy as np
import pytest
from made_up import save

from bench.reporting import leaderboard, publish
from bench.results import storage
from bench.results.record import EncoderFacts, PretrainingFacts


def rows(folder):
    return {row.method: row for row in leaderboard.load(folder / "made").tables[0].rows}


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
    assert found["imagenet"].closed == leaderboard.Estimate(1, 1, 1)
    assert found["random_init"].closed == leaderboard.Estimate(0, 0, 0)
    for row in found.values():
        assert row.value.low < row.value.value < row.value.high


def test_pairing_narrows_the_gap(tmp_path):
    save(tmp_path, "imagenet", 2.0)
    twin = save(tmp_path, "twin", 2.0)
    path = tmp_path / "made/voc_cls"
    same = storage.read_predictions(
        path / "imagenet/seed0.json", storage.read(path / "imagenet/seed0.json")
    )
    whole = storage.read(path / "imagenet/seed0.json").value
    storage.save(twin.model_copy(update={"value": whole}), path / "twin/seed0.json", same)
    assert rows(tmp_path)["twin"].gap.low == rows(tmp_path)["twin"].gap.high
    found = leaderboard.load(tmp_path / "made").tables[0]
    assert [(row.rank, row.last_rank) for row in found.rows] == [(1, 2), (1, 2)]
    assert found.rows[0].above_next == 0.5


def test_ranks_are_the_places_that_a_row_may_have(folder):
    save(folder, "near", 0.8)
    save(folder, "broken", 0, status="failed", value=None, error="RuntimeError: boom", scores={})
    found = leaderboard.load(folder / "made").tables[0]
    places = {row.method: (row.rank, row.last_rank) for row in found.rows}
    assert places["imagenet"] == (1, 1)
    assert places["rotation"] == places["near"] == (2, 3)
    assert places["random_init"] == (4, 4)
    assert places["broken"] == (None, None)
    pair = found.pairs["rotation", "near"]
    assert pair.difference.low < 0 < pair.difference.high
    text = publish.texts(leaderboard.load(folder / "made"))["LEADERBOARD.md"].decode()
    assert "| 2-3 | rotation |" in text


def test_a_probability_is_the_share_of_resamples_in_that_order(folder):
    save(folder, "near", 0.75)
    found = leaderboard.load(folder / "made").tables[0]
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
    text = leaderboard.markdown(leaderboard.load(tmp_path / "made"))
    assert "No **closed**: imagenet is not above random_init by more than chance." in text


def test_seeds_are_averaged(folder):
    other = save(folder, "rotation", 0.8, seed=1)
    row = rows(folder)["rotation"]
    assert row.value.value == pytest.approx(np.mean([other.value, row.records[0].value]))
    assert len(row.scored) == 2


def test_seeds_that_differ_widen_an_interval_and_seeds_that_do_not_leave_it(folder):
    one = rows(folder)["rotation"].value
    assert "**One run per row" in leaderboard.markdown(leaderboard.load(folder / "made"))
    for seed in (1, 2):
        save(folder, "rotation", 0.8, seed=seed)
    alike = rows(folder)["rotation"].value
    save(folder, "rotation", 0.2, seed=1)
    save(folder, "rotation", 1.6, seed=2)
    apart = rows(folder)["rotation"]
    assert apart.value.high - apart.value.low > 2 * (alike.high - alike.low)
    assert apart.value.high - apart.value.low > 2 * (one.high - one.low)
    assert apart.gap.high - apart.gap.low > 2 * (one.high - one.low)
    text = leaderboard.markdown(leaderboard.load(folder / "made"))
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
        facts = {"views_seen": 100, "seconds": 1.0, "images_per_second": 100.0}
        learned = PretrainingFacts(**facts, logged={"diversity": diversity})
        save(folder, name, 1.0, pretraining=learned)
    found = rows(folder)
    assert found["dull"].flags == ("generated images collapsed",)
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
    found = leaderboard.load(folder / "made")
    assert found.failed({"broken", "imagenet"}, {"voc_cls"})
    assert not found.failed({"imagenet"}, {"voc_cls"}), "nothing that was asked for failed"
    assert found.tables[0].rows[-1].method == "broken"
    text = publish.texts(found)["LEADERBOARD.md"].decode()
    assert "| broken | - |" in text
    assert "RuntimeError: boom" in text
