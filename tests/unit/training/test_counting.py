"""Counting: views, and the contrastive loss by hand."""

import numpy as np
import pytest
import torch
from bench.methods import counting
from support import batch_of, built


@pytest.mark.parametrize("kernel", counting.KERNELS)
def test_the_views_are_the_small_image_and_its_tiles(kernel):
    crop = torch.randint(0, 256, (3, 12, 12), dtype=torch.uint8)
    small, *tiles = counting.views(crop, kernel)
    assert [tuple(view.shape) for view in (small, *tiles)] == [(3, 6, 6)] * 5
    expected = [crop[:, :6, :6], crop[:, :6, 6:], crop[:, 6:, :6], crop[:, 6:, 6:]]
    assert all(map(torch.equal, tiles, expected))
    if kernel == "area":
        pixels = crop.float().numpy().reshape(3, 6, 2, 6, 2).mean((2, 4))
        assert np.abs(small.numpy() - pixels).max() <= 0.5
    plain = torch.full(
        (3, 13, 13), 77, dtype=torch.uint8
    )  # of an odd side the last row is left out
    assert (counting.views(plain, kernel) == 77).all()


def test_the_loss_by_hand():
    """Three images, two counts: M is 10, and the other image is the one before in the batch."""
    whole = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 4.0]])
    tiles = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 4.0]])
    equal, differ = counting.terms(whole, tiles)
    assert equal.tolist() == [1, 4, 0]
    # Squared distances of (0, 4), (1, 0) and (2, 2) from the tiles: 10, 1 and 8.
    assert differ.tolist() == [0, 9, 2]


def test_the_loss_counts_the_image_against_the_sum_of_its_tiles(context):
    pretext = built("counting", context)
    batch = batch_of(pretext, context, "counting")
    pretext.eval()  # so that a batch norm sees each view alone
    with torch.no_grad():
        maps = [pretext.encoder(view[None].float() / 255)[-1] for view in batch.flatten(0, 1)]
        means = torch.cat(maps).mean((2, 3))
        linear = pretext.head.linear
        counts = (means @ linear.weight.T + linear.bias).clamp(min=0).unflatten(0, (4, 5)).numpy()
        found = float(pretext.loss(batch))
    losses = []
    for image in range(4):
        tiles = counts[image, 1:].sum(0)
        own, other = (((counts[k, 0] - tiles) ** 2).sum() for k in (image, image - 1))
        losses.append(own + max(0.0, 10 - other))
    assert found == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_score_is_the_share_of_images_that_fit_less(context, monkeypatch):
    pretext = built("counting", context)
    whole = torch.tensor([[0.0], [5.0], [9.0]])
    tiles = torch.tensor([[4.0], [9.0], [6.0]])  # those of the others fit the second image better
    monkeypatch.setattr(pretext, "_count", lambda batch: (whole, tiles))
    values, chance = pretext.score(torch.zeros(3, 5))
    assert values.tolist() == [1, 0, 0.5] and chance.tolist() == [0.5] * 3
