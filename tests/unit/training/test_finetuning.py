"""What the fine-tuned tasks share: they learn, select on training images, resume when killed."""

import copy
import dataclasses
from importlib import resources

import numpy as np
import pytest
import torch

from bench import plugins
from bench.config import loader
from bench.data.datasets import open_datasets
from bench.encoders.encoder import Encoder
from bench.errors import UserError
from bench.metrics import registry
from bench.runtime.progress import Reporter
from bench.training import finetuning, trainer
from bench.training.context import Context
from bench.training.method import load_or_pretrain

TASKS = ("voc_det", "voc_seg", "voc_cls_finetune")


def evaluate(task, context):
    return plugins.load("tasks", task)().evaluate(copy.deepcopy(load_or_pretrain(context)), context)


def score(task, context):
    """The main score."""
    result = evaluate(task, context)
    name = getattr(context.settings, "metric", plugins.describe("tasks", task).constants["metric"])
    return registry.value(registry.get(name), result.predictions)


def same(a, b):
    """Whether two results predict the same, by the same selection."""
    assert a.predictions.keys() == b.predictions.keys()
    arrays = all(np.array_equal(v, b.predictions[k]) for k, v in a.predictions.items())
    return arrays and a.diagnostics == b.diagnostics and a.hyperparameters == b.hyperparameters


def at(context, task, where, **changes):
    """A cell's context with other settings of a task, and a cache of its own."""
    plain = context("random_init", where=where, task=task)
    section = {"learning_rates": (1e-3, 3e-3)} | changes
    tasks = plain.suite.tasks | {task: plain.suite.tasks[task] | section}
    return dataclasses.replace(plain, suite=plain.suite.model_copy(update={"tasks": tasks}))


def changed(context, split, **fields):
    """A context whose data set has another split."""
    dataset = context.dataset
    part = dataclasses.replace(getattr(dataset, split), **fields)
    other = dataclasses.replace(dataset, **{split: part})
    return dataclasses.replace(context, datasets={**context.datasets, dataset.name: other})


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


def stop_training(monkeypatch):
    def stopped(self, bar):
        raise Stopped

    monkeypatch.setattr(trainer.Trainer, "run", stopped)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
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
        assert same(again, whole)


def test_a_checkpoint_stays_until_its_training_is_kept(context, tmp_path, monkeypatch):
    task = "voc_cls_finetune"
    made = at(context, task, tmp_path, learning_rates=(1e-3,))
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)

    def checkpoints():
        return list(tmp_path.glob("checkpoints/*.pt"))

    def stopped(path, content):
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(finetuning, "_write", stopped)
        evaluate(task, made)
    assert len(checkpoints()) == 1
    evaluate(task, made)
    assert not checkpoints()
    for path in tmp_path.glob("finetuned/*"):  # a kill between keeping a training and this
        (tmp_path / "checkpoints" / f"random_init-{path.stem[:24]}.pt").touch()
    assert len(checkpoints()) == 2
    evaluate(task, made)
    assert not checkpoints()


def test_what_is_finished_is_not_done_again(context, tmp_path, monkeypatch):
    made = at(context, "voc_seg", tmp_path)
    first = evaluate("voc_seg", made)
    monkeypatch.setattr(trainer.Trainer, "run", None)  # would raise if called
    assert same(evaluate("voc_seg", made), first)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_another_truth_is_trained_anew(task, context, tmp_path, monkeypatch):
    made = at(context, task, tmp_path, learning_rates=(1e-3,))
    evaluate(task, made)
    other = "0" * 64  # as of boxes or masks that were corrected
    stop_training(monkeypatch)
    with pytest.raises(Stopped):
        evaluate(task, changed(made, "train", fingerprint=other))


def test_another_code_of_the_method_is_trained_anew(context, tmp_path, monkeypatch):
    """Its encoder may compute other maps of equal weights."""
    made = at(context, "voc_cls_finetune", tmp_path, learning_rates=(1e-3,))
    evaluate("voc_cls_finetune", made)
    stop_training(monkeypatch)
    evaluate("voc_cls_finetune", dataclasses.replace(made))
    with pytest.raises(Stopped):
        evaluate("voc_cls_finetune", dataclasses.replace(made, method_digest="0" * 64))


C4 = {
    "protocol": "c4",
    "size": 64,
    "shortest_sides": (40, 48),
    "views": 8,
    "batch": 4,
    "learning_rates": (1e-3,),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["voc_det"])
