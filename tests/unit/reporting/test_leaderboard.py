"""The leaderboard's rows, from made-up records: values, gaps, ranks, seeds, warnings."""

import itertools

import numpy as np
import pytest
from made_up import FAILED, TUNED, TUNING, calibrate, encoder, save, text_of
from scipy.stats import kendalltau

from bench.encoders.pretraining import PretextScore, Pretraining
from bench.reporting import columns, format, leaderboard, markdown, text
from bench.reporting.warnings import warnings
from bench.results import storage
from bench.results.record import HyperparameterFacts
from bench.statistics.cache import all_resampled_scores
from bench.statistics.intervals import ConfidenceInterval, Estimate


def rows(folder):
    return {row.method: row for row in leaderboard.load(folder / "made").tables[0].rows}


def test_rows_are_ranked_and_gaps_are_differences(folder):
    found = rows(folder)
    assert list(found) == ["imagenet", "rotation", "random_init"]
    top, middle, low = (found[m].value.value for m in found)
    assert found["rotation"].gap.value == pytest.approx(top - middle)
    assert found["rotation"].gain.value == pytest.approx(middle - low)
    share = found["rotation"].gap_closed
    assert share.value == pytest.approx((middle - low) / (top - low))
    assert 0 < share.low < share.value < share.high < 1
    assert found["imagenet"].gap.value == found["imagenet"].gap.low == 0
    assert found["imagenet"].gap_closed == Estimate(1, ConfidenceInterval(1, 1))
    assert found["random_init"].gap_closed == Estimate(0, ConfidenceInterval(0, 0))
    for row in found.values():
        assert row.value.low < row.value.value < row.value.high


def test_pairing_narrows_the_gap(tmp_path):
    save(tmp_path, "imagenet", 2.0)
    twin = save(tmp_path, "twin", 2.0)
    path = tmp_path / "made/voc_cls"
    same = storage.read_predictions(
        path / "imagenet/seed0.json", storage.read(path / "imagenet/seed0.json")
    )
    whole = storage.read(path / "imagenet/seed0.json")
    scores = {"value": whole.value, "per_class": whole.per_class}
    storage.save(twin.model_copy(update=scores), path / "twin/seed0.json", same)
    alone = rows(tmp_path)["twin"].gap
    assert alone.low == alone.high
    calibrate(tmp_path)
    gap = rows(tmp_path)["twin"].gap
    assert gap.images == pytest.approx(alone.interval), "test images still leave no doubt"
    assert gap.low < 0 < gap.high
    found = leaderboard.load(tmp_path / "made").tables[0]
    assert [row.ranks for row in found.rows] == [(1, 2), (1, 2)]
    assert found.rows[0].p_better == pytest.approx(0.5)


def test_rank_ranges_are_the_ranks_that_a_row_may_have(folder):
    save(folder, "near", 0.8)
    calibrate(folder)
    save(folder, "broken", 0, error="RuntimeError: boom", **FAILED)
    found = leaderboard.load(folder / "made").tables[0]
    ranks = {row.method: row.ranks for row in found.rows}
    assert ranks["imagenet"] == (1, 1)
    assert ranks["rotation"] == ranks["near"] == (2, 3)
    assert ranks["random_init"] == (4, 4)
    assert ranks["broken"] is None
    pair = found.pairs["rotation", "near"]
    assert pair.difference.low < 0 < pair.difference.high
    assert "| 2-3 | Rotation `rotation` |" in text_of(folder)


def test_a_probability_is_the_share_of_samples_in_that_order(folder):
    save(folder, "near", 0.75)
    calibrate(folder)
    found = leaderboard.load(folder / "made").tables[0]
    for (one, other), pair in found.pairs.items():
        assert pair.p_better + found.pairs[other, one].p_better == pytest.approx(1)
        assert pair.difference.value == pytest.approx(
            -found.pairs[other, one].difference.value, abs=1e-9
        )
        assert (pair.difference.low > 0) <= (pair.p_better >= 0.975)
    named = {row.method: row for row in found.rows}
    order = [row.method for row in found.rows]
    for above, below in itertools.pairwise(order):
        assert named[above].p_better == found.pairs[above, below].p_better
    assert named[order[-1]].p_better is None


