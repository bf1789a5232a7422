"""`bench compare`: differences, their intervals, and settings, from made-up records."""

import shutil

import numpy as np
import pytest
from made_up import COMMON_RECIPE, OTHER_RECIPE, arrays_of, encoder, save
from support import forge

from bench.commands import compare
from bench.errors import UserError
from bench.metrics import registry
from bench.metrics.average_precision import mean_average_precision
from bench.reporting import leaderboard
from bench.results import storage
from bench.results.record import Provenance
from bench.statistics import calibration
from bench.statistics.cache import RESAMPLES, SEED
from bench.statistics.resampling import resamples


def seeds(folder, method, suite="made"):
    paths = sorted((folder / suite / "voc_cls" / method).glob("seed*.json"))
    return [(path, storage.read(path)) for path in paths]


def elsewhere(folder, method, quality, ids):
    """The same record on images of other names and other truth."""
    entry = save(folder, method, quality)
    ((path, _),) = seeds(folder, method)
    arrays = storage.read_predictions(path, entry)
    turned = {name: arrays[name][::-1] for name in ("scores", "truth")}
    arrays = {**arrays, **turned, "ids": ids}
    value = 100 * mean_average_precision(arrays["scores"], arrays["truth"])
    other = entry.model_copy(update={"value": value, "data": {"voc_test": "e" * 64}})
    return storage.save(other, path, arrays)


def test_two_rows_differ_as_their_leaderboard_says(folder):
    for method, quality in (("rotation", 0.7), ("random_init", 0.25)):
        save(folder, method, quality, seed=1)
    (found,) = compare.compare("rotation", "random_init", folder)
    row = next(
        r for r in leaderboard.load(folder / "made").tables[0].rows if r.method == "rotation"
    )
    assert found.paired
    compared, shown = ((e.value, e.low, e.high) for e in (found.difference, row.gain))
    assert compared == pytest.approx(shown, abs=1e-9)
    (reversed_,) = compare.compare("random_init", "rotation", folder)
    assert reversed_.difference.value == -found.difference.value
    assert reversed_.p_above == pytest.approx(1 - found.p_above)
    assert reversed_.needed == found.needed


def test_without_seeds_or_calibration_no_probability_is_claimed(folder, bench):
    (found,) = compare.compare("rotation", "random_init", folder)
    assert (found.p_above, found.needed, found.difference.images) == (None, None, None)
    uncertain = calibration.calibrate(
        [
            save(folder.parent / "five", method, 0.8 + 0.1 * seed, seed=seed)
            for method in ("rotation", "random_init")
            for seed in range(5)
        ],
        {},
    )
    file = folder / "made" / calibration.FILE
    file.write_text(calibration.to_toml(uncertain))
    (wider,) = compare.compare("rotation", "random_init", folder)
    assert wider.difference.low < wider.difference.images.low
    assert wider.difference.images == pytest.approx(found.difference.interval)
    assert 0 < wider.p_above < 1
    done = bench("compare", "rotation", "random_init", "--out", folder)
    assert "would tell them apart" in done.out or "told apart" in done.out


def test_rows_of_another_backbone_tell_nothing(folder):
    for seed, quality in enumerate((0.2, 0.8, 1.6)):
        save(folder, "rotation", quality, seed=seed)
    other = encoder("rgb", backbone="resnet18")
    for method in ("mine", "theirs"):
        save(folder, method, 0.8, encoder=other)
    (found,) = compare.compare("mine", "theirs", folder)
    assert (found.p_above, found.difference.images) == (None, None)


def test_classes_that_one_seed_has_are_left_out_of_the_differences(folder):
    entry = save(folder, "rotation", 0.7)
    less = {name: value for name, value in entry.per_class.items() if name != "cat"}
    save(folder, "rotation", 0.7, seed=1, per_class=less)
    (found,) = compare.compare("rotation", "random_init", folder)
    assert {name for name, _ in found.classes} == {"ape", "bee"}