def test_another_last_stage_is_trained_anew(task, context, tmp_path, monkeypatch):
    """Though the detector takes it off the encoder."""
    made = at(context, task, tmp_path, **C4)
    evaluate(task, made)
    encoder = copy.deepcopy(load_or_pretrain(made))
    with torch.no_grad():
        list(encoder.branches[0].parameters())[-1].add_(1.0)
    stop_training(monkeypatch)
    with pytest.raises(Stopped):
        plugins.load("tasks", task)().evaluate(encoder, made)


@pytest.mark.slow
def test_statistics_after_training_are_the_same_when_they_are_measured_again(
    context, tmp_path, monkeypatch
):
    """They are of the batches that would come next; a run that was killed amid them resumes."""

    def stopped(*arguments):
        raise Stopped

    def weights(name, **changes):
        made = at(context, "voc_det", tmp_path / name, **C4, selection_fraction=0.0, **changes)
        with pytest.raises(Stopped):
            evaluate("voc_det", made)
        kept = [*made.cache.glob("finetuned/*.pt")]
        return torch.load(kept[0], weights_only=True)["network"] if kept else None

    monkeypatch.setattr(plugins.load("tasks", "voc_det"), "predict", stopped)
    running, whole = weights("a", statistics_batches=0), weights("b", statistics_batches=3)
    same_weights = {name for name, value in whole.items() if torch.equal(value, running[name])}
    assert {name.rpartition(".")[2] for name in whole.keys() - same_weights} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }
    drawn, seed = [], trainer.Trainer._seed

    def stopping(run, step):
        drawn.append(step)
        if step == 4:
            raise Stopped
        seed(run, step)

    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_seed", stopping)
        assert weights("c", statistics_batches=3) is None
    assert drawn == [0, 1, 2, 3, 4]
    torch.testing.assert_close(weights("c", statistics_batches=3), whole, rtol=0, atol=0)


def test_a_given_rate_is_not_tried(context, tmp_path):
    made = at(context, "voc_seg", tmp_path, learning_rates=(1e-3,), selection_fraction=0.0)
    chosen = evaluate("voc_seg", made).hyperparameters
    assert chosen.selected == {"learning_rate": 1e-3}
    assert (chosen.num_settings, chosen.split, chosen.tried) == (1, "", {})
    assert len(list(tmp_path.glob("finetuned/*"))) == 1


def test_held_out_images_that_show_nothing_are_named(context, tmp_path):
    made = at(context, "voc_det", tmp_path, validation_fraction=0.01)
    empty = tuple(() for _ in made.dataset.train.objects)
    with pytest.raises(UserError, match="held-out images show nothing that counts"):
        evaluate("voc_det", changed(made, "train", objects=empty))


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


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_chosen_on_the_test_list(task, context, tmp_path):
    """Other test images change neither the rate nor what it was chosen by."""
    made = at(context, task, tmp_path)
    first = evaluate(task, made)
    test = made.dataset.test
    cut = slice(0, 40)
    few = {"ids": test.ids[cut]}
    for name in ("images", "masks"):
        if hasattr(test, name):
            files = getattr(test, name)
            few[name] = dataclasses.replace(files, files=files.files[cut])
    for name in ("labels", "objects"):
        if hasattr(test, name):
            few[name] = getattr(test, name)[cut]
    again = evaluate(task, changed(made, "test", **few))
    assert again.hyperparameters == first.hyperparameters
    assert len(again.predictions["ids"]) == 40


def test_a_rate_that_diverges_is_passed_over(context, tmp_path):
    result = evaluate("voc_seg", at(context, "voc_seg", tmp_path, learning_rates=(1e-3, 1e6)))
    assert result.hyperparameters.selected["learning_rate"] == 1e-3
    assert result.hyperparameters.tried["validation_score"][1] is None
    message = r"voc_seg: diverged at every rate of \[1000000\.0\]; lower tasks\.voc_seg\.learning"
    with pytest.raises(trainer.NonFiniteLossError, match=message):
        evaluate("voc_seg", at(context, "voc_seg", tmp_path, learning_rates=(1e6,)))


@pytest.mark.parametrize("task", TASKS)
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
    evaluate(task, made)
    assert unchanged and all(unchanged)


@pytest.mark.slow
def test_the_moco_protocol_runs(context, tmp_path):
    result = evaluate(
        "voc_det", at(context, "voc_det", tmp_path, protocol="c4", shortest_sides=(64,), size=64)
    )
    for name in ("AP50", "COCO_AP50"):
        assert 0 <= result.diagnostics[name] <= 100


def test_fcn32s_runs(context, tmp_path):
    assert 0 <= score("voc_seg", at(context, "voc_seg", tmp_path, head="fcn32s")) <= 100


