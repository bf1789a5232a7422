"""The embedded suite as it ships: every claim the README makes of it, minutes on two cores."""

import pytest
from support import board

from bench import board as boards

pytestmark = pytest.mark.slow


def test_the_main_job_orders_its_rows_and_repeats_itself(bench, tmp_path):
    out = tmp_path / "out"
    what = ["run", "--methods", "all", "--tasks", "voc_cls"]
    what += ["--out", out, "--cache", tmp_path / "cache", "--device", "cpu"]
    first = bench(*what)
    assert first.status == 0, first.err
    rows = {row.method: row for row in boards.load(out / "mini").tables[0].rows}
    pretrained = {name: row for name, row in rows.items() if not name.startswith("random_init")}
    assert len(pretrained) >= 13
    for name, row in pretrained.items():
        assert row.over_floor.low > 0, f"{name} does not beat random_init"
        assert row.over_untrained.low > 0, f"{name} does not beat {row.untrained}"
        assert row.flags == ()
        assert name == "imagenet" or row.gap.low > 0, f"imagenet does not beat {name}"
    before = board(out / "mini")
    assert bench(*what).status == 0
    assert board(out / "mini") == before
