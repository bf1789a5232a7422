"""What the fine-tuned tasks share: they learn, choose on the training list, go on when killed."""

import copy
import dataclasses
from importlib import resources

import pytest
import torch

from bench import plugins
from bench.config import loader, schema
from bench.data.datasets import open_data
from bench.data.voc import Voc
from bench.data.voc_masks import Masks
from bench.errors import UserError
from bench.runtime.progress import Reporter
from bench.training import trainer
from bench.training.context import Context
from bench.training.method import load_or_pretrain


def evaluate(task, context):
    return plugins.load("tasks", task)().evaluate(copy.deepcopy(load_or_pretrain(context)), context)


def at(context, task, where, **changes):
    """A cell's context with other settings of a task, and a cache of its own."""
    plain = context("random_init", where=where)
    section = getattr(plain.suite, task).model_copy(update=changes)
    return dataclasses.replace(plain, suite=plain.suite.model_copy(update={task: section}))


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


def stop_training(monkeypatch):
    def stopped(self, bar):
        raise Stopped

    monkeypatch.setattr(trainer.Trainer, "run", stopped)


@pytest.mark.parametrize("task", schema.TUNED)
def test_a_run_killed_in_any_training_ends_the_same(task, context, tmp_path, monkeypatch):
    whole = evaluate(task, at(context, task, tmp_path / "a"))
    update = trainer.Trainer._update
    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)
    for stop in range(1, 4):  # trials of one step each, then two steps on the whole list
        calls = []

        def stopping(run, *arguments, calls=calls, stop=stop):
            calls.append(run.step)
            if len(calls) == stop:
                raise Stopped
            return update(run, *arguments)

        killed = at(context, task, tmp_path / f"b{stop}")
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(trainer.Trainer, "_update", stopping)
            evaluate(task, killed)
        again = evaluate(task, killed)
        assert again.scores == whole.scores
        assert again.selection == whole.selection


def test_what_is_finished_is_not_done_again(context, tmp_path, monkeypatch):
    made = at(context, "voc_seg", tmp_path)
    first = evaluate("voc_seg", made)
    monkeypatch.setattr(trainer.Trainer, "run", None)  # would raise if called
    assert evaluate("voc_seg", made).scores == first.scores


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("voc_det", {"frozen": True}),
        ("voc_det", {"scale": (0.9, 1.0)}),
        ("voc_det", {"regions": 8}),
        ("voc_seg", {"frozen": True}),
        ("voc_seg", {"scale": (0.9, 1.0)}),
        ("voc_cls_finetune", {"frozen": True}),
        ("voc_cls_finetune", {"crops": 1}),
    ],
)
def test_other_settings_are_trained_anew(task, changes, context, tmp_path, monkeypatch):
    evaluate(task, at(context, task, tmp_path, learning_rates=(1e-3,)))
    stop_training(monkeypatch)
    with pytest.raises(Stopped):
        evaluate(task, at(context, task, tmp_path, learning_rates=(1e-3,), **changes))


@pytest.mark.parametrize("task", schema.TUNED)
def test_another_truth_is_trained_anew(task, context, tmp_path, monkeypatch):
    made = at(context, task, tmp_path, learning_rates=(1e-3,))
    evaluate(task, made)
    voc, masks = made.data.voc, made.data.masks
    other = "0" * 64  # as of boxes or masks that were mended
    train = dataclasses.replace(voc.train, fingerprint=other)
    masked = dataclasses.replace(masks.train, fingerprint=other)
    data = dataclasses.replace(made.data, voc=Voc(train, voc.test), masks=Masks(masked, masks.test))
    stop_training(monkeypatch)
    with pytest.raises(Stopped):
        evaluate(task, dataclasses.replace(made, data=data))


@pytest.mark.parametrize(("task", "changes"), [("voc_det", {"protocol": "c4", "size": 64})])
def test_another_last_stage_is_trained_anew(task, changes, context, tmp_path, monkeypatch):
    """Though the detector takes it off the encoder."""
    made = at(context, task, tmp_path, learning_rates=(1e-3,), **changes)
    evaluate(task, made)
    encoder = copy.deepcopy(load_or_pretrain(made))
    with torch.no_grad():
        list(encoder.branches[0].parameters())[-1].add_(1.0)
    stop_training(monkeypatch)
    with pytest.raises(Stopped):
        plugins.load("tasks", task)().evaluate(encoder, made)


def test_held_out_images_that_show_nothing_are_named(context, tmp_path):
    made = at(context, "voc_det", tmp_path, held_out=0.01)
    empty = tuple(() for _ in made.data.voc.train.objects)
    train = dataclasses.replace(made.data.voc.train, objects=empty)
    data = dataclasses.replace(made.data, voc=Voc(train, made.data.voc.test))
    with pytest.raises(UserError, match="held-out images show nothing that counts"):
        evaluate("voc_det", dataclasses.replace(made, data=data))


def test_weights_that_diverged_at_the_last_step_are_not_scored(context, tmp_path, monkeypatch):
    run = trainer.Trainer.run

    def ruined(self, bar):
        history = run(self, bar)
        with torch.no_grad():
            next(self.module.parameters()).fill_(float("nan"))
        return history

    monkeypatch.setattr(trainer.Trainer, "run", ruined)
    with pytest.raises(trainer.NonFiniteLossError, match="diverged at every rate"):
        evaluate("voc_det", at(context, "voc_det", tmp_path))


