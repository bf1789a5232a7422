import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from bench.encoders.encoder import Encoder, load_encoder
from bench.encoders.pretraining import LearningRates, LossCurve, Pretraining, TrainingTrace
from bench.errors import UserError

LITE = "tf_efficientnet_lite0"


@pytest.mark.parametrize("backbone", [LITE, "resnet18"])
def test_it_owns_its_normalization(backbone):
    torch.manual_seed(0)
    encoder = Encoder(backbone).eval()
    config = timm.get_pretrained_cfg(backbone)
    rgb = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (config.mean, config.std))
    with torch.no_grad():
        expected = encoder.branches[0]((rgb - mean) / std)
        for a, b in zip(encoder(rgb), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_save_and_load_keep_everything(tmp_path):
    encoder = Encoder(LITE)
    rates = LearningRates(0.1, 0.0, 0.1, "a" * 64)
    trace = TrainingTrace([3, 1], [[127.5, 60.25]], rates, 12, {"loss": [1.5, 1.25]})
    curve = LossCurve([1, 2], {"loss": [1.5, 1.25]})
    encoder.pretraining = Pretraining(12, 3.5, {"loss": 0.25}, trace, curve)
    encoder.save(tmp_path / "e.safetensors")
    again = load_encoder(tmp_path / "e.safetensors", LITE)
    assert again.weights_sha256() == encoder.weights_sha256()
    assert again.pretraining == encoder.pretraining


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "e.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"e\.safetensors: not an encoder's file; delete it"):
        load_encoder(path, LITE)
    Encoder("resnet18").save(path)
    with pytest.raises(UserError, match=f"has a resnet18, not a {LITE}"):
        load_encoder(path, LITE)
    Encoder(LITE).save(path)
    state = load_file(path)
    state.pop("branches.0.conv_stem.weight")
    metadata = {"backbone": LITE, "inputs": "rgb", "pretraining": "{}"}
    save_file(state, path, metadata=metadata)
    with pytest.raises(UserError, match="its weights do not fit"):
        load_encoder(path, LITE)


def test_unknown_backbones_are_refused():
    with pytest.raises(UserError, match=r"backbone\.name 'resnet5000'"):
        Encoder("resnet5000")
