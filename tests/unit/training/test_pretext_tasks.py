"""What each pretext task asks, of whom, and what its encoder is shown."""

import importlib

import pytest
import torch
from support import Says, batch_of, built, encoder_input
from torch.nn import functional as F

from bench import plugins
from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.data.transforms import patches, to_unit_range
from bench.encoders.encoder import side_mask
from bench.training.method import load_or_pretrain
from bench.training.parts import color_bins


def module(name):
    return importlib.import_module(f"bench.methods.{name}")


def test_rotation_turns_every_image_by_every_right_angle(context):
    pretext = built("rotation", context)
    seen = []
    pretext.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    crops = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    pretext.loss(crops)
    turned = (seen[0] * 255).round().byte()
    assert torch.equal(turned[:2], crops)
    # A quarter turn, pixel by pixel: what stood at (row, column) goes to (7 - column, row).
    for row, column in ((0, 0), (2, 5)):
        assert torch.equal(turned[2, :, 7 - column, row], crops[0, :, row, column])
        assert torch.equal(turned[4, :, 7 - row, 7 - column], crops[0, :, row, column])
        assert torch.equal(turned[6, :, column, 7 - row], crops[0, :, row, column])


INPUT_L = ["colorization", "pix2pix", "cyclegan"]
ABOVE, BELOW = "above_diagonal", "below_diagonal"


def encoder_of(name, inputs, context):
    """The encoder of a method, or an untrained one with the same inputs."""
    if name:
        return load_or_pretrain(context(name))
    random_init = plugins.load("methods", "random_init")
    untrained = type("Untrained", (random_init,), {"inputs": inputs})
    return untrained().pretrain(context("random_init")).eval()


def lab_images(lightness, ab):
    return lab_to_rgb(torch.cat([lightness, ab], dim=1))


def change(one, other):
    """The largest difference of two maps, as a share of the largest value."""
    return ((one - other).abs().max() / one.abs().max()).item()


@pytest.mark.parametrize("name", [*INPUT_L, None])
def test_an_encoder_of_lightness_ignores_color(name, context):
    encoder = encoder_of(name, ("L",), context)
    assert encoder.inputs == ("L",)
    lightness = 30 + 40 * torch.rand(2, 1, 48, 48)
    ab = torch.rand(2, 2, 48, 48) * 20
    plain = encoder(lab_images(lightness, torch.zeros_like(ab)))
    colored = encoder(lab_images(lightness, ab))
    darker = encoder(lab_images(lightness - 20 * (torch.arange(48) < 24), ab))
    for one, other, third in zip(plain, colored, darker, strict=True):
        assert change(one, other) < 0.01 < change(one, third)


@pytest.mark.parametrize("name", ["split_brain", None])
def test_the_halves_of_the_split_brain_ignore_each_others_channels(name, context):
    encoder = encoder_of(name, ("L", "ab"), context)
    lightness = 30 + 40 * torch.rand(2, 1, 48, 48)
    ab = torch.rand(2, 2, 48, 48) * 20 - 10
    base, recolored, relit = (
        encoder.forward_branches(lab_images(*parts))
        for parts in ((lightness, ab), (lightness, -ab), (lightness.flip(-1), ab))
    )
    lightness_half, color_half = 0, 1
    for stage in range(len(base[0])):
        moved = [
            [change(base[half][stage], new[half][stage]) for new in (recolored, relit)]
            for half in (lightness_half, color_half)
        ]
        assert moved[lightness_half][0] < 0.01 < moved[lightness_half][1]
        assert moved[color_half][1] < 0.01 < moved[color_half][0]