def test_without_a_distance_between_baseline_and_reference_no_gap_is_closed(tmp_path):
    for method, quality in {"imagenet": 0.5, "rotation": 0.8, "random_init": 0.5}.items():
        save(tmp_path, method, quality)
    assert all(row.gap_closed is None for row in rows(tmp_path).values())
    page = text_of(tmp_path)
    assert "No **gap closed**: ImageNet is not significantly better than random init." in page


def test_seeds_are_averaged(folder):
    other = save(folder, "rotation", 0.8, seed=1)
    row = rows(folder)["rotation"]
    assert row.value.value == pytest.approx(np.mean([other.value, row.records[0].value]))
    assert len(row.scored) == 2


def test_seeds_that_differ_widen_an_interval_and_seeds_that_do_not_leave_it(folder):
    one = rows(folder)["rotation"].value
    for seed in (1, 2):
        save(folder, "rotation", 0.8, seed=seed)
    alike = rows(folder)["rotation"].value
    save(folder, "rotation", 0.2, seed=1)
    save(folder, "rotation", 1.6, seed=2)
    apart = rows(folder)["rotation"]
    assert apart.value.high - apart.value.low > 2 * (alike.high - alike.low)
    assert apart.value.high - apart.value.low > 2 * (one.high - one.low)
    assert apart.gap.high - apart.gap.low > 2 * (one.high - one.low)
    assert "**Test images only** for `random_init`" in text_of(folder)


def test_one_seed_without_a_calibration_claims_no_order(folder):
    save(folder, "worse", 0.0)
    table = leaderboard.load(folder / "made").tables[0]
    assert table.images_only and table.above_baseline is None
    for row in table.rows:
        assert (row.ranks, row.own_ranks, row.p_better, row.warnings) == (None, None, None, ())
        assert row.value.images is None
    assert [row.runs.source for row in table.rows] == ["fixed", *("unknown",) * 3]
    unknown = {pair.different for key, pair in table.pairs.items() if "imagenet" not in key}
    assert unknown == {None}
    page = text_of(folder)
    assert "**Test images only.** No row has several seeds" in page
    assert "| Method | mAP (95% CI), test images only |" in page
    assert "pretrained methods" not in page


def test_with_several_seeds_ranks_come(folder):
    for method, quality in (("rotation", 1.1), ("random_init", 0.4)):
        save(folder, method, quality, seed=1)
    table = leaderboard.load(folder / "made").tables[0]
    assert not table.images_only
    assert [row.runs.source for row in table.rows] == ["fixed", "seeds", "seeds"]
    for row in table.rows[1:]:
        assert row.ranks.first <= row.ranks.last
        assert row.ranks.first <= row.own_ranks.first and row.own_ranks.last <= row.ranks.last
        assert row.value.low < row.value.images.low < row.value.images.high < row.value.high
    assert table.rows[0].value.images is None, "its weights are fixed"
    assert 0 < table.rows[0].p_better <= 1


def test_a_calibration_widens_the_interval_of_one_seed_and_gives_ranks(folder):
    alone = rows(folder)["rotation"].value
    calibrate(folder, moves=(0, 3, -3))
    table = leaderboard.load(folder / "made").tables[0]
    row = table.row("rotation")
    assert (row.runs.source, len(row.scored)) == ("calibration", 1)
    assert row.value.value == alone.value
    assert row.value.images == pytest.approx(alone.interval)
    assert row.value.low < alone.low and alone.high < row.value.high
    assert row.shares["images"] + row.shares["training"] == pytest.approx(1)
    assert row.sd == pytest.approx((row.runs.spread.variance / row.shares["training"]) ** 0.5)
    assert all(row.ranks for row in table.rows)
    assert "How far another run would move them is known from the calibration" in text_of(folder)


def test_a_calibration_of_other_settings_is_not_used(folder):
    calibrate(folder)
    path = folder / "made/uncertainty.toml"
    path.write_text(path.read_text().replace('suite_sha256 = "a', 'suite_sha256 = "b'))
    assert leaderboard.load(folder / "made").tables[0].images_only


