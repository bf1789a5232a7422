"""The embedded suite as it ships: every claim the README makes of it, minutes on two cores."""

import pytest
from support import board

from bench import board as boards

pytestmark = pytest.mark.slow


def test_the_main_job_orders_its_rows_and_repeats_itself(bench, tmp_path):
    out = tmp_path / "out"
    what = ["run", "--methods", "imagenet,supervised,rotation,random_init", "--tasks", "voc_cls"]
    what += ["--out", out, "--cache", tmp_path / "cache", "--device", "cpu"]
    first = bench(*what)
    assert first.status == 0, first.err
    rows = {row.method: row for row in boards.load(out / "mini").tables[0].rows}
    for name in ("imagenet", "supervised", "rotation"):
        assert rows[name].over_floor.low > 0, f"{name} does not beat random_init"
        assert rows[name].flags == ()
    assert rows["rotation"].gap.low > 0, "imagenet does not beat rotation"
    before = board(out / "mini")
    assert bench(*what).status == 0
    assert board(out / "mini") == before
