"""The log of the losses beside a checkpoint, and trackers."""

import json
from dataclasses import replace

import pytest

from bench.errors import UserError
from bench.training import tracking, trainer
from bench.training.method import load_or_pretrain
from bench.training.tracking import Tracking, select_trackers


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


def lines(cache):
    (path,) = (cache / "checkpoints").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_clock(entries):
    return [{key: value for key, value in e.items() if key != "seconds"} for e in entries]


@pytest.fixture
def longer(context, monkeypatch):
    """`rotation` in 10 steps of 16 views, which reports after every fourth."""
    monkeypatch.setattr(trainer, "GUARD_STEPS", 4)

    def make(cache, **changes):
        plain = context("rotation")
        recipes = plain.suite.recipes | {"rotation": {"views": 160, "warmup": 0.2}}
        suite = plain.suite.model_copy(update={"recipes": recipes})
        return replace(plain, suite=suite, cache=cache, **changes)

    return make


def test_the_log_has_means_and_rates_and_stays(longer, tmp_path):
    at = longer(tmp_path)
    pretraining = load_or_pretrain(at).pretraining
    entries = lines(tmp_path)
    assert [entry["step"] for entry in entries] == [4, 8, 10]
    assert [*entries[0]] == ["step", "seconds", "learning_rate", "loss", "accuracy"]
    curve = pretraining.loss_curve.losses["loss"]
    for start, entry in zip((0, 4, 8), entries, strict=True):
        steps = curve[start : entry["step"]]
        assert entry["loss"] == pytest.approx(sum(steps) / len(steps), rel=1e-5)
    seconds = [entry["seconds"] for entry in entries]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= pretraining.seconds + 0.001
    rates = pretraining.trace.learning_rates
    assert entries[-1]["learning_rate"] == pytest.approx(rates.last, rel=1e-5)
    assert not list(tmp_path.rglob("checkpoints/*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 6])  # at a report, and between two
def test_a_resumed_run_has_the_same_log(longer, stop, tmp_path, monkeypatch, fake_tracker):
    load_or_pretrain(longer(tmp_path / "a"))
    interrupted = longer(tmp_path / "b", tracking=Tracking(("fake",), tmp_path / "logs"))
    save = trainer.Trainer._save

    def save_once(run):
        if run.step == stop:
            save(run)

    def stop_later(*arguments):
        added(*arguments)
        if arguments[1] == 8:
            raise Stopped

    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        added = tracking.TrainingReport.add
        patch.setattr(trainer.Trainer, "_save", save_once)
        patch.setattr(tracking.TrainingReport, "add", stop_later)
        load_or_pretrain(interrupted)
    assert [entry["step"] for entry in lines(tmp_path / "b")] == [4, 8]
    assert fake_tracker.runs["rotation/seed0"][-1] == "finished"
    (log,) = (tmp_path / "b/checkpoints").glob("*.jsonl")
    with log.open("a") as file:
        file.write('{"step": 10, "sec')  # killed while it wrote
    load_or_pretrain(interrupted)
    assert without_clock(lines(tmp_path / "b")) == without_clock(lines(tmp_path / "a"))
    steps = [entry[0] for entry in fake_tracker.runs["rotation/seed0"][1:-1]]
    assert steps == [step for step in (4, 8, 10) if step > stop]


def test_a_run_from_the_start_begins_a_new_log(longer, tmp_path):
    at = longer(tmp_path)
    load_or_pretrain(at)
    first = lines(tmp_path)
    for path in (tmp_path / "encoders").glob("*.safetensors"):
        path.unlink()
    load_or_pretrain(at)
    assert without_clock(lines(tmp_path)) == without_clock(first)


def test_a_tracker_is_told_what_the_log_says_and_changes_no_weight(longer, fake_tracker, tmp_path):
    plain = load_or_pretrain(longer(tmp_path / "a"))
    where = tmp_path / "logs"
    tracked = longer(tmp_path / "b", tracking=Tracking(("fake",), where))
    assert load_or_pretrain(tracked).weights_sha256() == plain.weights_sha256()
    folder, *entries, last = fake_tracker.runs["rotation/seed0"]
    assert (folder, last) == (str(where), "finished")
    assert [step for step, _ in entries] == [4, 8, 10]
    names = {"learning_rate", "loss", "accuracy"}
    for (_, values), line in zip(entries, lines(tmp_path / "b"), strict=True):
        assert {*values} == names
        assert values == pytest.approx({name: line[name] for name in names}, rel=1e-5)


def test_a_tracker_that_fails_ends_the_tracking_alone(longer, fake_tracker, tmp_path, capsys):
    fake_tracker.failure = OSError("no network")
    tracked = longer(tmp_path, tracking=Tracking(("fake",), tmp_path / "logs"))
    load_or_pretrain(tracked)
    assert [entry["step"] for entry in lines(tmp_path)] == [4, 8, 10]
    said = capsys.readouterr().err
    assert said.count("rotation/seed0 is no longer tracked by fake: no network") == 1


def test_runs_are_named_by_method_task_and_seed(context):
    assert context("jigsaw", 2).run_tracking().run == "jigsaw/seed2"
    assert context("jigsaw", 2, task="voc_det").run_tracking().run == "jigsaw/voc_det/seed2"
    trying = context("jigsaw", task="voc_det").run_tracking("rate0.1").run
    assert trying == "jigsaw/voc_det/seed0/rate0.1"


@pytest.mark.parametrize(
    ("name", "first", "options"),
    [
        ("tensorboard", "run_name", {"purge_step": 21}),
        ("aim", "run_name", {}),
    ],
)
def test_trackers_of_a_folder_take_the_name_of_the_run(name, first, options, tmp_path):
    made = tracking._tracker(name, Tracking((name,), tmp_path, "jigsaw/seed0"), 20)
    assert getattr(made, first) == "jigsaw/seed0"
    assert made.init_kwargs == options


@pytest.mark.parametrize("name", ["wandb", "trackio", "swanlab"])
def test_trackers_of_projects_share_one(name, tmp_path):
    made = tracking._tracker(name, Tracking((name,), tmp_path, "jigsaw/seed0"), 20)
    assert made.run_name == "ssl-gap"
    assert "jigsaw/seed0" in made.init_kwargs.values()


def test_trackers_are_selected_by_name(fake_tracker):
    assert select_trackers(" fake, fake,") == ("fake",)
    with pytest.raises(UserError, match="unknown tracker 'fke': did you mean fake"):
        select_trackers("fke")
