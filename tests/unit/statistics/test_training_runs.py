"""Which rows tell of the training runs of which."""

import numpy as np
import pytest
from made_up import save

from bench.encoders.pretraining import LearningRates, TrainingTrace
from bench.statistics import calibration
from bench.statistics.model import NO_SPREAD, Kind, Seeds
from bench.statistics.training_runs import training_runs

TRACE = TrainingTrace([0], [], LearningRates(1.0, 1.0, 1.0, "a" * 64), 64, {})
ROTATION = (26.0, 27.0, 28.0)


@pytest.fixture
def row(tmp_path):
    """The records of a method, by the values of its seeds."""

    def make(method, *values, first=0, **changes):
        return [
            save(tmp_path / "records", method, 0.8, seed).model_copy(
                update={"value": value, **changes}
            )
            for seed, value in enumerate(values, start=first)
        ]

    return make


def calibrated(*rows, share=None):
    """The calibration of the task of some rows, the share that of each."""
    records = [record for row in rows for record in row]
    shares = {(record.task, record.method): share for record in records}
    return calibration.calibrate(records, shares).tasks["voc_cls"]


def same(spread, kind, name):
    expected = kind.spread(name)
    np.testing.assert_allclose(spread.sds, expected.sds)
    np.testing.assert_allclose(spread.weights, expected.weights)


def test_one_seed_alone_tells_nothing(row):
    runs = training_runs({"rotation": row("rotation", 26.0)}, None)["rotation"]
    assert (runs.spread, runs.source, runs.kind, runs.rows) == (None, "unknown", "pretrained", 0)


def test_a_row_of_one_seed_is_told_of_by_rows_of_its_kind(row):
    rows = {"rotation": row("rotation", *ROTATION), "jigsaw": row("jigsaw", 30.0)}
    rows["random_init"] = row("random_init", 24.0)
    runs = training_runs(rows, None)
    kind = Kind({"rotation": Seeds.of(ROTATION)})
    same(runs["rotation"].spread, kind, "rotation")
    same(runs["jigsaw"].spread, kind, "jigsaw")
    assert [runs[name].source for name in rows] == ["seeds", "kind", "unknown"]
    assert [runs[name].rows for name in rows] == [1, 1, 0]
    assert runs["random_init"].spread is None


def test_weights_that_are_given_are_fixed(row):
    rows = {"imagenet": row("imagenet", 60.0), "rotation": row("rotation", *ROTATION)}
    runs = training_runs(rows, None)["imagenet"]
    assert (runs.spread, runs.source, runs.kind) == (NO_SPREAD, "fixed", "reference")


@pytest.mark.parametrize("method", ["imagenet", "jigsaw"])
def test_seeds_of_the_same_weights_and_predictions_are_fixed(row, method):
    records = [row(method, 60.0)[0].model_copy(update={"seed": seed}) for seed in range(3)]
    rows = {method: records, "rotation": row("rotation", *ROTATION)}
    runs = training_runs(rows, None)
    assert (runs[method].spread, runs[method].source) == (NO_SPREAD, "fixed")
    same(runs["rotation"].spread, Kind({"rotation": Seeds.of(ROTATION)}), "rotation")


def test_a_checkpoint_is_fixed(row):
    rows = {"mine": row("mine", 60.0, recipe={}), "rotation": row("rotation", *ROTATION)}
    runs = training_runs(rows, None)["mine"]
    assert (runs.spread, runs.source, runs.kind) == (NO_SPREAD, "fixed", "reference")


def test_fixed_weights_of_one_seed_vary_where_others_do(row):
    rows = {"imagenet": row("imagenet", 60.0, 61.0), "mine": row("mine", 60.0, recipe={})}
    runs = training_runs(rows, None)["mine"]
    assert runs.source == "kind" and runs.spread.varies


