import pytest
import torch

from bench.encoders.encoder import Encoder
from bench.encoders.surgery import dilate_last_stage, split_last_stage

BACKBONES = ["tf_efficientnet_lite0", "resnet18"]
INPUT_CHANNELS = [("rgb",), ("above", "below")]


@pytest.fixture(params=[(b, s) for b in BACKBONES for s in INPUT_CHANNELS], ids=lambda p: f"{p[0]}-{p[1]}")
def encoder(request):
    torch.manual_seed(0)
    return Encoder(*request.param).eval()


def test_trunk_and_last_stage_are_the_whole(encoder):
    rgb = torch.rand(2, 3, 64, 96)
    trunk, tail = split_last_stage(encoder)
    with torch.no_grad():
        whole, maps = encoder(rgb), trunk(rgb)
        assert torch.equal(tail(maps[-1]), whole[-1])
    for one, other in zip(maps, whole[:-1], strict=True):
        assert torch.equal(one, other)
    assert trunk.channels == encoder.channels[:-1]
    assert trunk.strides == encoder.strides[:-1]
    assert tail.channels == encoder.channels[-1]


def test_taking_apart_leaves_the_encoder_as_it_was(encoder):
    before = encoder.weights_sha256()
    trunk, _ = split_last_stage(encoder)
    for parameter in trunk.parameters():
        parameter.data.zero_()
    assert encoder.weights_sha256() == before


def test_every_second_pixel_of_the_dilated_stage_is_what_the_stage_was(encoder):
    rgb = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        before = encoder(rgb)[-1]
        after = dilate_last_stage(encoder)(rgb)[-1]
    assert encoder.strides[-1] == encoder.strides[-2] == 16
    assert after.shape[2:] == (16, 16)
    # TensorFlow pads a strided convolution at the end alone: its pixels are the odd ones.
    first = 1 if "tf_" in encoder.backbone else 0
    same = after[:, :, first::2, first::2]
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))  # borders are padded otherwise
    assert torch.allclose(same[inner], before[inner], rtol=1e-4, atol=1e-4)
