"""The embedded suite as it ships: the claims the README makes of it."""

from pathlib import Path

import pytest
from support import board

from bench import board as boards
from bench import plugins, suite

REFERENCE = Path(__file__).parents[1] / "results/reference/mini"
METHODS = plugins.names("methods")
PRETRAINED = [name for name in METHODS if not name.startswith("random_init")]


def has_learnt(row):
    """Whether a row beats both untrained ones, and imagenet beats it."""
    assert row.over_floor.low > 0, f"{row.method} does not beat random_init"
    assert row.over_untrained.low > 0, f"{row.method} does not beat {row.untrained}"
    assert row.flags == ()
    assert row.method == "imagenet" or row.gap.low > 0, f"imagenet does not beat {row.method}"


@pytest.fixture(scope="module")
def reference():
    return {row.method: row for row in boards.load(REFERENCE).tables[0].rows}


def test_the_reference_board_has_every_method(reference):
    assert {*reference} == {*METHODS}


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_reference_board_shows_that_a_method_learns(name, reference):
    has_learnt(reference[name])


@pytest.mark.parametrize("name", METHODS)
def test_the_reference_record_is_of_the_code_and_suite_as_they_stand(name, reference):
    settings = suite.load("mini")
    (found,) = reference[name].records
    mend = "run `bench run --methods all --tasks voc_cls --out results/reference` and commit"
    assert found.suite_sha256 == settings.sha256, mend
    assert found.recipe == settings.recipe(name).model_dump(mode="json"), mend
    assert found.method_code == plugins.code("methods", name), mend
    assert found.task_code == plugins.code("tasks", found.task), mend


@pytest.mark.slow
def test_the_main_job_orders_its_rows_and_repeats_itself(bench, tmp_path):
    out = tmp_path / "out"
    what = ["run", "--methods", "imagenet,supervised,rotation,random_init", "--tasks", "voc_cls"]
    what += ["--out", out, "--cache", tmp_path / "cache", "--device", "cpu"]
    first = bench(*what)
    assert first.status == 0, first.err
    rows = {row.method: row for row in boards.load(out / "mini").tables[0].rows}
    for name in ("imagenet", "supervised", "rotation"):
        has_learnt(rows[name])
    before = board(out / "mini")
    assert bench(*what).status == 0
    assert board(out / "mini") == before
