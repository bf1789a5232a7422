"""What adversarial methods share, and what each generator and discriminator minimizes."""

import importlib
import math

import pytest
import torch
from support import Says, batch_of, built
from torch import nn

from bench import plugins
from bench.data.color import rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.training.parts.adversarial import ImagePool, adversarial_loss, diversity


class Constant(nn.Module):
    """A discriminator with the same logit for every image."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, image):
        return torch.full((len(image), 1), float(self.logit))


class Perfect(nn.Module):
    """A discriminator that knows the real images."""

    def __init__(self, real):
        super().__init__()
        self.real = real

    def forward(self, image):
        same = image.shape == self.real.shape and torch.allclose(image, self.real, atol=1e-5)
        return torch.full((len(image), 1), 20.0 if same else -20.0)


def test_bigans_losses_on_logits_by_hand():
    module = importlib.import_module("bench.methods.bigan")
    encoded, generated = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [1.0]])
    # The discriminator: encoded pairs are real, generated ones are not.
    real = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    fake = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert module.joint_loss(encoded, generated, flipped=False).item() == pytest.approx(
        (real + fake) / 2
    )
    # Encoder and generator: the labels exchanged, on both halves.
    real = (math.log1p(math.exp(2)) + math.log(2)) / 2
    fake = (math.log1p(math.exp(1)) + math.log1p(math.exp(-1))) / 2
    assert module.joint_loss(encoded, generated, flipped=True).item() == pytest.approx(
        (real + fake) / 2
    )
    assert adversarial_loss(torch.zeros(3), True).item() == pytest.approx(math.log(2))


def test_the_pool_fills_then_returns_half_old_images():
    torch.manual_seed(0)
    pool = ImagePool((1,), capacity=50)
    first = torch.arange(50.0)[:, None]
    assert torch.equal(pool(first), first) and torch.equal(pool.images, first)
    new = torch.arange(1000.0, 5000.0)[:, None]
    shown = torch.cat([pool(part) for part in new.split(10)])
    exchanged = (shown != new).float().mean().item()
    assert exchanged == pytest.approx(0.5, abs=0.03)
    assert len(shown.unique()) == len(shown)  # an exchanged image leaves the pool
    # A image stays for 100 showings on average: each is exchanged with chance 1 / (2 x 50).
    returned = ((shown != new) & (shown >= 1000))[:, 0]
    ages = (new - shown)[returned]
    assert ages.mean().item() == pytest.approx(100, rel=0.15)
    again = ImagePool((1,), capacity=50)
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again.images, pool.images) and again.count == 50


def test_a_collapsed_generator_shows():
    real = torch.rand(8, 3, 4, 4)
    assert diversity(real, real).item() == pytest.approx(1)
    assert diversity(real[:1].expand(8, -1, -1, -1), real).item() == pytest.approx(0, abs=1e-6)


def test_bigan_refuses_a_crop_that_it_cannot_generate(context, smoke):
    pretext = plugins.load("methods", "bigan")()
    bigan = context("bigan", at=smoke.model_copy(update={"recipes": {"bigan": {"crop": 40}}}))
    with pytest.raises(Exception, match="not crop = 40"):
        pretext.build(bigan)


def test_pix2pix_adds_a_hundred_times_the_error_to_the_adversary(context):
    pretext = built("pix2pix", context)
    batch = batch_of(pretext, context, "pix2pix")
    lab = rgb_to_lab(to_unit_range(batch))
    real = torch.cat([lab[:, :1] / 50 - 1, lab[:, 1:] / 110], 1)
    pretext._predict_ab = lambda rgb: torch.zeros_like(real[:, 1:])
    pretext.discriminator = Constant(0)
    expected = math.log(2) + 100 * real[:, 1:].abs().mean()
    assert pretext.generator_loss(batch).item() == pytest.approx(expected.item(), rel=1e-4)
    assert pretext.discriminator_loss(batch).item() == pytest.approx(math.log(2))
    pretext.discriminator = Perfect(real)
    assert pretext.discriminator_loss(batch) < 1e-6
    assert pretext.generator_loss(batch) > 20


def test_the_context_encoder_counts_the_hole_and_ten_times_its_border(context):
    pretext = built("context_encoder", context)
    clean, corners = batch = batch_of(pretext, context, "context_encoder")
    pretext._inpaint = lambda rgb, corners: rgb + 0.1
    pretext.discriminator = Constant(0)
    inner = (pretext.hole - 2 * pretext.border) ** 2
    weight = (10 * (pretext.hole**2 - inner) + inner) / pretext.hole**2
    expected = 0.999 * 0.01 * weight + 0.001 * math.log(2)
    assert pretext.generator_loss(batch).item() == pytest.approx(expected, rel=1e-4)
    assert pretext.logged["l1"].item() == pytest.approx(0.1, rel=1e-4)
    real = torch.stack(
        [
            image[:, y : y + pretext.hole, x : x + pretext.hole]
            for image, (y, x) in zip(to_unit_range(clean), corners.tolist(), strict=True)
        ]
    )
    pretext.discriminator = Perfect(real)
    assert pretext.discriminator_loss(batch) < 1e-6


def test_bigans_generator_and_discriminator_minimize_opposites(context):
    pretext = built("bigan", context)
    batch = batch_of(pretext, context, "bigan")
    pretext.discriminator = Says(
        lambda x, z: torch.full(
            (len(x), 1), 20.0 if torch.equal(x, to_unit_range(batch)) else -20.0
        )
    )  # knows the images from the generated
    assert pretext.generator_loss(batch).item() == pytest.approx(20)
    assert pretext.discriminator_loss(batch) < 1e-6
    x, code = pretext.encoded_pair
    fake, z = pretext.generated_pair
    assert torch.equal(x, to_unit_range(batch)) and code.shape == z.shape == (4, 200)
    assert code.abs().max() <= 1 and z.abs().max() <= 1 and z.std() > 0.4
    assert fake.shape == x.shape


def test_cyclegan_never_sees_a_pair(context):
    pretext = built("cyclegan", context)
    batch = batch_of(pretext, context, "cyclegan")
    lab = rgb_to_lab(to_unit_range(batch))
    images = torch.cat([lab[:, :1] / 50 - 1, lab[:, 1:] / 110], 1)
    pretext.generator_loss(batch)
    gray, color = images[:2, :1], images[2:]
    pretext.discriminator = nn.ModuleList([Perfect(gray), Perfect(color)])
    # Real is 20 and should be 1, fake is -20 and should be 0: for each of the two, halved.
    assert pretext.discriminator_loss(batch).item() == pytest.approx(19**2 + 20**2)


def test_cyclegans_generators_pay_ten_times_for_what_a_cycle_loses(context):
    pretext = built("cyclegan", context)
    batch = batch_of(pretext, context, "cyclegan")
    lab = rgb_to_lab(to_unit_range(batch))
    color = torch.cat([lab[2:, :1] / 50 - 1, lab[2:, 1:] / 110], 1)
    pretext.graying = Says(lambda image: image[:, :1])  # gray is exact ...
    pretext._color = lambda gray: torch.cat([gray, 0 * gray, 0 * gray], 1)  # ... color is lost
    pretext.discriminator = nn.ModuleList([Constant(1), Constant(1)])  # both pass for real
    lost = torch.cat([0 * color[:, :1], color[:, 1:]], 1).abs().mean()
    assert pretext.generator_loss(batch).item() == pytest.approx(10 * lost.item(), rel=1e-4)
    pretext.discriminator = nn.ModuleList([Constant(0), Constant(0)])  # neither does
    worse = pretext.generator_loss(batch).item()
    assert worse == pytest.approx(2 + 10 * lost.item(), rel=1e-4)