def test_unknown_rows_among_known_ones_have_no_rank(folder):
    for seed, quality in enumerate((0.8, 0.7, 0.9)):
        save(folder, "rotation", quality, seed=seed)
    save(folder, "near", 0.8)
    table = leaderboard.load(folder / "made").tables[0]
    sources = {row.method: row.runs.source for row in table.rows}
    assert sources == {
        "imagenet": "fixed",
        "rotation": "seeds",
        "near": "kind",
        "random_init": "unknown",
    }
    assert {row.method for row in table.known} == {"imagenet", "rotation", "near"}
    ranks = {row.method: row.ranks for row in table.rows}
    assert ranks.pop("random_init") is None
    assert max(last for _, last in ranks.values()) == 3, "of the three that are known"
    assert table.above_baseline is None, "nothing is known of the baseline"
    assert not any("random_init" in text for row in table.rows for text in row.warnings)
    page = text_of(folder)
    assert "**Test images only** for `random_init`: no row of that kind has several seeds." in page
    assert "ranks are among the other rows" in page
    assert "**One seed** of `near`" in page
    assert "taken from rows like" in page
    assert "The weights of `imagenet` come from elsewhere." in page


def test_the_methods_above_the_baseline_are_counted_jointly(folder):
    save(folder, "worse", 0.0)
    save(folder, "unlike", 0.8)
    calibrate(folder)
    table = leaderboard.load(folder / "made").tables[0]
    assert table.above_baseline == {"rotation", "unlike"}
    text = "2 of 3 pretrained methods beat random init, tested jointly at 95%: `rotation` and "
    assert f"{text}`unlike`." in text_of(folder)
    calibrate(folder, moves=(0, 60, -60))
    assert leaderboard.load(folder / "made").tables[0].above_baseline == frozenset()
    assert "0 of 3 pretrained methods beat random init" in text_of(folder)


def test_a_share_of_the_gap_has_an_interval_of_images_alone(folder):
    assert rows(folder)["rotation"].gap_closed.images is None
    calibrate(folder, moves=(0, 2, -2))
    share = rows(folder)["rotation"].gap_closed
    assert share.low < share.images.low < share.images.high < share.high


def test_how_training_runs_are_known_is_said_of_each_row(folder):
    for seed, quality in enumerate((0.8, 1.1)):
        save(folder, "rotation", quality, seed=seed)
    save(folder, "near", 0.8)
    found = rows(folder)
    assert text.runs_known(found["imagenet"]) == "Training runs: none, its weights are fixed."
    sd = f"One run varies by {found['near'].runs.spread.variance ** 0.5:.2f} points (sd)."
    assert text.runs_known(found["near"]) == f"Training runs: by 1 row of its kind. {sd}"
    assert text.runs_known(found["rotation"]).startswith("Training runs: by its own 2 seeds. One")
    assert text.runs_known(found["random_init"]) == text.UNKNOWN
    calibrate(folder)
    found = rows(folder)
    known = "Training runs: by its seeds in the suite's calibration and those of 1 row of its kind."
    assert text.runs_known(found["near"]).startswith(known)
    save(folder, "broken", 0, error="boom", **FAILED)
    assert text.runs_known(rows(folder)["broken"]) == ""


def test_what_would_settle_a_difference_is_said_where_rows_are_not_told_apart(folder):
    save(folder, "near", 0.78)
    table = leaderboard.load(folder / "made").tables[0]
    assert not any(text.needed(row, table) for row in table.rows), "nothing is known of runs"
    calibrate(folder)
    table = leaderboard.load(folder / "made").tables[0]
    first, second = (row for row in table.rows if row.role == "pretrained")
    [sentence] = text.needed(first, table)
    pair = table.pairs[first.method, second.method]
    ways = format.settled(pair.difference, pair.needed)
    assert sentence == f"From the next row, {second.method}: {ways}."
    assert text.needed(second, table) == [], "told apart from the baseline, which is next"
    calibrate(folder, moves=(0, 30, -30))
    table = leaderboard.load(folder / "made").tables[0]
    first, second = (row for row in table.rows if row.role == "pretrained")
    assert [s.partition(":")[0] for s in text.needed(first, table)] == [
        f"From the next row, {second.method}",
        "From random_init",
    ]
    assert [s.partition(":")[0] for s in text.needed(second, table)] == [
        "From the next row, random_init"
    ]


def test_rows_that_show_nothing_say_so(folder):
    save(folder, "worse", 0.0)
    save(folder, "same", 0.2)
    calibrate(folder)
    found = rows(folder)
    assert found["worse"].warnings == ("below random_init",)
    assert "random_init" in found["same"].warnings[0]
    assert found["rotation"].warnings == ()


def test_a_row_whose_input_no_untrained_row_shares_is_warned_of_all_the_same(folder):
    save(folder, "hopeless", -2.0, encoder=encoder("L"))
    calibrate(folder)
    row = rows(folder)["hopeless"]
    assert row.matched_baseline is None
    assert row.warnings == ("below random_init",)


