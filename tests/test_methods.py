"""The contract of a method, over every file in methods/."""

import importlib
import inspect

import pytest
import torch
from torch.nn import functional as F

from bench import plugins
from bench.corpus import Stream
from bench.encoder import Encoder, side_mask
from bench.lab import lab_to_rgb, rgb_to_lab
from bench.method import obtain
from bench.pretext import Pretext
from bench.views import patches, unit

METHODS = plugins.names("methods")
PRETEXTS = [name for name in METHODS if issubclass(plugins.load("methods", name), Pretext)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name):
    found = plugins.describe("methods", name)
    assert found.summary
    assert "http" in found.constants["reference"]
    assert len(plugins.source("methods", name).read_text().splitlines()) <= 100


@pytest.mark.parametrize("name", METHODS)
def test_the_encoder_fits_every_task(name, context):
    encoder = obtain(context(name))
    assert isinstance(encoder, Encoder)
    assert not encoder.training
    for height, width in ((64, 64), (33, 47)):
        maps = encoder(torch.rand(1, 3, height, width))
        assert len(maps) == len(encoder.channels) == len(encoder.strides)
        for stage, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
            assert stage.shape == (1, channels, -(-height // stride), -(-width // stride))
            assert stage.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_weights(name, context, tmp_path):
    first = obtain(context(name, where=tmp_path / "a"))
    second = obtain(context(name, where=tmp_path / "b"))
    assert first.weights_sha256() == second.weights_sha256()
    if name != "imagenet":
        other = obtain(context(name, seed=1, where=tmp_path / "a"))
        assert other.weights_sha256() != first.weights_sha256()


def built(name, context):
    torch.manual_seed(0)
    pretext = plugins.load("methods", name)()
    pretext.build(context(name))
    return pretext


def batch_of(pretext, context, name, images=4):
    made = context(name)
    stream = Stream(made.corpus, 0, pretext.example, images)
    return torch.utils.data.default_collate([stream[i] for i in range(images)])


@pytest.mark.parametrize("name", PRETEXTS)
def test_gradients_reach_every_stage_of_the_encoder(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    for player in pretext.players():
        pretext.loss(batch, player).backward()
    reached = [p.grad is not None and bool(p.grad.any()) for p in pretext.encoder.parameters()]
    assert sum(reached) > 0.9 * len(reached)
    assert reached[0]


@pytest.mark.parametrize("name", PRETEXTS)
def test_the_budget_counts_what_the_encoder_sees(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    seen = []
    pretext.encoder.parts[0].register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    for player in pretext.players():
        pretext.loss(batch, player)
    assert sum(seen) == 4 * pretext.views, f"views = {pretext.views} of {sum(seen) / 4:g} shown"


@pytest.mark.parametrize("name", PRETEXTS)
def test_the_loss_is_finite_in_bfloat16(name, context):
    pretext = built(name, context)
    batch = batch_of(pretext, context, name)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [pretext.loss(batch, player) for player in pretext.players()]
    assert all(loss.isfinite() for loss in losses)


@pytest.mark.parametrize("name", sorted({*PRETEXTS} - {"supervised"}))
def test_a_self_supervised_method_never_sees_a_label(name, context):
    pretext = built(name, context)
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    made = []
    for label in (0, 1):
        torch.manual_seed(0)
        made.append(pretext.example(image, label))
    same = torch.utils.data.default_collate(made)
    for part in same if isinstance(same, list | tuple) else [same]:
        assert torch.equal(part[0], part[1])


@pytest.mark.parametrize("name", PRETEXTS)
@pytest.mark.parametrize("shape", [(3, 20, 90), (3, 31, 17)])
def test_odd_picture_sizes_and_gray_pictures(name, shape, context):
    pretext = built(name, context)
    gray = torch.randint(0, 256, shape[1:], dtype=torch.uint8).expand(shape)
    batch = torch.utils.data.default_collate([pretext.example(gray, 0)] * 4)
    for player in pretext.players():
        assert pretext.loss(batch, player).isfinite()


@pytest.mark.parametrize("name", PRETEXTS)
def test_a_pretext_task_inherits_the_only_training_loop(name):
    plugin = plugins.load("methods", name)
    assert plugin.pretrain is Pretext.pretrain
    assert "optim" not in inspect.getsource(plugin)


def test_rotation_turns_every_picture_by_every_right_angle(context):
    pretext = built("rotation", context)
    seen = []
    pretext.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    crops = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    pretext.loss(crops, "encoder")
    turned = (seen[0] * 255).round().byte()
    assert torch.equal(turned[:2], crops)
    # A quarter turn, pixel by pixel: what stood at (row, column) goes to (7 - column, row).
    for row, column in ((0, 0), (2, 5)):
        assert torch.equal(turned[2, :, 7 - column, row], crops[0, :, row, column])
        assert torch.equal(turned[4, :, 7 - row, 7 - column], crops[0, :, row, column])
        assert torch.equal(turned[6, :, column, 7 - row], crops[0, :, row, column])


SEES_L = ["colorization", "pix2pix", "cyclegan"]


def lab_pictures(lightness, ab):
    return lab_to_rgb(torch.cat([lightness, ab], dim=1))


def change(one, other):
    """The largest difference of two maps, as a share of the largest value."""
    return ((one - other).abs().max() / one.abs().max()).item()


@pytest.mark.parametrize("name", [*SEES_L, "random_init_l"])
def test_an_encoder_of_lightness_ignores_colour(name, context):
    encoder = obtain(context(name))
    assert encoder.sees == ("l",)
    lightness = 30 + 40 * torch.rand(2, 1, 48, 48)
    ab = torch.rand(2, 2, 48, 48) * 20
    plain = encoder(lab_pictures(lightness, torch.zeros_like(ab)))
    coloured = encoder(lab_pictures(lightness, ab))
    darker = encoder(lab_pictures(lightness - 20 * (torch.arange(48) < 24), ab))
    for one, other, third in zip(plain, coloured, darker, strict=True):
        assert change(one, other) < 0.01 < change(one, third)


@pytest.mark.parametrize("name", ["split_brain", "random_init_lab"])
def test_the_halves_of_the_split_brain_ignore_each_others_channels(name, context):
    encoder = obtain(context(name))
    lightness = 30 + 40 * torch.rand(2, 1, 48, 48)
    ab = torch.rand(2, 2, 48, 48) * 20 - 10
    base, recoloured, relit = (
        encoder.by_part(lab_pictures(*parts))
        for parts in ((lightness, ab), (lightness, -ab), (lightness.flip(-1), ab))
    )
    lightness_half, colour_half = 0, 1
    for stage in range(len(base[0])):
        moved = [
            [change(base[half][stage], new[half][stage]) for new in (recoloured, relit)]
            for half in (lightness_half, colour_half)
        ]
        assert moved[lightness_half][0] < 0.01 < moved[lightness_half][1]
        assert moved[colour_half][1] < 0.01 < moved[colour_half][0]


@pytest.mark.parametrize("name", ["split_brain_halves", "random_init_halves"])
def test_the_spatial_halves_see_only_their_side(name, context):
    encoder = obtain(context(name))
    rgb, noise = torch.rand(2, 3, 40, 48), torch.rand(2, 3, 40, 48)
    for part, (own, other) in enumerate((("above", "below"), ("below", "above"))):
        changed = [torch.where(side_mask(side, rgb) > 0, noise, rgb) for side in (own, other)]
        base, seen, unseen = (encoder.by_part(x)[part] for x in (rgb, *changed))
        assert all(torch.equal(a, b) for a, b in zip(base, unseen, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(base, seen, strict=True))


def test_the_halves_answer_for_what_lies_near_the_cut():
    module = importlib.import_module("bench.methods.split_brain_halves")
    rows, columns, weight = module.near_the_cut("above", torch.zeros(1, 3, 40, 40))
    distance = 2 * (columns - rows)
    assert distance.min() == 2, "nothing on the diagonal, nor on its own side of it"
    assert distance.max() == 12
    assert len(rows) == sum(20 - d // 2 for d in range(2, 13, 2)), "every second pixel"
    assert torch.allclose(weight[:, 0], torch.exp(-distance / 4))
    below = module.near_the_cut("below", torch.zeros(1, 3, 40, 40))
    places = [
        set(zip(r.tolist(), c.tolist(), strict=True)) for r, c in ((rows, columns), below[:2])
    ]
    assert places[1] == {(column, row) for row, column in places[0]}


def test_the_autoencoder_masks_lightness_and_colour_of_whole_cells():
    module = importlib.import_module("bench.methods.autoencoder")
    torch.manual_seed(0)
    clean = torch.rand(50, 3, 20, 28) * 0.2 + 0.4  # so gray that every mixture is in gamut
    noisy, truth = rgb_to_lab(module.mask(clean)), rgb_to_lab(clean)
    light = (noisy[:, 0] - 50).abs() < 0.01
    colour = (noisy[:, 1:].abs() < 0.01).all(1)
    assert torch.allclose(noisy[:, 0][~light], truth[:, 0][~light], atol=0.01)
    kept = ~colour[:, None].expand(-1, 2, -1, -1)
    assert torch.allclose(noisy[:, 1:][kept], truth[:, 1:][kept], atol=0.01)
    corners = light[:, ::8, ::8], colour[:, ::8, ::8]
    for masked, corner in zip((light, colour), corners, strict=True):
        whole = corner.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :20, :28]
        assert (masked == whole).float().mean() > 0.999  # but for a pixel that was mid-gray before
        assert corner.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (corners[0] & corners[1]).float().mean().item() == pytest.approx(0.25, abs=0.05)


def seen_by(pretext, batch, player):
    """What the encoder was shown while the loss was computed."""
    seen = []
    handle = pretext.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pretext.loss(batch, player)
    handle.remove()
    return seen[0]


def test_the_context_encoder_never_sees_its_hole(context):
    pretext = built("context_encoder", context)
    batch, corners = batch_of(pretext, context, "context_encoder")
    noise = torch.randint(0, 256, batch.shape, dtype=torch.uint8)
    inner = slice(pretext.border, pretext.hole - pretext.border)
    changed = batch.clone()
    for picture, fresh, (top, left) in zip(changed, noise, corners.tolist(), strict=True):
        rows = slice(top + inner.start, top + inner.stop)
        columns = slice(left + inner.start, left + inner.stop)
        picture[:, rows, columns] = fresh[:, rows, columns]
    one, other = (seen_by(pretext, (x, corners), "generator") for x in (batch, changed))
    assert not torch.equal(batch, changed) and torch.equal(one, other)


def test_patches_keep_their_distance_and_jitter():
    ruler = torch.arange(90.0).expand(3, 90, 90)  # a pixel's value is its column
    left = torch.stack([patches(ruler, 20, 2)[:, 0, 0, 0] for _ in range(300)])
    assert left.min(0).values.tolist() == [3, 33, 63] * 3  # cells of 30, 5 +- 2 from their edge
    assert left.max(0).values.tolist() == [7, 37, 67] * 3
    rows = torch.stack([patches(ruler.mT, 20, 2)[:, 0, 0, 0] for _ in range(300)])
    assert rows.min(0).values.tolist() == [3] * 3 + [33] * 3 + [63] * 3


def test_context_prediction_asks_where_every_neighbour_lies():
    module = importlib.import_module("bench.methods.context_prediction")
    assert module.PAIRS.shape == (40, 2)
    pairs = map(tuple, module.PAIRS.tolist())
    places = dict(zip(pairs, module.PLACES.tolist(), strict=True))
    # From the middle patch, 4, row by row around it.
    assert [places[4, k] for k in (0, 1, 2, 3, 5, 6, 7, 8)] == list(range(8))
    assert places[0, 1] == places[4, 5] and places[1, 0] == places[5, 4]
    assert (0, 2) not in places and (0, 0) not in places


def test_context_prediction_drops_colour_and_detail():
    module = importlib.import_module("bench.methods.context_prediction")
    torch.manual_seed(0)
    shown = torch.rand(600, 3, 16, 16)
    made = module.disguise(shown)
    grayed = (made.std(1).amax((1, 2)) < 1e-6).float().mean().item()
    assert grayed == pytest.approx(0.66, abs=0.06)
    contrast = made.mean(1).diff(dim=-1).abs().mean((1, 2))
    assert (contrast < 0.6 * contrast.median()).float().mean().item() == pytest.approx(
        0.33, abs=0.1
    )


def test_jigsaw_tiles_are_normalised_each_by_itself(context):
    pretext = built("jigsaw", context)
    module = importlib.import_module("bench.methods.jigsaw")
    tiles = torch.rand(9, 3, 16, 16) * 0.5
    changed = tiles * torch.rand(9, 3, 1, 1).add(0.5) + torch.rand(9, 3, 1, 1) * 0.2
    assert torch.allclose(module.normalise(tiles), module.normalise(changed), atol=1e-4)
    made = module.normalise(tiles)
    assert torch.allclose(made.mean((2, 3)), torch.tensor(0.5), atol=1e-5)
    batch = torch.randint(0, 256, (2, 9, 3, 15, 15), dtype=torch.uint8)
    shown = seen_by(pretext, batch, "encoder")
    assert torch.allclose(shown.mean((2, 3)), torch.tensor(0.5), atol=1e-4)


def test_jigsaw_orders_are_far_apart():
    orders = importlib.import_module("bench.methods.jigsaw").orders(701)
    assert orders.shape == (701, 9)
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(701, 9))
    distance = (orders[:, None] != orders[None]).sum(-1)
    assert distance[~torch.eye(701, dtype=bool)].min() >= 5


def test_a_solved_puzzle_is_the_picture(context):
    pretext = built("jigsaw", context).eval()
    batch = batch_of(pretext, context, "jigsaw")
    pretext._solve = lambda tiles, order: F.one_hot(order, 701)  # a perfect solver
    puzzle, solved, truth = pretext.samples(batch)
    assert torch.equal(solved, truth) and not torch.equal(puzzle, truth)


def test_cyclegan_never_sees_a_pair(context):
    pretext = built("cyclegan", context)
    batch = batch_of(pretext, context, "cyclegan")
    shown = []
    pretext.critics[1].register_forward_pre_hook(lambda _, x: shown.append(x[0]))
    pretext.graying.register_forward_pre_hook(lambda _, x: shown.append(x[0]))
    pretext.loss(batch, "generator")
    lab = rgb_to_lab(unit(batch))
    colour = shown[0][:, 0] * 50 + 50  # what is grayed first is the colour domain
    assert torch.allclose(colour, lab[2:, 0], atol=1e-3)


@pytest.mark.parametrize("name", PRETEXTS)
def test_samples_are_pictures(name, context):
    pretext = built(name, context).eval()
    with torch.no_grad():
        rows = pretext.samples(batch_of(pretext, context, name))
    if rows is not None:
        assert rows.ndim == 5 and rows.shape[1:3] == (4, 3)
        assert rows.min() >= 0 and rows.max() <= 1
