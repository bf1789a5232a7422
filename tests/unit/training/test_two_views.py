"""Views and their distortions, against torchvision's operations on one view at a time."""

import pytest
import torch
from torchvision.transforms.v2 import functional as operations

from bench.training.parts.two_views import (
    Distortion,
    ViewRecipe,
    blur,
    crop_views,
    distort,
    distorted_views,
    shift_hue,
)

NONE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def one(view, *draw):
    return distort(view[None], torch.tensor([draw]))[0]


@pytest.fixture
def view():
    torch.manual_seed(0)
    return torch.rand(3, 40, 40)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=2e-3)  # torchvision's luma has 4 digits


def test_nothing_drawn_changes_nothing(view):
    close(one(view, *NONE), view)


@pytest.mark.parametrize("change", [-0.4, 0.3])
def test_each_change_of_color_is_torchvisions(view, change):
    close(one(view, change, *NONE[1:]), operations.adjust_brightness(view, 1 + change))
    close(one(view, 0, change, *NONE[2:]), operations.adjust_contrast(view, 1 + change))
    close(one(view, 0, 0, change, *NONE[3:]), operations.adjust_saturation(view, 1 + change))
    close(one(view, 0, 0, 0, change, *NONE[4:]), operations.adjust_hue(view, change))


def test_gray_blur_and_solarization_are_torchvisions(view):
    close(one(view, *NONE[:4], 1, 0, 0), operations.rgb_to_grayscale(view, 3))
    blurred = operations.gaussian_blur(view, [5, 5], [1.3, 1.3])  # 5 of 40 pixels, made odd
    close(one(view, *NONE[:5], 1.3, 0), blurred)
    close(one(view, *NONE[:6], 1), operations.solarize(view, 0.5))


def test_all_together_are_one_after_the_other_and_each_view_is_on_its_own(view):
    views = torch.stack([view, view.flip(1), view.flip(2)])
    draws = torch.tensor(
        [[0.3, -0.2, 0.1, 0.08, 0, 0.7, 1], [-0.5, 0.4, -0.3, -0.1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1]]
    )
    expected = []
    for image, draw in zip(views, draws.tolist(), strict=True):
        image = operations.adjust_brightness(image, 1 + draw[0])
        image = operations.adjust_contrast(image, 1 + draw[1])
        image = operations.adjust_saturation(image, 1 + draw[2])
        image = operations.adjust_hue(image, draw[3])
        if draw[4]:
            image = operations.rgb_to_grayscale(image, 3)
        if draw[5]:
            image = operations.gaussian_blur(image, [5, 5], [draw[5], draw[5]])
        expected.append(torch.where(image >= 0.5, 1 - image, image) if draw[6] else image)
    found = distort(views, draws)
    same = (found - torch.stack(expected)).abs() < 2e-3
    assert same.float().mean() > 0.999  # what rounds to the other side of 0.5 is inverted there


def test_a_hue_goes_around_the_circle_and_a_small_view_is_not_blurred(view):
    turned = shift_hue(view[None], torch.ones(1, 1, 1))
    torch.testing.assert_close(turned[0], view, rtol=0, atol=1e-5)
    tiny = view[None, :, :16, :16]
    assert torch.equal(blur(tiny, torch.ones(1, 1, 1, 1)), tiny)


def test_draws_have_the_shares_and_ranges_that_are_declared():
    torch.manual_seed(0)
    distortion = Distortion((0.4, 0.3, 0.2, 0.1), blurred=0.5, solarized=0.25)
    draws = torch.stack([distortion.draw(1.0) for _ in range(4000)])
    shares = (draws != 0).float().mean(0).tolist()
    assert shares == pytest.approx([0.8] * 4 + [0.2, 0.5, 0.25], abs=0.03)
    for column, most in enumerate(distortion.jitter):
        values = draws[:, column]
        assert most * 0.99 < values.abs().max() <= most
        assert values.mean().item() == pytest.approx(0, abs=0.05 * most)
    halved = torch.stack([distortion.draw(0.5) for _ in range(4000)])
    shares = (halved != 0).float().mean(0).tolist()
    assert shares == pytest.approx([0.8] * 4 + [0.1, 0.25, 0.125], abs=0.03)
    most = torch.tensor(distortion.jitter)
    assert (halved[:, :4].abs().amax(0) / most).tolist() == pytest.approx([0.5] * 4, rel=0.01)
    assert not any(distortion.draw(0.0).any() for _ in range(20))
    deviations = draws[:, 5][draws[:, 5] > 0]
    assert 0.1 <= deviations.min() < 0.12 and 1.98 < deviations.max() <= 2
    assert {*draws[:, 4].tolist()} == {*draws[:, 6].tolist()} == {0, 1}


def test_views_are_in_the_order_of_their_distortions(smoke):
    recipe = ViewRecipe(**smoke.pretraining.model_dump())
    torch.manual_seed(0)
    dark = Distortion((0.0, 0.0, 0.0, 0.0), blurred=0.0, solarized=1.0)
    plain = Distortion((0.0, 0.0, 0.0, 0.0), blurred=0.0)
    white = torch.full((3, 40, 50), 255, dtype=torch.uint8)
    crops, draws = crop_views(white, recipe, [dark, plain, plain])
    assert crops.shape == (3, 3, recipe.crop, recipe.crop) and crops.dtype == torch.uint8
    views = distorted_views((torch.stack([crops] * 2), torch.stack([draws] * 2)))
    assert views.shape == (3, 2, 3, recipe.crop, recipe.crop)
    assert [views[k].mean().item() for k in range(3)] == pytest.approx([0, 1, 1], abs=1e-4)
