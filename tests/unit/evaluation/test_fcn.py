"""What a segmenter is shown: every pixel keeps its label, and what is beside the image has none."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.image_files import verify
from bench.data.voc_masks import MaskSplit
from bench.encoders.encoder import Encoder
from bench.evaluation.fcn import Segmenter


@pytest.fixture
def network(smoke, context, tmp_path):
    """On one image whose red says its label: 0, 1 or 2 in vertical bands."""
    bands = np.repeat([0, 1, 2], 20)[None].repeat(48, 0).astype(np.uint8)
    for folder, values in {"masks": bands, "images": 100 * bands}.items():
        (tmp_path / folder).mkdir()
        Image.fromarray(values).save(tmp_path / folder / "a.png")
    files = [verify(tmp_path, [f"{f}/a.png"], "stop", lambda _: None) for f in ("images", "masks")]
    changes = {"size": 40, "scale": (0.5, 2.0)}
    settings = context(task="voc_seg").settings.model_copy(update=changes)
    split = MaskSplit(("a",), *files, "0" * 64)
    torch.manual_seed(0)
    return Segmenter(Encoder(smoke.backbone.name), settings, split, 11)


def test_masks_stay_on_their_pixels(network):
    image = (100 * torch.arange(3).repeat_interleave(20)).expand(3, 48, 60).to(torch.uint8)
    orders, beside = set(), 0
    for seed in range(20):
        torch.manual_seed(seed)
        crop, mask = network.transform(image, 0)
        assert crop.shape == (3, 40, 40)
        assert mask.shape == (40, 40)
        shown = mask != 255
        beside += int((~shown).sum())
        assert not crop[:, ~shown].any()
        nearest = (crop[0].float() / 100).round().long()
        assert (nearest == mask)[shown].float().mean() > 0.9  # edges are blended
        columns = mask[shown.any(1)][0]
        columns = columns[columns != 255]
        orders.add(bool(columns[0] > columns[-1]))
    assert orders == {True, False}  # mirrored and not
    assert beside > 0


def test_pixels_that_do_not_count_change_no_loss(network):
    network.eval()
    images = torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8)
    masks = torch.randint(0, 11, (2, 40, 40))
    masks[0] = 255
    whole = network.loss((images, masks))
    alone = network.loss((images[1:], masks[1:]))
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)


def test_labels_come_at_the_size_of_the_image(network):
    network.eval()
    labels = network.segment(torch.zeros(3, 37, 53, dtype=torch.uint8))
    assert labels.shape == (37, 53)
    assert labels.dtype == torch.int64


def test_images_of_any_size_are_labeled_as_in_training(network):
    """As if black had been added up to whole strides, which is what `transform` adds."""
    network.eval()
    image = torch.randint(0, 255, (3, 30, 32), dtype=torch.uint8)
    filled = torch.nn.functional.pad(image, (0, 0, 0, 2))
    assert torch.equal(network.segment(image), network.segment(filled)[:30])
