"""Resampled scores of a record: the value they start from, the cache that keeps them."""

import shutil

import numpy as np
import pytest
from made_up import arrays_of, save
from support import forge

from bench.metrics import registry
from bench.reporting import leaderboard, publish
from bench.results import storage
from bench.statistics import cache as scores


def problem(folder, cache=None):
    """Why the one bad record was left out."""
    (found,) = leaderboard.load(folder / "made", cache).problems
    return found.reason


def test_a_value_that_its_predictions_do_not_give_is_left_out(folder):
    forge(folder / "made/voc_cls/rotation/seed0.json", value=99.9)
    assert "value 99.9, but its predictions give" in problem(folder)
    forge(folder / "made/voc_cls/rotation/seed0.json", value=float("nan"))
    assert "not a record: key 'value'" in problem(folder)


def test_what_the_cache_keeps_changes_no_byte_and_hides_no_change(folder, tmp_path):
    cache, made = tmp_path / "cache", folder / "made"
    fresh = publish.texts(leaderboard.load(made))
    assert publish.texts(leaderboard.load(made, cache)) == fresh
    kept = sorted((cache / "resampled").iterdir())
    assert len(kept) == 3
    assert publish.texts(leaderboard.load(made, cache)) == fresh
    rng = np.random.default_rng(0)
    content = kept[0].read_bytes()
    for place in [*range(60), *rng.integers(len(content), size=40), *range(-120, 0)]:
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.integers(8)
        kept[0].write_bytes(spoilt)
        assert publish.texts(leaderboard.load(made, cache)) == fresh
    arrays = made / "voc_cls/rotation/seed0.npz"
    arrays.write_bytes(arrays.read_bytes() + b" ")
    assert "seed0.npz: is not the file" in problem(folder, cache)


def test_a_kept_file_of_another_form_or_value_is_computed_again(folder, tmp_path):
    cache, made = tmp_path / "cache", folder / "made"
    fresh = publish.texts(leaderboard.load(made, cache))
    for kept in (cache / "resampled").iterdir():
        with np.load(kept) as archive:
            values = archive["values"]
        for other in (values[:0], values[:1], values + 1):
            np.savez(kept, images=np.array(120), values=other)
            assert publish.texts(leaderboard.load(made, cache)) == fresh


def test_predictions_that_are_none_are_named(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    found = storage.read(path)
    arrays = storage.read_predictions(path, found)
    for change in ({"scores": arrays["scores"][:-1]}, {"scores": arrays["scores"] * np.nan}):
        storage.save(found, path, arrays | change)
        assert "rotation/seed0.npz: cannot be scored by 'mAP' (" in problem(folder)


def test_many_records_are_resampled_in_processes_to_the_same_board(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "made/voc_cls/rotation", folder / "made/voc_cls/copy")
    fresh = publish.texts(leaderboard.load(folder / "made"))
    monkeypatch.setattr(scores, "WORTHWHILE", 1)
    monkeypatch.setattr(scores, "resampled_scores", None)  # not in this process
    assert publish.texts(leaderboard.load(folder / "made", tmp_path / "cache")) == fresh


class Accuracy:
    """Share of the images whose best class is one of theirs."""

    name = "best_class"
    label = "best class"
    arrays = ("scores", "truth", "classes")

    def per_class(self, predictions, weights):
        """One class, the whole."""
        best = predictions["scores"].argmax(1)
        right = np.take_along_axis(predictions["truth"], best[:, None], 1)[:, 0] == 1
        return (right @ weights / weights.sum(0))[None]

    def classes(self, predictions):
        """The one class."""
        return ["all"]

    def ground_truth(self, predictions):
        """The labels."""
        return [predictions["truth"]]


class Raises(Accuracy):
    """A metric that cannot be computed."""

    name = "raises"

    def per_class(self, predictions, weights):
        """Fails in two lines."""
        raise RuntimeError("nothing\nto see")


@pytest.fixture
def metrics(monkeypatch):
    """Metrics that come and go."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def class_mean(folder):
    for method, quality in {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}.items():
        arrays = arrays_of(method, quality)
        value = registry.value(Accuracy(), arrays)
        per_class = registry.per_class(Accuracy(), arrays)
        scored = {"metric": "best_class", "value": value, "per_class": per_class}
        save(folder, method, quality, task="class_mean", **scored)


def test_a_metric_of_ones_own_has_intervals_and_a_cache(tmp_path, metrics):
    registry.register(Accuracy())
    class_mean(tmp_path)
    for _ in range(2):
        table = leaderboard.load(tmp_path / "made", tmp_path / "cache").tables[0]
        assert table.metric == "best class"
        assert all(row.value.low < row.value.value < row.value.high for row in table.rows)
    assert len(list((tmp_path / "cache/resampled").iterdir())) == 3


def test_an_unknown_metric_shows_the_recorded_value_and_says_why_it_has_no_interval(folder):
    class_mean(folder)
    found = leaderboard.load(folder / "made")
    assert found.problems == ()
    other, known = found.tables
    assert (other.task, known.task) == ("class_mean", "voc_cls")
    row = other.row("rotation")
    assert row.value.value == row.records[0].value
    assert row.value.interval is None
    assert row.gap.value == other.row("imagenet").value.value - row.value.value
    assert (row.gap.interval, row.ranks, row.p_better, row.gap_closed) == (None, None, None, None)
    assert row.warnings == ("no interval: metric 'best_class' is not installed",)
    publish.write(found, folder / "made")
    text = (folder / "made/LEADERBOARD.md").read_text()
    assert "best_class (95% CI)" in text
    assert "no interval: metric 'best_class' is not installed" in text
    assert known.row("rotation").value.interval


def test_a_metric_that_raises_makes_the_record_bad(folder, metrics):
    fresh = leaderboard.load(folder / "made").tables
    registry.register(Raises())
    save(folder, "rotation", 0.8, task="class_mean", metric="raises")
    found = leaderboard.load(folder / "made")
    assert found.tables == fresh
    (bad,) = found.problems
    assert "cannot be scored by 'raises' (RuntimeError: nothing to see)" in bad.reason


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            lambda r: {"per_class": {**r.per_class, min(r.per_class): 99.0}},
            "99.0000 of the class '",
        ),
        (lambda r: {"per_class": {**r.per_class, "unicorn": 9.0}}, "9.0000 of the class 'unicorn'"),
        (lambda r: {"per_class": {}}, "no score of the class '"),
        (lambda r: {"per_stage": [99.0] * 5}, "its scores of the stages are not those"),
        (lambda r: {"per_stage": [1.0]}, "its scores of the stages are not those"),
    ],
)
def test_scores_of_classes_and_stages_are_those_of_the_predictions(
    stages, tmp_path, changes, reason, cached
):
    path = stages / "made/voc_cls/rotation/seed0.json"
    cache = tmp_path / "cache" if cached else None
    assert not leaderboard.load(stages / "made", cache).problems
    forge(path, **changes(storage.read(path)))
    assert reason in problem(stages, cache)


@pytest.fixture
def stages(folder):
    """The folder, where the predictions of one row are of two stages."""
    path = folder / "made/voc_cls/rotation/seed0.json"
    record = storage.read(path)
    with np.load(path.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    arrays["stage_scores"] = np.stack([arrays["scores"], -arrays["scores"]])
    metric = registry.get(record.metric)
    curve = [registry.value(metric, {**arrays, "scores": s}) for s in arrays["stage_scores"]]
    changes = {"per_stage": curve, "selected_stage": 0}
    per_class = registry.per_class(metric, arrays)
    storage.save(record.model_copy(update={**changes, "per_class": per_class}), path, arrays)
    return folder