def test_what_a_task_warns_of_is_said_once_for_all_seeds(folder):
    for seed in (0, 1):
        save(folder, "rotation", 0.8, seed=seed, warnings=["collapsed features"])
    assert rows(folder)["rotation"].warnings.count("collapsed features") == 1


def own_score(value, low, trivial=0.25, answer="chance", measure="accuracy"):
    """The history of an encoder that was scored at its own task."""
    better = measure == "accuracy"
    score = PretextScore(measure, better, value, answer, trivial, low, low + 0.1, 512)
    return Pretraining(views_seen=100, seconds=1.0, pretext=score)


def test_a_row_says_what_it_reached_at_its_own_task(folder):
    save(folder, "turned", 0.8, pretraining=own_score(0.706, 0.3))
    save(folder, "turned", 0.8, seed=1, pretraining=own_score(0.714, 0.3))
    error = own_score(0.031, 0.01, 0.05, "the mean image", "squared error")
    save(folder, "painted", 0.8, pretraining=error)
    save(folder, "puzzled", 0.8, pretraining=own_score(0.04, 0.01, 1 / 701))
    table = leaderboard.load(folder / "made").tables[0]
    texts = {row.method: columns.named("pretext").text(table, row) for row in table.rows}
    assert texts == {
        "turned": "71% of 4-way (chance 25%)",
        "painted": "squared error 0.62 of the mean image's",
        "puzzled": "4.0% of 701-way (chance 0.1%)",
        **dict.fromkeys(("imagenet", "random_init", "rotation"), "-"),
    }
    assert "| 71% of 4-way (chance 25%) |" in text_of(folder)
    assert not any("at its own task" in text for row in table.rows for text in row.warnings)


def test_a_row_that_learned_nothing_of_its_own_task_is_warned_of(folder):
    save(folder, "turned", 1.0, pretraining=own_score(0.3, 0.02))
    save(folder, "turned", 1.0, seed=1, pretraining=own_score(0.27, -0.01))
    assert rows(folder)["turned"].warnings == ("not better than chance at its own task",)


@pytest.mark.parametrize(
    ("name", "tried", "selected", "warned"),
    [
        ("learning_rate", [0.1, 0.01, 0.001], 0.01, ""),
        ("learning_rate", [0.1, 0.01, 0.001], 0.001, " "),
        ("learning_rate", [0.1], 0.1, ""),  # nothing was tuned
        ("cost", [1, 10, 100], {"cat": 1, "cow": 10, "dog": 100}, " for 2 of 3"),
        ("cost", [1, 10, 100], {"cat": 1, "cow": 10, "dog": 10, "hen": 100}, ""),
        ("neighbors", [10, 20], 20, ""),  # a list by itself, not steps of a scale
        ("ridge", ["low", "high"], "low", ""),  # a task from elsewhere may record anything
    ],
)
def test_a_rate_or_cost_at_the_edge_of_its_grid_is_warned_of(folder, name, tried, selected, warned):
    facts = HyperparameterFacts(selected={name: selected}, tried={name: tried})
    save(folder, "narrow", 1.0, hyperparameters=facts)
    text = f"{name} selected at the edge of its grid{warned}".strip()
    assert rows(folder)["narrow"].warnings == ((text,) if warned else ())


@pytest.mark.parametrize(
    ("points", "warned"),
    [
        ({"background": 76.0, "cat": 0.9, "cow": 0.0}, "every class but background"),
        ({"cat": 0.9, "cow": 0.0, "hen": 0.3}, "every class"),
        ({"background": 76.0, "cat": 1.0, "cow": 0.0}, ""),
        ({"cat": 76.0, "cow": 0.0}, ""),  # two classes: a score of one is half of all
    ],
)
def test_a_row_of_one_class_is_warned_of(folder, points, warned):
    record = save(folder, "blind", 1.0).model_copy(update={"per_class": points})
    expected = [f"scores below 1 in {warned}"] if warned else []
    assert warnings([record], None, {}) == expected


def test_an_interval_without_width_is_warned_of(folder):
    save(folder, "perfect", 50.0)  # every test image is right
    found = rows(folder)["perfect"]
    assert (found.value.low, found.value.high) == (100.0, 100.0)
    assert found.warnings == (
        "too few test images for an interval: all halves of them score the same",
    )


