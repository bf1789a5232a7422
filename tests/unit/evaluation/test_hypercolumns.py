"""Single pixels and whole images get the same logits, at their place."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench.encoders.encoder import Encoder
from bench.evaluation.hypercolumns import (
    coarse_logits,
    labels_of,
    maps_of,
    values_at,
    whole_strides,
)
from bench.evaluation.probes.ridge_softmax import LinearLayer

SHAPE = (37, 53)  # of the image, which was resized to 64 x 64


@pytest.fixture(scope="module")
def maps():
    torch.manual_seed(0)
    return [torch.randn(2, channels, 64 // s, 64 // s) for channels, s in ((3, 2), (5, 8), (4, 32))]


def enlarged(maps, position):
    """Every map at the size of the image, (D, H, W)."""
    own = [m[position : position + 1] for m in maps]
    return torch.cat(
        [F.interpolate(m, SHAPE, mode="bilinear", align_corners=False)[0] for m in own]
    )


def test_pixels_have_the_values_of_enlarged_maps(maps):
    places = np.arange(SHAPE[0] * SHAPE[1])[::-1].copy()
    values = values_at([m[1:] for m in maps], places, SHAPE)
    torch.testing.assert_close(values, enlarged(maps, 1).flatten(1).T.flip(0), atol=1e-4, rtol=0)


def test_an_image_has_the_labels_of_its_pixels(maps):
    layer = LinearLayer(torch.randn(6, 12), torch.randn(6))
    logits = layer(enlarged(maps, 1).flatten(1).T).reshape(*SHAPE, 6)
    labels = labels_of(coarse_logits(maps, layer), 1, SHAPE)
    best = logits.topk(2).values
    clear = best[..., 0] - best[..., 1] > 1e-4
    assert clear.float().mean() > 0.99
    assert torch.equal(labels[clear], logits.argmax(-1)[clear])


def test_sizes_are_whole_strides_of_the_coarsest_map(smoke):
    encoder = Encoder(smoke.backbone.name).eval()
    assert [whole_strides(size, encoder) for size in (1, 32, 33, 96)] == [32, 32, 64, 96]
    maps = maps_of(encoder, torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 64 // s, 64 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
