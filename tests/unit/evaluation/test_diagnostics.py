"""Signs of health of features: the nearest images of each."""

import pytest
import torch

from bench.evaluation.diagnostics import neighbors


def at(*degrees):
    """Points on a circle, whose mean is not the center of all."""
    return torch.tensor(degrees).deg2rad()[:, None].add(torch.tensor([0.0, torch.pi / 2])).cos()


def test_neighbors_are_the_other_images_nearest_first():
    values = at(0.0, 10.0, 180.0, 195.0)
    assert neighbors(values, 3)[:, 0].tolist() == [1, 0, 3, 2]
    assert [sorted([k, *row]) for k, row in enumerate(neighbors(values, 3).tolist())] == [
        [0, 1, 2, 3]
    ] * 4


@pytest.mark.parametrize("images", [1, 2, 3])
def test_of_few_images_all_others_are_neighbors(images):
    values = at(*(20.0 * k for k in range(images)))
    found = neighbors(values, 5)
    assert found.shape == (images, images - 1)
    for image, others in enumerate(found.tolist()):
        assert sorted(others) == [k for k in range(images) if k != image]
