"""The training loop."""

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from bench import plugins
from bench.errors import UserError
from bench.training import checkpoint, trainer
from bench.training.method import load_or_pretrain
from bench.training.optimizer import rate_factor
from bench.training.pretext import PretextTask
from bench.training.trainer import NonFiniteLossError


def with_recipe(context, method="rotation", **changes):
    made = context(method)
    recipe = made.suite.pretraining.model_copy(update=changes)
    recipes = made.suite.recipes | {method: recipe}
    return replace(made, suite=made.suite.model_copy(update={"recipes": recipes}))


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


def test_a_resumed_run_ends_with_the_same_weights_and_figures(context, tmp_path, monkeypatch):
    made = with_recipe(context, images=320)
    whole = load_or_pretrain(replace(made, cache=tmp_path / "a"))
    interrupted = replace(made, cache=tmp_path / "b")
    monkeypatch.setattr(trainer, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(trainer, "FIRST_CHECKPOINT", 0.0)
    save, saves = trainer.Trainer._save, []

    def save_then_stop(run):
        save(run)
        saves.append(run.step)
        if run.step == 19:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(trainer.Trainer, "_save", save_then_stop)
        load_or_pretrain(interrupted)
    assert saves[-1] == 19
    again = load_or_pretrain(interrupted)
    assert again.weights_sha256() == whole.weights_sha256()
    assert again.pretraining.views_seen == whole.pretraining.views_seen == 320
    assert again.pretraining.logged == whole.pretraining.logged


def test_the_budget_counts_what_the_encoder_sees(context, tmp_path):
    for method, views in (("rotation", 4), ("supervised", 1)):
        seen = []
        plugin = plugins.load("methods", method)
        assert plugin.views == views

        class Counted(plugin):
            def build(self, context, seen=seen):
                super().build(context)
                self.encoder.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))

        made = replace(with_recipe(context, method), cache=tmp_path / method)
        encoder = Counted().pretrain(made)
        assert sum(seen) == encoder.pretraining.views_seen == made.recipe.images


def test_a_loss_that_is_not_finite_stops_the_run(context, tmp_path):
    class Broken(plugins.load("methods", "rotation")):
        def loss(self, batch, player):
            return super().loss(batch, player) * math.inf

    with pytest.raises(NonFiniteLossError, match="loss is not finite by step"):
        Broken().pretrain(replace(with_recipe(context), cache=tmp_path))
    assert not list(tmp_path.rglob("*.pt"))


def test_two_players_move_their_own_parameters_only(context, tmp_path):
    """The adversarial game's loop: what a player minimizes moves nobody else."""

    class Game(PretextTask):
        reference: ClassVar[str] = ""

        def build(self, context):
            super().build(context)
            self.rival = torch.nn.Linear(self.encoder.channels[0], 1)
            self.start = self.rival.weight.detach().clone()

        def players(self):
            return {"encoder": self.encoder.parameters(), "rival": self.rival.parameters()}

        def loss(self, batch, player):
            score = self.rival(self.encoder(batch.float() / 255)[0].mean((2, 3))).mean()
            return score if player == "encoder" else 0 * score

    game = Game()
    encoder = game.pretrain(replace(with_recipe(context, weight_decay=0.0), cache=tmp_path))
    assert {"loss_encoder", "loss_rival"} == {*encoder.pretraining.logged}
    assert torch.equal(game.rival.weight, game.start)


def test_rotation_learns_to_tell_the_turn(context, tmp_path):
    """On 40 rendered images: well above one in four, in seconds."""
    made = with_recipe(context, images=6400, batch=64, learning_rate=2e-3)
    encoder = plugins.load("methods", "rotation")().pretrain(replace(made, cache=tmp_path))
    assert encoder.pretraining.logged["accuracy"] > 0.4


def test_the_rate_warms_up_and_falls(smoke):
    recipe = smoke.pretraining.model_copy(update={"warmup": 0.1, "schedule": "cosine"})
    rates = [rate_factor(step, 100, recipe) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.5, abs=1e-6)
    assert 0 < rates[99] < 0.01
    steps = recipe.model_copy(update={"warmup": 0.0, "schedule": "step", "milestones": (0.5, 0.8)})
    assert [rate_factor(s, 10, steps) for s in (0, 4, 5, 7, 8, 9)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_a_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"\x80\x04junk")
    with pytest.raises(UserError, match=r"x\.pt: not a checkpoint .* delete it and run again"):
        checkpoint.read_checkpoint(path, "key", torch.device("cpu"))
    torch.save({"key": "other"}, path)
    with pytest.raises(UserError, match="the checkpoint of another run"):
        checkpoint.read_checkpoint(path, "key", torch.device("cpu"))
