import pytest
import torch

from bench.encoders.encoder import Encoder
from bench.encoders.surgery import dilate_last_stage, split_last_stage

BACKBONES = ["tf_efficientnet_lite0", "resnet18"]
INPUTS = [("rgb",), ("above_diagonal", "below_diagonal")]
PAIRS = [(backbone, inputs) for backbone in BACKBONES for inputs in INPUTS]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def encoder(request):
    torch.manual_seed(0)
    return Encoder(*request.param).eval()


def test_trunk_and_last_stage_are_the_whole(encoder):
    rgb = torch.rand(2, 3, 64, 96)
    trunk, last_stage = split_last_stage(encoder)
    with torch.no_grad():
        whole, maps = encoder(rgb), trunk(rgb)
        assert torch.equal(last_stage(maps[-1]), whole[-1])
    for stage, expected in zip(maps, whole[:-1], strict=True):
        assert torch.equal(stage, expected)
    assert trunk.channels == encoder.channels[:-1]
    assert trunk.strides == encoder.strides[:-1]
    assert last_stage.channels == encoder.channels[-1]


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