def test_a_collapsed_generator_is_warned_of(folder):
    for name, diversity in (("dull", 0.02), ("lively", 0.7)):
        facts = {"views_seen": 100, "seconds": 1.0}
        learned = Pretraining(**facts, logged={"diversity": diversity})
        save(folder, name, 1.0, pretraining=learned)
    found = rows(folder)
    assert found["dull"].warnings == ("generated images collapsed",)
    assert found["lively"].warnings == ()


def test_a_row_is_compared_with_what_its_own_input_gives_untrained(folder):
    low = save(folder, "random_init-L", 0.1, role="untrained", encoder=encoder("L"))
    gray = save(folder, "gray", 0.8, encoder=encoder("L"))
    idle = save(folder, "idle", 0.1, encoder=encoder("L"))
    save(folder, "alone", 0.8, encoder=encoder("ab"))
    calibrate(folder)
    found = rows(folder)
    assert found["gray"].matched_baseline == "random_init-L"
    assert found["gray"].matched_gain.value == pytest.approx(gray.value - low.value)
    assert found["rotation"].matched_baseline == "random_init"
    assert found["rotation"].matched_gain == found["rotation"].gain
    assert found["idle"].matched_gain.value == pytest.approx(idle.value - low.value)
    assert any("random_init-L" in text for text in found["idle"].warnings)
    assert found["alone"].matched_gain is None
    for baseline in ("random_init", "random_init-L"):
        assert found[baseline].matched_gain is None
        assert found[baseline].warnings == ()


def test_no_name_decides_who_is_a_baseline_or_the_reference(tmp_path):
    save(tmp_path, "labels", 2.0, role="reference")
    save(tmp_path, "random_init_moco", 3.0)
    save(tmp_path, "random_init", 0.8, role="pretrained")
    save(tmp_path, "noise", 0.2, role="untrained")
    save(tmp_path, "imagenet", 0.0, role="pretrained")
    calibrate(tmp_path)
    table = leaderboard.load(tmp_path / "made").tables[0]
    assert (table.reference, table.baseline) == ("labels", "noise")
    found = {row.method: row for row in table.rows}
    for method in ("random_init_moco", "random_init", "imagenet"):
        assert found[method].matched_baseline == "noise"
        assert found[method].gap.value == pytest.approx(
            found["labels"].value.value - found[method].value.value
        )
    assert found["random_init_moco"].warnings == ()
    assert "below noise" in found["imagenet"].warnings
    assert found["random_init_moco"].gap_closed.value > 1


def test_of_several_references_the_first_by_name_is_taken(folder):
    save(folder, "a_reference", 3.0, role="reference")
    assert leaderboard.load(folder / "made").tables[0].reference == "a_reference"


def test_a_failed_baseline_is_none(tmp_path):
    save(tmp_path, "imagenet", 2.0)
    save(tmp_path, "random_init", 0, error="boom", **FAILED)
    table = leaderboard.load(tmp_path / "made").tables[0]
    assert table.baseline is None
    assert table.rows[0].gain is None


def test_a_mean_over_a_class_that_others_lack_is_said(folder):
    records, _ = storage.read_valid(folder / "made")
    scores, _ = all_resampled_scores(records, None)
    with_dog = {
        path: record.model_copy(update={"per_class": {**record.per_class, "dog": 0.0}})
        for path, record in records.items()
        if record.method == "rotation"
    }
    rows = leaderboard.build(records | with_dog, scores).tables[0].rows
    said = [row.method for row in rows if any("its mean counts dog" in w for w in row.warnings)]
    assert said == ["rotation"]


def test_a_failed_row_is_last_with_its_error(folder):
    calibrate(folder)
    save(folder, "broken", 0, error="RuntimeError: boom", **FAILED)
    found = leaderboard.load(folder / "made")
    assert found.failed([("voc_cls", "broken", 0), ("voc_cls", "imagenet", 0)])
    assert not found.failed([("voc_cls", "imagenet", 0)]), "nothing that was asked for failed"
    assert found.failed([("voc_cls", "imagenet", 1)]), "it has no record"
    assert found.tables[0].rows[-1].method == "broken"
    page = text_of(folder)
    assert "| - | broken | - |" in page
    assert "RuntimeError: boom" in page


