"""The training loop."""

import math
from dataclasses import replace

import pytest
import torch

from bench import plugins
from bench.errors import UserError
from bench.training import checkpoint, trainer
from bench.training.method import load_or_pretrain
from bench.training.optimizer import rate_factor
from bench.training.pretext import AdversarialPretextTask
from bench.training.trainer import NonFiniteLossError


def with_recipe(context, method="rotation", **changes):
    plain = context(method)
    recipes = plain.suite.recipes | {method: changes}
    return replace(plain, suite=plain.suite.model_copy(update={"recipes": recipes}))


class Stopped(BaseException):
    """As hard as a kill: nothing catches it."""


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights_and_figures(context, tmp_path, monkeypatch):
    longer = with_recipe(context, views=320)
    whole = load_or_pretrain(replace(longer, cache=tmp_path / "a"))
    interrupted = replace(longer, cache=tmp_path / "b")
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
    seconds = whole.pretraining.seconds
    assert replace(again.pretraining, seconds=seconds) == whole.pretraining


def test_the_budget_counts_what_the_encoder_sees(context, tmp_path):
    for method, views in (("rotation", 4), ("supervised", 1)):
        seen = []
        plugin = plugins.load("methods", method)
        assert plugin.views_per_image == views

        class Counted(plugin):
            def build(self, context, seen=seen):
                super().build(context)
                self.encoder.register_forward_pre_hook(
                    lambda network, x: seen.append(len(x[0]) * network.training)
                )

        counted = replace(with_recipe(context, method), cache=tmp_path / method)
        encoder = Counted().pretrain(counted)
        assert sum(seen) == encoder.pretraining.views_seen == counted.recipe.views


def test_a_loss_that_is_not_finite_stops_the_run(context, tmp_path):
    class Broken(plugins.load("methods", "rotation")):
        def loss(self, batch):
            return super().loss(batch) * math.inf

    with pytest.raises(
        NonFiniteLossError, match=r"by step 4 of 4; lower pretraining\.learning_rate"
    ):
        Broken().pretrain(replace(with_recipe(context), cache=tmp_path))
    assert not list(tmp_path.rglob("*.pt"))


def test_each_loss_moves_the_parameters_of_its_own_network_only(context, tmp_path):
    """The generator's loss reaches the discriminator, which must not follow it."""

    class Game(AdversarialPretextTask):
        def build(self, context):
            super().build(context)
            self.discriminator = torch.nn.Linear(self.encoder.channels[0], 1)
            self.start = self.discriminator.weight.detach().clone()

        def generator_loss(self, batch):
            return self.discriminator(self.encoder(batch.float() / 255)[0].mean((2, 3))).mean()

        def discriminator_loss(self, batch):
            return 0 * self.generator_loss(batch)

    game = Game()
    encoder = game.pretrain(replace(with_recipe(context, weight_decay=0.0), cache=tmp_path))
    assert {"loss_generator", "loss_discriminator"} == {*encoder.pretraining.logged}
    assert torch.equal(game.discriminator.weight, game.start)


def test_rotation_learns_to_tell_the_rotation(context, tmp_path):
    """On 40 rendered images: well above one in four, in seconds."""
    longer = with_recipe(context, views=2400, batch=32, learning_rate=4e-3)
    encoder = plugins.load("methods", "rotation")().pretrain(replace(longer, cache=tmp_path))
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
    checkpoint.save_checkpoint(path, "other", {"step": 3})
    with pytest.raises(UserError, match="the checkpoint of another run; delete it and run again"):
        checkpoint.read_checkpoint(path, "key", torch.device("cpu"), print)


def test_a_damaged_checkpoint_is_named_and_counts_as_none(tmp_path):
    path = tmp_path / "x.pt"
    lines = []
    checkpoint.save_checkpoint(path, "key", {"step": 3, "weights": torch.ones(1000)})
    whole = path.read_bytes()
    state = checkpoint.read_checkpoint(path, "key", torch.device("cpu"), lines.append)
    assert state["step"] == 3
    assert not lines
    zeroed = whole[:1000] + bytes(len(whole) - 1000)
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (b"\x80\x04junk", b"", whole[:-1], whole + b"x", zeroed, flipped):
        path.write_bytes(content)
        assert checkpoint.read_checkpoint(path, "key", torch.device("cpu"), lines.append) is None
        assert lines.pop() == f"{path}: is damaged or of an older format; it is computed anew"
    path.unlink()
    assert checkpoint.read_checkpoint(path, "key", torch.device("cpu"), lines.append) is None
    assert not lines
