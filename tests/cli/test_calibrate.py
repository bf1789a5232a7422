"""`bench calibrate`: how much runs vary, for rows of one seed."""

import pytest
from made_up import encoder, save

from bench.commands.calibrate import seed_correlation
from bench.config import loader
from bench.reporting import leaderboard
from bench.statistics import calibration


@pytest.fixture
def several(folder):
    """Records of three seeds of two rows."""
    for method, quality in (("rotation", 0.8), ("random_init", 0.2)):
        for seed in (1, 2):
            save(folder, method, quality + 0.1 * seed, seed=seed)
    return folder


def row(folder, method):
    return leaderboard.load(folder / "made").tables[0].row(method)


def test_rows_of_one_seed_get_the_calibration_of_others(several, folder, bench, tmp_path):
    done = bench("calibrate", several / "made", "--cache", tmp_path)
    assert done.status == 0
    assert "bench leaderboard uses it" in done.out
    own = row(folder, "rotation")
    for method in ("rotation", "random_init"):
        for seed in (1, 2):
            for file in (folder / "made/voc_cls" / method).glob(f"seed{seed}.*"):
                file.unlink()
    one = row(folder, "rotation")
    assert (own.runs.source, one.runs.source) == ("seeds", "calibration")
    assert one.runs.spread.variance == pytest.approx(own.runs.spread.variance, rel=0.01)
    assert one.value.low < one.value.images.low


def test_without_several_seeds_it_says_what_to_run(folder, bench):
    done = bench("calibrate", folder / "made")
    assert (done.status, "bench run --seeds 5" in done.error) == (2, True)
    done = bench("calibrate", folder / "nowhere")
    assert (done.status, "no such folder" in done.error) == (2, True)


def test_seeds_after_a_gap_are_left_out_and_named(several, bench, tmp_path):
    save(several, "rotation", 0.9, seed=5)
    done = bench("calibrate", several / "made", "--cache", tmp_path)
    assert done.status == 0
    assert "voc_cls x rotation: seeds 0, 1, 2, 5 are not all from 0 on" in " ".join(
        done.out.split()
    )


def test_rows_without_the_first_seeds_are_no_calibration(tmp_path, bench):
    for seed in (1, 2, 3):
        save(tmp_path / "out", "rotation", 0.8 + 0.1 * seed, seed=seed)
    done = bench("calibrate", tmp_path / "out/made", "--cache", tmp_path)
    assert (done.status, "has seeds 0 and 1" in " ".join(done.error.split())) == (2, True)
    assert not (tmp_path / "out/made" / calibration.FILE).exists()


def test_rows_of_another_backbone_are_not_in_it(several, bench, tmp_path):
    for seed in range(3):
        other = encoder("rgb", backbone="resnet18")
        save(several, "mine", 0.2 + 0.5 * seed, seed=seed, encoder=other)
    assert bench("calibrate", several / "made", "--cache", tmp_path).status == 0
    found = calibration.read(several / "made", "made", "a" * 64)
    assert set(found.tasks["voc_cls"].rows) == {"rotation", "random_init"}


def test_no_file_but_that_of_the_suite_is_written(several, bench, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('extends = "smoke"\nname = "other"\n')
    before = other.read_text()
    done = bench("calibrate", several / "made", "--to", other, "--cache", tmp_path)
    assert (done.status, "the records are of" in done.error) == (2, True)
    assert other.read_text() == before
    done = bench("calibrate", several / "made", "--to", tmp_path / "none.toml")
    assert (done.status, (tmp_path / "none.toml").exists()) == (2, False)


def test_the_calibration_of_a_suites_file_is_no_setting(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('extends = "smoke"\nname = "mine"\n')
    suite = loader.load(str(file))
    section = calibration.to_toml(calibration.Uncertainty(suite_sha256=suite.sha256, tasks={}))
    file.write_text(calibration.put(file.read_text(), section))
    assert loader.load(str(file)) == suite
    calibration.provide(str(file), suite.sha256, tmp_path / "out")
    assert calibration.read(tmp_path / "out", "mine", suite.sha256).tasks == {}
    assert calibration.read(tmp_path / "out", "mine", "0" * 64) is None


def test_rows_that_move_together_are_found_and_others_are_not():
    together = [[20.0, 22.0, 21.0, 25.0, 19.0], [30.0, 32.1, 31.2, 35.1, 29.0]]
    together.append([40.0, 42.0, 41.1, 44.9, 39.2])
    correlation, p = seed_correlation(together)
    assert correlation > 0.95
    assert p < 0.01
    apart = [[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 5.0, 1.0, 4.0, 3.0], [4.0, 1.0, 5.0, 2.0, 3.0]]
    correlation, p = seed_correlation(apart)
    assert p > 0.1
    assert seed_correlation([[1.0, 2.0, 3.0]]) == (None, None)
