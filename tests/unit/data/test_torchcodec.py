"""The other decoder of plain JPEGs; nvJPEG is not tested, which needs a GPU."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bench.config import loader
from bench.config.schema import ImageFolder
from bench.data import jpeg
from bench.data.image_files import UndecodableError, read, read_pixels, verify
from bench.errors import UserError
from bench.evaluation import features

CPU = torch.device("cpu")
CHOICE = "datasets.pretraining.decoder='torchcodec'"


@pytest.fixture
def torchcodec():
    return pytest.importorskip("torchcodec", reason="the extra gpu-decode is not installed")


@pytest.fixture
def folder(tmp_path):
    """Images of every kind: plain, turned by EXIF, gray, CMYK twice, progressive, PNG."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((80, 60))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "plain.jpg")
    image.save(tmp_path / "turned.jpg", exif=turned)
    image.convert("L").save(tmp_path / "gray.jpg")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    four = (tmp_path / "cmyk.jpg").read_bytes()
    start = four.index(b"\xff\xee")  # Adobe's segment, without which only four channels tell
    (tmp_path / "four.jpg").write_bytes(four[:start] + four[start + 16 :])
    image.save(tmp_path / "progressive.jpg", progressive=True)
    image.save(tmp_path / "x.png")
    return tmp_path


def opened(folder, decoder):
    names = sorted(path.name for path in folder.iterdir())
    return verify(folder, names, "stop", lambda _: None, decoder=decoder)


def test_every_kind_of_image_is_what_the_default_gives(torchcodec, folder, monkeypatch):
    calls = []
    together = jpeg.decode_together
    monkeypatch.setattr(jpeg, "decode_together", lambda *a: calls.append(len(a[0])) or together(*a))
    for path in sorted(folder.iterdir()):
        pixels = read(path, "torchcodec")
        assert pixels.shape == (3, 60, 80)  # no orientation is applied
        assert (pixels.int() - read(path).int()).abs().max() <= 3, path.name
    assert calls == [1, 1, 1]  # plain, turned and gray


def test_features_are_extracted_from_what_it_decodes(torchcodec, folder):
    (by_default,) = features.loader(opened(folder, "pillow"), 24)
    (batch,) = features.loader(opened(folder, "torchcodec"), 24, CPU)
    assert batch.dtype == torch.uint8 and batch.shape == (7, 3, 24, 24)
    assert (batch.int() - by_default.int()).abs().max() <= 3


def test_a_batch_with_an_image_that_it_refuses_is_decoded_by_the_default(
    torchcodec, folder, monkeypatch
):
    monkeypatch.setattr(jpeg, "decode_together", lambda *_: None)
    (by_default,) = features.loader(opened(folder, "pillow"), 24)
    (batch,) = features.loader(opened(folder, "torchcodec"), 24, CPU)
    assert torch.equal(batch, by_default)


def test_what_it_refuses_goes_to_pillow(torchcodec, folder):
    content = (folder / "plain.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(content[: len(content) // 2])
    assert jpeg.decode_together([content[: len(content) // 2]], CPU) is None
    with pytest.raises(UndecodableError, match="cannot be decoded"):
        read_pixels(folder / "half.jpg", "torchcodec")


def test_it_has_a_fingerprint_of_its_own(torchcodec, folder, monkeypatch):
    default, other = opened(folder, "pillow"), opened(folder, "torchcodec")
    assert default.fingerprint != other.fingerprint
    monkeypatch.setattr(jpeg, "version", lambda _: "0.0")
    assert opened(folder, "torchcodec").fingerprint != other.fingerprint


def test_it_is_a_part_of_the_suite_only_where_it_is_asked_for():
    default = loader.load("smoke")
    asked = loader.load("smoke", [CHOICE])
    assert asked.sha256 != default.sha256
    assert asked.model_dump(mode="json")["datasets"]["pretraining"]["decoder"] == "torchcodec"
    said = loader.load("smoke", ["datasets.pretraining.decoder='pillow'"])
    assert said.sha256 == default.sha256
    assert "decoder" not in default.model_dump(mode="json")["datasets"]["pretraining"]
    section = ImageFolder(kind="image_folder", train="x", decoder="torchcodec")
    assert ImageFolder.model_validate(section.model_dump()) == section


def test_without_it_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-gap\[gpu-decode\]'"):
        opened(folder, "torchcodec")
