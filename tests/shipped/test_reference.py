"""The results that ship: the claims the README makes of them."""

from pathlib import Path

import pytest

from bench import plugins
from bench.config import loader, schema
from bench.reporting import leaderboard

REFERENCE = Path(__file__).parents[2] / "results/reference"
SUITES = ("mini", "tiny")
METHODS = plugins.names("methods")
PRETRAINED = [name for name in METHODS if not name.startswith("random_init")]


def has_learned(row):
    """Whether a row beats both untrained ones, and imagenet beats it."""
    assert row.over_floor.low > 0, f"{row.method} does not beat random_init"
    assert row.over_untrained.low > 0, f"{row.method} does not beat {row.untrained}"
    assert row.flags == ()
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


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("task", schema.TUNED)
def test_imagenet_beats_random_init_when_fine_tuned(name, task, tables):
    rows = tables[name, task]
    assert {*rows} == {"imagenet", "random_init", "rotation"}
    assert rows["imagenet"].over_floor.low > 0
    for row in rows.values():
        (found,) = row.records
        assert found.tuning == loader.load(name).tuning(task)
        assert found.task_code == plugins.code("tasks", task)


def test_the_reference_boards_have_every_method(reference):
    assert {*reference} == {(name, method) for name in SUITES for method in METHODS}


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("method", PRETRAINED)
def test_the_reference_boards_show_that_a_method_learns(name, method, reference):
    has_learned(reference[name, method])


# Not of tiny, which takes hours: its records say what code they are of.
@pytest.mark.parametrize("method", METHODS)
def test_the_reference_record_of_mini_is_of_the_code_and_suite_as_they_stand(method, reference):
    settings = loader.load("mini")
    (found,) = reference["mini", method].records
    mend = "run `bench run --methods all --tasks voc_cls --out results/reference` and commit"
    assert found.suite_sha256 == settings.sha256, mend
    assert found.recipe == settings.recipe(method).model_dump(mode="json"), mend
    assert found.method_code == plugins.code("methods", method), mend
    assert found.task_code == plugins.code("tasks", found.task), mend
