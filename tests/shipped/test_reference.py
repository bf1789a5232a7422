"""The results that ship: the claims the README makes of them."""

from pathlib import Path

import pytest

from bench import plugins
from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.config import loader, settings
from bench.reporting import leaderboard
from bench.results import storage

REFERENCE = Path(__file__).parents[2] / "results/reference"
SUITES = ("mini", "tiny")
PRETRAINED = [name for name in plugins.names("methods") if name != plugins.UNTRAINED]
METHODS = plan.with_baselines(plugins.names("methods"))
FINE_TUNED = ("voc_cls_finetune", "voc_det", "voc_seg")


def has_learned(row):
    """Whether a row beats both untrained ones, and imagenet beats it."""
    assert row.gain.low > 0, f"{row.method} does not beat random_init"
    assert row.matched_gain.low > 0, f"{row.method} does not beat {row.matched_baseline}"
    assert row.warnings == ()
    assert row.method == "imagenet" or row.gap.low > 0, f"imagenet does not beat {row.method}"


@pytest.fixture(scope="module")
def tables():
    return {
        (name, table.task): {row.method: row for row in table.rows}
        for name in SUITES
        for table in leaderboard.load(REFERENCE / name).tables
    }


@pytest.fixture(scope="module")
def reference(tables):
    return {(name, m): row for name in SUITES for m, row in tables[name, "voc_cls"].items()}


@pytest.mark.parametrize("task", FINE_TUNED)
def test_imagenet_beats_random_init_when_fine_tuned(task, tables):
    rows = tables["tiny", task]
    assert {*rows} == {"imagenet", "random_init", "rotation"}
    assert rows["imagenet"].gain.low > 0
    for row in rows.values():
        (record,) = row.records
        now = settings.task_settings(loader.load("tiny"), task).model_dump(mode="json")
        assert record.task_settings == now
        assert record.task_version == plugins.describe("tasks", task).version


def test_the_reference_leaderboards_have_every_method(reference):
    assert {*reference} == {(name, method) for name in SUITES for method in METHODS}


@pytest.mark.parametrize("method", PRETRAINED)
def test_on_real_images_every_method_learns(method, reference):
    has_learned(reference["tiny", method])


def test_on_rendered_images_labels_beat_no_training_on_three_seeds(reference):
    supervised = reference["mini", "supervised"]
    assert len(supervised.records) == 3
    assert supervised.gain.low > 0
    assert supervised.gap.low > 0


@pytest.mark.parametrize("method", PRETRAINED)
def test_on_rendered_images_every_method_solves_its_own_task(method, reference):
    """Better than a trivial answer on images that it was not trained on, with every seed."""
    for record in reference["mini", method].records:
        if record.recipe:
            assert record.pretraining.pretext.improves, f"{method}, seed {record.seed}"


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("method", METHODS)
def test_the_reference_record_is_of_the_versions_and_the_suite_in_force(
    name, method, reference, tmp_path
):
    suite = loader.load(name)
    mend = "run `bench run --methods all --tasks voc_cls --out results/reference` and commit"
    for record in reference[name, method].records:
        assert record.suite_sha256 == suite.sha256, mend
        assert record.recipe == settings.resolved_recipe(suite, method, tmp_path), mend
        assert record.method_version == plugins.describe("methods", method).version, mend
        assert record.task_version == plugins.describe("tasks", record.task).version, mend


@pytest.mark.parametrize("name", SUITES)
def test_nothing_of_the_reference_would_be_run_again(name, tables, tmp_path):
    suite = loader.load(name)
    for (where, task), rows in tables.items():
        if where == name:
            request = Request(suite, tuple(rows), (task,), (0,), None, REFERENCE, tmp_path)
            for method in rows:
                assert plan.is_up_to_date(Cell(method, task, 0), request), (task, method)


def test_no_record_that_ships_names_a_folder_of_a_machine():
    for path in sorted(REFERENCE.parent.glob("*/*/*/*/seed*.json")):
        command = storage.read(path).provenance.command
        assert not any(part.startswith("/") or "=/" in part for part in command), path
