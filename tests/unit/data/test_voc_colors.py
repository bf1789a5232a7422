"""The colors of class indices, beside those that the devkit's documentation prints."""

import pytest

from bench.data.voc_colors import voc_colors


@pytest.mark.parametrize(
    ("index", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (3, (128, 128, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_the_colors_are_those_of_voc(index, color):
    assert voc_colors(256)[index] == color
    assert voc_colors(index + 1) == voc_colors(256)[: index + 1]