def test_rows_of_another_backbone_have_a_table_of_their_own(folder):
    web = encoder("rgb", backbone="web")
    before = leaderboard.load(folder / "made").tables[0]
    save(folder, "mine", 1.5, encoder=web)
    save(folder, "random_init@web", 0.1, role="untrained", encoder=web)
    save(folder, "imagenet@web", 0.1, role="reference", **FAILED)
    loaded = leaderboard.load(folder / "made")
    own, other = loaded.tables
    assert (own.backbone, own.name) == ("", "voc_cls")
    assert (other.backbone, other.name) == ("web", "voc_cls-web")
    assert [row.method for row in own.rows] == [row.method for row in before.rows]
    assert own.rows[1].gap == before.rows[1].gap, "nothing changes for the others"
    assert [row.method for row in other.rows] == ["mine", "random_init@web", "imagenet@web"]
    assert other.reference is None, "no gap to the labels of another backbone"
    assert other.rows[0].gap is None
    assert other.rows[0].matched_baseline == other.baseline == "random_init@web"
    assert other.rows[2].status == "failed"
    assert {*loaded.to_dataframe()["method"]} >= {"mine", "rotation"}
    side_by_side = markdown.backbones(loaded)
    assert "| web | 0.0 M | mine |" in side_by_side
    assert side_by_side.count("no ImageNet weights") == 3
    assert markdown.backbones(leaderboard.load(folder / "made")) == side_by_side


def test_one_backbone_is_not_put_beside_itself(folder):
    assert markdown.backbones(leaderboard.load(folder / "made")) == ""


def of_two_tasks(folder, methods=6, tuned=4):
    """Scores of a frozen task, and of a fine-tuned one in the same order for the first methods."""
    for method, quality in (("imagenet", 2.0), ("random_init", 0.2)):
        save(folder, method, quality)
        save(folder, method, quality, task="voc_det", task_settings=TUNING, **TUNED)
    for k in range(methods):
        save(folder, f"m{k}", 0.3 + 0.3 * k)
    for k in range(tuned):
        save(folder, f"m{k}", 0.3 + 0.3 * k, task="voc_det", task_settings=TUNING, **TUNED)


def test_tasks_agree_over_the_methods_pretrained_here(tmp_path):
    of_two_tasks(tmp_path, tuned=6)
    found = leaderboard.load(tmp_path / "made")
    ((tasks, correlation),) = found.correlations.items()
    assert tasks == ("voc_cls", "voc_det")
    assert sorted(correlation.methods) == [f"m{k}" for k in range(6)], "no reference, no untrained"
    assert not correlation.runs
    scores = [{row.method: row.value.value for row in table.rows} for table in found.tables]
    expected = kendalltau(*([side[f"m{k}"] for k in range(6)] for side in scores))[0]
    assert correlation.estimate.value == pytest.approx(expected)
    assert 0 < correlation.estimate.low <= correlation.estimate.high <= 1
    (line,) = found.correlations_dataframe().itertuples()
    assert (line.tau_b, line.methods) == (correlation.estimate.value, 6)
    shown = text_of(tmp_path)
    assert f"| voc_cls | {format.coefficient(correlation.estimate)} |" in shown
    assert "between the scores of the 6 methods" in shown
    question = "Do frozen probes predict `voc_det` (mAP)? "
    assert f"{question}Not claimed, since training runs are not known: `voc_cls` " in shown
    assert "**Test images only** in `voc_cls`, `voc_det`: " in shown
    calibrate(tmp_path, tasks={"voc_cls"})
    assert "**Test images only** in `voc_det`: " in text_of(tmp_path)
    calibrate(tmp_path)
    shown = text_of(tmp_path)
    assert f"{question}1 of 1 does, by an interval above 0: `voc_cls` " in shown
    assert "**Test images only** in `" not in shown


def test_few_methods_in_common_have_no_correlation(tmp_path):
    of_two_tasks(tmp_path)
    found = leaderboard.load(tmp_path / "made")
    assert found.correlations["voc_cls", "voc_det"].estimate is None
    assert found.correlations_dataframe().empty
    assert markdown.agreement(found) == ""
    for k in range(6):
        save(tmp_path, f"m{k}", 2 - 0.3 * k, task="knn")
    shown = markdown.agreement(leaderboard.load(tmp_path / "made"))
    assert "|  | voc_cls |" in shown, "a task without a number has no column"
    assert "`voc_det` (mAP)? Not known: methods with both scores: 4, needed: 5." in shown