@pytest.mark.parametrize("name", ["split_brain_halves", None])
def test_the_spatial_halves_see_only_their_side(name, context):
    encoder = encoder_of(name, (ABOVE, BELOW), context)
    rgb, noise = torch.rand(2, 3, 40, 48), torch.rand(2, 3, 40, 48)
    for part, (own, other) in enumerate(((ABOVE, BELOW), (BELOW, ABOVE))):
        changed = [torch.where(side_mask(side, rgb) > 0, noise, rgb) for side in (own, other)]
        base, seen, unseen = (encoder.forward_branches(x)[part] for x in (rgb, *changed))
        assert all(torch.equal(a, b) for a, b in zip(base, unseen, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(base, seen, strict=True))


def test_the_halves_answer_for_what_lies_near_the_cut():
    near_the_cut = module("split_brain_halves").near_the_cut
    rows, columns, weight = near_the_cut(ABOVE, torch.zeros(1, 3, 40, 40))
    distance = 2 * (columns - rows)
    assert distance.min() == 2, "nothing on the diagonal, nor on its own side of it"
    assert distance.max() == 12
    assert len(rows) == sum(20 - d // 2 for d in range(2, 13, 2)), "every second pixel"
    assert torch.allclose(weight[:, 0], torch.exp(-distance / 4))
    below = near_the_cut(BELOW, torch.zeros(1, 3, 40, 40))
    places = [
        set(zip(r.tolist(), c.tolist(), strict=True)) for r, c in ((rows, columns), below[:2])
    ]
    assert places[1] == {(column, row) for row, column in places[0]}


def test_the_autoencoder_masks_lightness_and_color_of_whole_cells():
    mask = module("autoencoder").mask
    torch.manual_seed(0)
    clean = torch.rand(50, 3, 20, 28) * 0.2 + 0.4  # so gray that every mixture is in gamut
    noisy, truth = rgb_to_lab(mask(clean)), rgb_to_lab(clean)
    light = (noisy[:, 0] - 50).abs() < 0.01
    color = (noisy[:, 1:].abs() < 0.01).all(1)
    assert torch.allclose(noisy[:, 0][~light], truth[:, 0][~light], atol=0.01)
    kept = ~color[:, None].expand(-1, 2, -1, -1)
    assert torch.allclose(noisy[:, 1:][kept], truth[:, 1:][kept], atol=0.01)
    corners = light[:, ::8, ::8], color[:, ::8, ::8]
    for masked, corner in zip((light, color), corners, strict=True):
        whole = corner.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :20, :28]
        assert (masked == whole).float().mean() > 0.999  # but for a pixel that was mid-gray before
        assert corner.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (corners[0] & corners[1]).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_the_context_encoder_never_sees_its_hole(context):
    pretext = built("context_encoder", context)
    batch, corners = batch_of(pretext, context, "context_encoder")
    noise = torch.randint(0, 256, batch.shape, dtype=torch.uint8)
    inner = slice(pretext.border, pretext.hole - pretext.border)
    changed = batch.clone()
    for image, fresh, (top, left) in zip(changed, noise, corners.tolist(), strict=True):
        rows = slice(top + inner.start, top + inner.stop)
        columns = slice(left + inner.start, left + inner.stop)
        image[:, rows, columns] = fresh[:, rows, columns]
    one, other = (encoder_input(pretext, (x, corners)) for x in (batch, changed))
    assert not torch.equal(batch, changed) and torch.equal(one, other)


def test_patches_keep_their_distance_and_jitter():
    ruler = torch.arange(90.0).expand(3, 90, 90)  # a pixel's value is its column
    left = torch.stack([patches(ruler, 20, 2)[:, 0, 0, 0] for _ in range(300)])
    assert left.min(0).values.tolist() == [3, 33, 63] * 3  # cells of 30, 5 +- 2 from their edge
    assert left.max(0).values.tolist() == [7, 37, 67] * 3
    rows = torch.stack([patches(ruler.mT, 20, 2)[:, 0, 0, 0] for _ in range(300)])
    assert rows.min(0).values.tolist() == [3] * 3 + [33] * 3 + [63] * 3


def test_context_prediction_asks_where_every_neighbor_lies():
    task = module("context_prediction")
    assert task.PAIRS.shape == (40, 2)
    pairs = map(tuple, task.PAIRS.tolist())
    places = dict(zip(pairs, task.DIRECTIONS.tolist(), strict=True))
    # From the middle patch, 4, row by row around it.
    assert [places[4, k] for k in (0, 1, 2, 3, 5, 6, 7, 8)] == list(range(8))
    assert places[0, 1] == places[4, 5] and places[1, 0] == places[5, 4]
    assert (0, 2) not in places and (0, 0) not in places


def test_context_prediction_drops_color_and_detail():
    disguise = module("context_prediction").degrade
    torch.manual_seed(0)
    shown = torch.rand(600, 3, 16, 16)
    made = disguise(shown)
    grayed = (made.std(1).amax((1, 2)) < 1e-6).float().mean().item()
    assert grayed == pytest.approx(0.66, abs=0.06)
    contrast = made.mean(1).diff(dim=-1).abs().mean((1, 2))
    assert (contrast < 0.6 * contrast.median()).float().mean().item() == pytest.approx(
        0.33, abs=0.1
    )


def test_jigsaw_tiles_are_normalized_each_by_itself(context):
    pretext = built("jigsaw", context)
    normalize = module("jigsaw").normalize
    tiles = torch.rand(9, 3, 16, 16) * 0.5
    changed = tiles * torch.rand(9, 3, 1, 1).add(0.5) + torch.rand(9, 3, 1, 1) * 0.2
    assert torch.allclose(normalize(tiles), normalize(changed), atol=1e-4)
    made = normalize(tiles)
    assert torch.allclose(made.mean((2, 3)), torch.tensor(0.5), atol=1e-5)
    batch = torch.randint(0, 256, (2, 9, 3, 15, 15), dtype=torch.uint8)
    shown = encoder_input(pretext, batch)
    assert torch.allclose(shown.mean((2, 3)), torch.tensor(0.5), atol=1e-4)


def test_jigsaw_orders_are_far_apart():
    orders = module("jigsaw").orders(701)
    assert orders.shape == (701, 9)
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(701, 9))
    distance = (orders[:, None] != orders[None]).sum(-1)
    assert distance[~torch.eye(701, dtype=bool)].min() >= 5


def test_a_solved_puzzle_is_the_image(context):
    pretext = built("jigsaw", context).eval()
    batch = batch_of(pretext, context, "jigsaw")
    pretext._solve = lambda tiles, order: F.one_hot(order, 701)  # a perfect solver
    puzzle, solved, truth = pretext.visualize(batch)
    assert torch.equal(solved, truth) and not torch.equal(puzzle, truth)