def test_given_weights_vary_where_the_task_trains(row):
    rows = {
        "imagenet": row("imagenet", 60.0, training=TRACE),
        "rotation": row("rotation", *ROTATION, training=TRACE),
    }
    runs = training_runs(rows, None)
    assert runs["imagenet"].kind == runs["rotation"].kind == "fine-tuned"
    same(runs["imagenet"].spread, Kind({"rotation": Seeds.of(ROTATION)}), "imagenet")


def test_given_weights_whose_seeds_differ_all_the_same_vary(row):
    runs = training_runs({"imagenet": row("imagenet", 60.0, 61.0)}, None)["imagenet"]
    assert runs.source == "seeds" and runs.spread.varies


def test_seeds_of_other_predictions_that_tie_are_runs_like_others(row):
    rows = {"rotation": row("rotation", *ROTATION), "jigsaw": row("jigsaw", 30.0, 30.0)}
    runs = training_runs(rows, None)["jigsaw"]
    assert runs.source == "seeds" and runs.spread.varies


def test_a_calibration_tells_of_rows_that_it_has_and_of_those_of_their_kind(row):
    part = calibrated(row("rotation", *ROTATION), row("colorization", 30.0, 33.0), share=0.2)
    rows = {"rotation": row("rotation", 26.0), "jigsaw": row("jigsaw", 30.0)}
    runs = training_runs(rows, part)
    kind = Kind({"rotation": Seeds.of(ROTATION), "colorization": Seeds.of([30.0, 33.0])})
    same(runs["rotation"].spread, kind, "rotation")
    same(runs["jigsaw"].spread, kind, "jigsaw")
    assert [runs[name].source for name in rows] == ["calibration", "kind"]
    assert [runs[name].rows for name in rows] == [2, 2]
    assert [runs[name].interaction for name in rows] == [0.2, pytest.approx(0.2)]
    assert set(runs) == set(rows)


def test_own_seeds_join_those_of_the_calibration_and_one_number_counts_once(row):
    part = calibrated(row("rotation", *ROTATION))
    again = training_runs({"rotation": row("rotation", *ROTATION)}, part)["rotation"]
    same(again.spread, Kind({"rotation": Seeds.of(ROTATION)}), "rotation")
    assert again.source == "seeds"
    more = training_runs({"rotation": row("rotation", 30.0, 31.0, first=2)}, part)["rotation"]
    joined = (26.0, 27.0, 30.0, 31.0)  # seed 2 is the folder's own
    same(more.spread, Kind({"rotation": Seeds.of(joined)}), "rotation")


@pytest.mark.parametrize("changes", [{"method_version": 2}, {"recipe": {"views": 7}}])
def test_the_calibration_of_another_version_or_recipe_is_not_used(row, changes):
    part = calibrated(row("rotation", *ROTATION))
    runs = training_runs({"rotation": row("rotation", 26.0, **changes)}, part)["rotation"]
    assert (runs.spread, runs.source) == (None, "unknown")


def test_a_method_that_the_table_lacks_tells_of_its_kind(row):
    part = calibrated(row("rotation", *ROTATION))
    runs = training_runs({"jigsaw": row("jigsaw", 30.0)}, part)["jigsaw"]
    same(runs.spread, Kind({"rotation": Seeds.of(ROTATION)}), "jigsaw")


def test_the_share_of_a_row_without_its_own_is_the_mean_of_its_kind(row):
    part = calibrated(row("rotation", *ROTATION), row("colorization", 30.0, 33.0))
    rows = {
        "rotation": part.rows["rotation"].model_copy(update={"interaction": 0.1}),
        "colorization": part.rows["colorization"].model_copy(update={"interaction": 0.3}),
    }
    part = part.model_copy(update={"rows": rows})
    runs = training_runs({"jigsaw": row("jigsaw", 30.0), "rotation": row("rotation", 26.0)}, part)
    assert runs["jigsaw"].interaction == pytest.approx(0.2)
    assert runs["rotation"].interaction == 0.1
    none = training_runs({"jigsaw": row("jigsaw", 30.0, 31.0)}, None)["jigsaw"]
    assert none.interaction == 0