def test_a_suite_without_settings_for_a_task_says_so(bench, tmp_path):
    text = (resources.files("bench.config") / "suites/mini.toml").read_text()
    path = tmp_path / "bare.toml"
    path.write_text(text[: text.index("[tasks.voc_det]")])
    done = bench("run", "--methods", "random_init", "--tasks", "voc_det", "--suite", path)
    assert done.status == 2
    assert "[tasks.voc_det]: key" in done.error and "is missing" in done.error


EIGHT = [
    *("synthetic.train=8", "synthetic.test=2", "synthetic.pretraining=1", "synthetic.validation=1"),
    "datasets.voc.min_positives=1",
]
SMALLEST, USUAL = "test_efficientnet", "tf_efficientnet_lite0"  # by timm's names
LARGE = "synthetic.size=192"  # twelve cells of stride 16 across: fewer cannot draw the masks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "backbone", "rate", "settings", "least"),
    [
        ("voc_det", SMALLEST, 0.002, ["views=1200", "scale=[1.0, 1.0]"], 90),
        ("voc_seg", SMALLEST, 0.003, ["views=1200", "scale=[1.0, 1.0]", "size=192"], 80),
        ("voc_cls_finetune", USUAL, 0.001, ["views=1600", "crop_scale=[0.9, 1.0]"], 90),
    ],
)
def test_a_task_learns_eight_images_by_heart(task, backbone, rate, settings, least, cache):
    each = (*settings, "batch=8", f"learning_rates=[{rate}]", "selection_fraction=0.01")
    others = [f"backbone.name='{backbone}'", *([LARGE] if task == "voc_seg" else [])]
    suite = loader.load("mini", [*EIGHT, *others, *(f"tasks.{task}.{key}" for key in each)])
    opened = open_datasets(suite, {"voc", "voc_masks"}, None, cache, Reporter())
    both = {n: dataclasses.replace(d, test=d.train) for n, d in opened.items()}
    cpu = torch.device("cpu")
    made = Context(suite, "random_init", 0, cpu, both, cache, Reporter(), task=task)
    assert score(task, made) > least


VIT = "vit_tiny_patch16_224"


def vit_context(context, where, **changes):
    """A context of voc_cls_finetune whose suite has a transformer."""
    plain = at(context, "voc_cls_finetune", where, **changes)
    backbone = plain.suite.backbone.model_copy(update={"name": VIT})
    suite = plain.suite.model_copy(update={"backbone": backbone})
    return dataclasses.replace(plain, suite=suite)


def test_a_transformer_is_fine_tuned_at_rates_that_fall_by_block(context, tmp_path, monkeypatch):
    rates = {}
    update = trainer.Trainer._update

    def noted(run, batch, name, rate):
        loss = update(run, batch, name, rate)
        names = {weight: key for key, weight in run.module.named_parameters()}
        for group in run.optimizers[name].param_groups:
            rates.update({names[w]: group["lr"] / rate for w in group["params"] if rate})
        return loss

    monkeypatch.setattr(trainer.Trainer, "_update", noted)
    result = evaluate("voc_cls_finetune", vit_context(context, tmp_path))
    encoder = "encoder.branches.0.model."
    assert rates[f"{encoder}pos_embed"] == pytest.approx(0.7**13)
    assert rates[f"{encoder}blocks.0.mlp.fc1.weight"] == pytest.approx(0.7**12)
    assert rates[f"{encoder}blocks.11.mlp.fc1.weight"] == pytest.approx(0.7)
    assert {rates[key] for key in rates if not key.startswith("encoder.")} == {1.0}
    assert "rate_share" in result.trace.optimizers["loss"]


def test_networks_of_layer_norms_get_adamw_and_as_many_rates(context, tmp_path):
    sgd = {"optimizer": "sgd", "learning_rates": (0.01, 0.02, 0.04), "weight_decay": 1e-4}
    own = at(context, "voc_seg", tmp_path, **sgd).settings
    for name in (VIT, "convnext_atto", "swin_tiny_patch4_window7_224"):
        settings = finetuning.suited(own, Encoder(name))
        assert settings.optimizer == "adamw"
        assert settings.weight_decay == 0.1
        assert settings.learning_rates == pytest.approx((5e-5, 1e-4, 2e-4))
        assert settings.views == own.views
    assert finetuning.suited(own, Encoder("resnet18")) is own
    adamw = at(context, "voc_seg", tmp_path).settings
    assert finetuning.suited(adamw, Encoder(VIT)) is adamw