def test_rotation_numbers_the_turns_as_it_shows_them(context):
    pretext = built("rotation", context)
    pretext.head = Says(lambda features: 50.0 * F.one_hot(torch.arange(4).repeat_interleave(3), 4))
    assert pretext.loss(batch_of(pretext, context, "rotation", 3)) < 1e-6
    assert pretext.logged["accuracy"] == 1


def test_colorization_is_told_the_colors_of_its_own_image(context):
    pretext = built("colorization", context)
    batch = batch_of(pretext, context, "colorization")
    ab = rgb_to_lab(to_unit_range(batch))[:, 1:, ::4, ::4]
    logits = torch.randn(4, 313, *ab.shape[2:])
    pretext.head = Says(lambda maps, size: logits)
    expected = color_bins.color_loss(logits, ab, pretext.weights)
    assert torch.allclose(pretext.loss(batch), expected)
    assert not torch.allclose(color_bins.color_loss(logits, ab.flip(0), pretext.weights), expected)


def test_each_half_of_the_split_brain_predicts_from_the_others_channels(context):
    pretext = built("split_brain", context).eval()
    lightness = 30 + 40 * torch.rand(2, 1, 48, 48)
    ab = torch.rand(2, 2, 48, 48) * 20 - 10
    with torch.no_grad():
        base, recolored, relit = (
            pretext._predict(lab_images(*parts))
            for parts in ((lightness, ab), (lightness, -ab), (lightness.flip(-1), ab))
        )
    color, light = 0, 1
    assert change(base[color], recolored[color]) < 0.01 < change(base[color], relit[color])
    assert change(base[light], relit[light]) < 0.01 < change(base[light], recolored[light])


def test_each_spatial_half_predicts_the_side_that_it_does_not_see(context):
    pretext = built("split_brain_halves", context).eval()
    rgb, noise = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for k, (side, features, _) in enumerate(pretext._decode(rgb)):
            same = pretext._decode(torch.where(side_mask(side, rgb) > 0, noise, rgb))[k][1]
            assert torch.equal(features, same), "what is predicted is not seen"
            other = pretext._decode(torch.where(side_mask(side, rgb) > 0, rgb, noise))[k][1]
            assert not torch.equal(features, other)
    assert sorted(side for side, _, _ in pretext._decode(rgb)) == [ABOVE, BELOW]


def test_the_autoencoder_is_shown_the_masked_image_and_asked_for_the_clean_one(context):
    pretext = built("autoencoder", context)
    batch = batch_of(pretext, context, "autoencoder")
    shown = encoder_input(pretext, batch)
    assert (shown - to_unit_range(batch)).abs().mean() > 0.02
    pretext._reconstruct = lambda noisy: to_unit_range(batch)
    assert pretext.loss(batch) == 0


def test_context_prediction_leaves_gaps_and_shows_disguised_patches(context, monkeypatch):
    pretext = built("context_prediction", context)
    ruler = torch.arange(48, dtype=torch.uint8).expand(3, 48, 48)
    with monkeypatch.context() as patch:
        patch.setattr(module("context_prediction"), "random_crop", lambda image, _: image)
        cut = torch.stack([pretext.transform(ruler, 0) for _ in range(50)])  # columns as values
    assert cut.shape[-1] == 10  # two thirds of a cell of 16
    left, right = cut[:, 0, 0, 0, -1], cut[:, 1, 0, 0, 0]
    assert (right.int() - left.int() - 1).min() >= 4  # six pixels, each patch moved by one
    batch = torch.randint(0, 256, (20, 9, 3, 10, 10), dtype=torch.uint8)
    shown = encoder_input(pretext, batch)
    assert (shown.std(1).amax((1, 2)) < 1e-6).float().mean().item() == pytest.approx(0.66, abs=0.12)


def test_jigsaw_tiles_leave_gaps(context):
    pretext = built("jigsaw", context)
    cell = pretext.recipe.crop // 3
    assert pretext.side == int(cell * 64 / 85) < cell
    assert batch_of(pretext, context, "jigsaw").shape[-1] == pretext.side


def test_jigsaw_asks_for_the_order_that_it_shows(context):
    pretext = built("jigsaw", context).eval()
    batch = batch_of(pretext, context, "jigsaw", 1)
    every, given = module("jigsaw").orders(701), []
    pretext.head = Says(lambda tiles: given.append(tiles) or torch.zeros(len(tiles), 701))
    pretext._solve(batch, torch.tensor([0, 5, 600]))
    plain, *shuffled = given[0].unflatten(1, (9, 64))
    assert torch.equal(every[0], torch.arange(9))
    for tiles, order in zip(shuffled, (5, 600), strict=True):
        assert torch.equal(tiles, plain[every[order]])
    asked = []
    pretext._solve = lambda tiles, order: asked.append(order) or 50.0 * F.one_hot(order, 701)
    assert pretext.loss(batch) < 1e-6
    assert len(asked[0].unique()) > 1