def test_seeds_are_independent_whatever_the_rows_are_called(tmp_path):
    """Two folders of one method, three seeds each that differ much."""
    for place, shift in (("one", 0.0), ("other", 0.1)):
        for seed, quality in enumerate((0.2, 0.8, 1.6)):
            save(tmp_path / place, "rotation", quality + shift, seed=seed)
        save(tmp_path / place, "random_init", 0.2)
    (same,) = compare.compare(
        f"{tmp_path}/one/made/rotation", f"{tmp_path}/other/made/rotation", tmp_path
    )
    row = leaderboard.load(tmp_path / "one/made").tables[0].rows[0]
    width = row.value.high - row.value.low
    assert same.difference.high - same.difference.low > width
    assert 0.05 < same.p_above < 0.95


def test_records_that_no_leaderboard_would_show_are_not_compared(folder):
    place = folder / "made/voc_cls"
    forge(place / "rotation/seed0.json", value=99.0)
    with pytest.raises(UserError, match=r"value 99\.0, but its predictions give"):
        compare.compare("rotation", "random_init", folder)
    shutil.copytree(place / "random_init", place / "random_init_backup")
    with pytest.raises(UserError, match="is a copy of the record that belongs at"):
        compare.compare("imagenet", "random_init", folder)
    shutil.rmtree(place / "random_init_backup")
    save(folder, "rotation", 0.2, seed=1, recipe=OTHER_RECIPE)
    with pytest.raises(UserError, match="differ in the recipe of rotation"):
        compare.compare("imagenet", "random_init", folder)


def test_the_probability_is_the_share_of_resamples_in_that_order(tmp_path):
    one, other = (save(tmp_path, name, quality) for name, quality in (("a", 0.4), ("b", 0.5)))
    for path, entry in [*seeds(tmp_path, "a"), *seeds(tmp_path, "b")]:  # runs that do not vary
        arrays = storage.read_predictions(path, entry)
        storage.save(entry.model_copy(update={"seed": 1}), path.with_stem("seed1"), arrays)
    (found,) = compare.compare("a", "b", tmp_path)
    arrays = [storage.read_predictions(*seeds(tmp_path, name)[0]) for name in "ab"]
    drawn = []
    for counts in resamples(120, RESAMPLES, SEED):
        picked = np.repeat(np.arange(120), counts)
        a, b = (mean_average_precision(x["scores"][picked], x["truth"][picked]) for x in arrays)
        drawn.append(100 * (a - b))
    centerd = np.array(drawn) - np.mean(drawn) + one.value - other.value
    assert found.p_above == pytest.approx(np.mean(centerd > 0), abs=1e-9)
    assert 0.02 < found.p_above < 0.98, "neither is certain"


def test_a_row_and_itself_are_even(folder):
    (found,) = compare.compare("rotation", "rotation", folder)
    assert (found.difference.low, found.difference.high, found.p_above) == (0, 0, None)
    assert found.settings == ()


def test_other_images_are_not_paired(tmp_path):
    save(tmp_path / "one", "rotation", 0.8)
    ids = np.arange(500, 620).astype(str)
    elsewhere(tmp_path / "two", "rotation", 0.8, ids)
    found = compare.contrast(
        seeds(tmp_path / "one", "rotation"), seeds(tmp_path / "two", "rotation")
    )
    widths = []
    for name in ("one", "two"):
        value = leaderboard.load(tmp_path / name / "made").tables[0].rows[0].value
        widths.append(value.high - value.low)
    assert not found.paired
    difference = found.difference
    assert difference.high - difference.low == pytest.approx(np.hypot(*widths), rel=0.15)


def test_other_files_of_the_same_list_and_truth_are_paired(tmp_path):
    save(tmp_path / "one", "rotation", 0.8)
    save(tmp_path / "two", "rotation", 0.8, data={"voc_test": "e" * 64})
    found = compare.contrast(
        seeds(tmp_path / "one", "rotation"), seeds(tmp_path / "two", "rotation")
    )
    assert found.paired


