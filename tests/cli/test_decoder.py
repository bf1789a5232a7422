"""A run whose pretraining images another library decodes."""

import pytest

from bench.results import storage


def test_the_decoder_is_stated_and_shares_no_leaderboard_with_the_default(bench_run, tmp_path):
    pytest.importorskip("torchcodec", reason="the extra gpu-decode is not installed")
    choice = ["--set", "datasets.pretraining.decoder='torchcodec'"]
    page = "out/smoke/LEADERBOARD.md"
    assert bench_run("rotation").status == 0
    default = storage.read(tmp_path / "out/smoke/voc_cls/rotation/seed0.json")
    assert "decoded by" not in (tmp_path / page).read_text()
    refused = bench_run("rotation", *choice)
    assert refused.status == 2
    done = bench_run("rotation", *choice, out=tmp_path / "other/out")
    assert done.status == 0, done.err
    assert "of `pretraining`, decoded by torchcodec" in (tmp_path / "other" / page).read_text()
    record = storage.read(tmp_path / "other/out/smoke/voc_cls/rotation/seed0.json")
    assert record.data["pretraining_train"] != default.data["pretraining_train"]
    assert record.data["voc_train"] == default.data["voc_train"]
    assert record.pretraining.trace.pixels == default.pretraining.trace.pixels  # on a processor