@pytest.mark.parametrize("task", schema.TUNED)
def test_nothing_is_chosen_on_the_test_list(task, context, tmp_path):
    """Other test images change neither the rate nor what it was chosen by."""
    made = at(context, task, tmp_path)
    first = evaluate(task, made)
    voc, masks = made.data.voc, made.data.masks
    cut = slice(0, 40)
    few = dataclasses.replace(
        voc.test,
        ids=voc.test.ids[cut],
        truth=voc.test.truth[cut],
        objects=voc.test.objects[cut],
        images=dataclasses.replace(voc.test.images, files=voc.test.images.files[cut]),
    )
    fewer = dataclasses.replace(
        masks.test,
        ids=masks.test.ids[cut],
        images=dataclasses.replace(masks.test.images, files=masks.test.images.files[cut]),
        masks=dataclasses.replace(masks.test.masks, files=masks.test.masks.files[cut]),
    )
    data = dataclasses.replace(made.data, voc=Voc(voc.train, few), masks=Masks(masks.train, fewer))
    again = evaluate(task, dataclasses.replace(made, data=data))
    assert again.selection == first.selection
    assert len(again.predictions["ids"]) == 40


def test_a_rate_that_diverges_is_passed_over(context, tmp_path):
    found = evaluate("voc_seg", at(context, "voc_seg", tmp_path, learning_rates=(1e-3, 1e30)))
    assert found.selection["learning_rate"] == 1e-3
    assert found.selection["held_out_scores"][1] is None
    message = r"voc_seg: diverged at every rate of \[1e\+30\]; lower tasks\.voc_seg\.learning_rates"
    with pytest.raises(trainer.NonFiniteLossError, match=message):
        evaluate("voc_seg", at(context, "voc_seg", tmp_path, learning_rates=(1e30,)))


@pytest.mark.parametrize("task", schema.TUNED)
def test_a_frozen_encoder_stays_as_it_is(task, context, tmp_path, monkeypatch):
    made = at(context, task, tmp_path, frozen=True)
    unchanged = []
    run = trainer.Trainer.run

    def watched(self, bar):
        before = copy.deepcopy(self.module.encoder.state_dict())
        head = [p.detach().clone() for p in self.module.parameters() if p.requires_grad]
        history = run(self, bar)
        after = self.module.encoder.state_dict()
        unchanged.append(all(torch.equal(after[name], value) for name, value in before.items()))
        trained = [p for p in self.module.parameters() if p.requires_grad]
        assert any(not torch.equal(a, b) for a, b in zip(head, trained, strict=True))
        return history

    monkeypatch.setattr(trainer.Trainer, "run", watched)
    assert evaluate(task, made).selection["frozen"] is True
    assert unchanged and all(unchanged)


def test_the_moco_protocol_runs(context, tmp_path):
    found = evaluate("voc_det", at(context, "voc_det", tmp_path, protocol="c4", size=64))
    assert 0 <= found.value <= 100
    assert found.scores["COCO_AP50"] <= 100


def test_fcn32s_runs(context, tmp_path):
    assert 0 <= evaluate("voc_seg", at(context, "voc_seg", tmp_path, head="fcn32s")).value <= 100


def test_a_suite_without_settings_for_a_task_says_so(bench, tmp_path):
    text = (resources.files("bench.config") / "suites/mini.toml").read_text()
    path = tmp_path / "bare.toml"
    path.write_text(text[: text.index("[voc_det]")])
    done = bench("run", "--methods", "random_init", "--tasks", "voc_det", "--suite", path)
    assert (done.status, "has no [voc_det]" in done.error) == (2, True)


EIGHT = ["scenes.train=8", "scenes.test=1", "scenes.corpus=1", "voc.min_positives=1"]
LARGE = "scenes.size=192"  # twelve cells of stride 16 across: fewer cannot draw the masks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "settings", "least"),
    [
        ("voc_det", ["views=3200", "scale=[1.0, 1.0]"], 90),
        ("voc_seg", ["views=2000", "scale=[1.0, 1.0]", "size=192"], 80),
        ("voc_cls_finetune", ["views=1600", "crop_scale=[0.9, 1.0]"], 90),
    ],
)
def test_a_task_learns_eight_images_by_heart(task, settings, least, cache):
    rate = 0.003 if task == "voc_seg" else 0.001
    each = (*settings, "batch=8", f"learning_rates=[{rate}]", "trial=0.01")
    size = [LARGE] if task == "voc_seg" else []
    chosen = loader.load("mini", [*EIGHT, *size, *(f"{task}.{key}" for key in each)])
    data = open_data(chosen, None, {"voc", "masks"}, cache, Reporter())
    same = dataclasses.replace(
        data,
        voc=Voc(data.voc.train, data.voc.train),
        masks=Masks(data.masks.train, data.masks.train),
    )
    made = Context(chosen, "random_init", 0, torch.device("cpu"), same, cache, Reporter())
    assert evaluate(task, made).value > least
