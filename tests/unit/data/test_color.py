import numpy as np
import pytest
import torch
from skimage import color

from bench.data.color import lab_to_rgb, rgb_to_lab
from bench.training.parts import color_bins

# The 313 bins, written down again from their source: a -> every b from the first to the second.
RANGES = """
-90 50 90, -80 20 90, -70 0 90, -60 -20 90, -50 -30 100, -40 -40 100, -30 -50 100, -20 -50 100,
-10 -60 100, 0 -70 100, 10 -80 90, 20 -80 90, 30 -90 90, 40 -100 90, 50 -100 80, 60 -110 80,
70 -110 80, 80 -110 70, 90 -110 70, 100 -90 0
"""


def test_lab_agrees_with_scikit_image():
    rgb = np.random.default_rng(0).random((50, 40, 3)).astype(np.float32)
    rgb[:4, :4] = [[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0.02, 0.02, 0.02]]] * 4
    image = torch.from_numpy(rgb).movedim(-1, 0)[None]
    with torch.autocast("cpu", torch.bfloat16):
        lab = rgb_to_lab(image)
    np.testing.assert_allclose(lab[0].movedim(0, -1).numpy(), color.rgb2lab(rgb), atol=0.05)
    np.testing.assert_allclose(lab_to_rgb(lab).numpy(), image.numpy(), atol=2e-3)


def test_the_bins_are_those_of_the_table():
    expected = []
    for line in RANGES.split(","):
        a, low, high = map(int, line.split())
        expected += [[a, b] for b in range(low, high + 10, 10)]
    assert len(expected) == 313
    assert color_bins.ab_centers().tolist() == expected


def test_soft_codes_against_numpy():
    ab = np.random.default_rng(1).uniform(-80, 80, (40, 2)).astype(np.float32)
    bins, shares = color_bins.soft_encode(torch.from_numpy(ab))
    centers = color_bins.ab_centers().numpy()
    for point, ours, weights in zip(ab, bins.numpy(), shares.numpy(), strict=True):
        squared = ((centers - point) ** 2).sum(1)
        nearest = np.argsort(squared)[:5]
        expected = np.exp(-squared[nearest] / 50)
        assert set(ours) == set(nearest)
        np.testing.assert_allclose(weights, expected / expected.sum(), atol=1e-5)


def test_rebalancing_against_numpy():
    prior = np.random.default_rng(2).dirichlet(np.full(313, 0.3)).astype(np.float32)
    prior[:7] = 0
    prior /= prior.sum()
    mixed = 0.5 * prior + 0.5 * (prior > 0) / (prior > 0).sum()
    expected = np.divide(1, mixed, out=np.zeros_like(mixed), where=prior > 0)
    expected /= (expected * prior).sum()
    weights = color_bins.rebalancing(torch.from_numpy(prior)).numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-4)
    assert (weights * prior).sum() == pytest.approx(1, rel=1e-4)


def test_the_loss_of_colors_against_numpy():
    rng = np.random.default_rng(3)
    logits, ab = torch.randn(2, 313, 3, 3), torch.from_numpy(rng.uniform(-60, 60, (2, 2, 3, 3)))
    ab[1] = 4.0  # a gray image, which weighs nothing
    weights = torch.rand(313) + 0.5
    log = logits.log_softmax(1)
    total = norm = 0.0
    for y in range(3):
        for x in range(3):
            bins, shares = color_bins.soft_encode(ab[0, :, y, x].float())
            entropy = -(log[0, bins, y, x] * shares).sum()
            total, norm = total + weights[bins[0]] * entropy, norm + weights[bins[0]]
    assert color_bins.color_loss(logits, ab.float(), weights).item() == pytest.approx(
        (total / norm).item(), rel=1e-5
    )
    assert color_bins.color_loss(logits[1:], ab[1:].float(), weights) == 0


def test_a_certain_prediction_decodes_to_its_color():
    logits = torch.zeros(1, 313, 1, 1)
    logits[0, 200] = 50
    assert torch.allclose(
        color_bins.annealed_mean(logits)[0, :, 0, 0], color_bins.ab_centers()[200]
    )
    lightness = torch.zeros(1, 100, 1, 1)
    lightness[0, 30] = 50
    assert color_bins.mean_lightness(lightness).item() == pytest.approx(30.5)