def test_several_seeds_are_averaged(folder):
    save(folder, "rotation", 0.8, seed=1)
    (found,) = compare.compare("rotation", "random_init", folder)
    expected = np.mean([entry.value for _, entry in seeds(folder, "rotation")])
    assert found.values[0] == pytest.approx(expected)
    assert ("seed", "0, 1", "0") in [(s.setting, s.left, s.right) for s in found.settings]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metric": "mAP_step"}, "mAP is not mAP_step"),
        ({"task_version": 2}, "scored by versions 1 and 2 of voc_cls"),
        (
            {"per_class": {"ape": 1.0, "bee": 1.0, "cat": 1.0, "yak": 1.0}},
            "means over different classes: yak",
        ),
    ],
)
def test_what_means_nothing_is_not_subtracted(tmp_path, bench, change, reason):
    save(tmp_path / "one", "rotation", 0.8)
    metric = registry.get(change.get("metric", "mAP"))
    value = registry.value(metric, arrays_of("rotation", 0.8))
    save(tmp_path / "two", "rotation", 0.8, value=value, **change)
    done = bench("compare", tmp_path / "one", tmp_path / "two")
    assert done.status == 0
    assert f"not comparable: {reason}" in done.out


def test_predictions_of_another_metric_are_one_line(folder, bench):
    forge(folder / "made/voc_cls/rotation/seed0.json", metric="AP50")
    done = bench("compare", "rotation", "random_init", "--out", folder)
    assert done.status == 2
    assert "seed0.json: its predictions cannot be scored by 'AP50'" in done.error


def test_folders_are_compared_method_by_method_with_all_that_differs(folder, tmp_path, bench):
    two = tmp_path / "two"
    facts = {"per_class": {"yak": 30.0, "gnu": 50.0}}
    save(folder, "rotation", 0.8, provenance=Provenance(method_code="b" * 64), **facts)
    environment = {"torch": "9.9"}
    other = {"yak": 40.0, "gnu": 45.0}
    save(
        two,
        "rotation",
        0.9,
        recipe=OTHER_RECIPE,
        provenance=Provenance(method_code="9" * 64),
        environment=environment,
        data={"voc_test": "d" * 64, "pretraining_train": "8" * 64},
        per_class=other,
    )
    done = bench("compare", folder / "made", two)
    assert done.status == 0
    lines = done.out.splitlines()
    assert sum("voc_cls   rotation" in line for line in lines) == 1
    assert "imagenet" not in done.out, "two has no such row"
    assert "largest for gnu +5.0; smallest for yak -10.0" in done.out

    def row(setting):
        return next(line.split()[1:] for line in lines if line.strip().startswith(setting))

    assert row("recipe.views") == [str(COMMON_RECIPE["views"]), str(OTHER_RECIPE["views"])]
    assert row("code.method_code") == ["b" * 12, "9" * 12]
    assert row("data.pretraining_train") == ["-", "8" * 12]
    assert row("environment.torch") == ["-", "9.9"]


def test_rows_are_named_in_every_way_that_help_says(folder, bench):
    made = folder / "made"
    for one, other in (
        ("rotation", "random_init"),
        ("made/rotation", "made/random_init"),
        (made / "rotation", f"{folder}/random_init"),
    ):
        done = bench("compare", one, other, "--out", folder)
        assert done.status == 0
        assert "rotation / random_init" in done.out


def test_what_is_not_there_is_named(folder, bench, tmp_path_factory):
    for arguments, message in (
        (("rotatoin", "rotation"), "'rotatoin': did you mean rotation or"),
        (("nowhere/rotation", "rotation"), "bench: nowhere: has no records; name METHOD"),
    ):
        done = bench("compare", *arguments, "--out", folder)
        assert (done.status, message in done.error) == (2, True)
    many = tmp_path_factory.mktemp("many")
    save(many, "rotation", 0.8)
    (many / "made").rename(many / "first")
    save(many, "rotation", 0.8)
    done = bench("compare", "rotation", "rotation", "--out", many)
    assert (done.status, "has several suites; name one of first, made" in done.error) == (2, True)
