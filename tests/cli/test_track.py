"""`bench run --track`: every training run of a request has a name in the trackers."""

import pytest


def test_every_training_of_a_run_is_tracked_by_its_name(bench_run, fake_tracker, tmp_path):
    empty = tmp_path / "cache"  # in one that other tests filled, nothing is left to train
    done = bench_run("random_init", "--tasks", "voc_seg", "--track", "fake", cache=empty)
    assert done.status == 0
    task = "random_init/voc_seg/seed0"
    selection = {run for run in fake_tracker.runs if run.startswith(f"{task}/rate")}
    assert {*fake_tracker.runs} == {task, *selection}
    assert selection, "one for each rate that was tried"
    for folder, (step, values), last in fake_tracker.runs.values():
        assert folder == str(tmp_path / "out/smoke/logs")
        assert step > 0
        assert {"loss", "learning_rate"} <= {*values}
        assert last == "finished"


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("wandb", "--track wandb: wandb is not installed; run pip install wandb"),
        ("tensorbord", "unknown tracker 'tensorbord': did you mean tensorboard?"),
        (",", "--track: name a tracker, for example tensorboard"),
    ],
)
def test_a_tracker_that_cannot_track_is_refused_first(bench, track, message, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.training.tracking.get_available_trackers", list)
    asked = ("--methods", "rotation", "--tasks", "voc_cls", "--suite", "smoke")
    done = bench("run", *asked, "--out", tmp_path / "out", "--track", track)
    assert done.status == 2
    assert done.error == f"bench: {message}"
    assert not (tmp_path / "out").exists()
