r"""Files that other packages' training wrote: the same features, and a row of `bench run`.

The packages pin versions of torch and of one another, so they are installed without dependencies,
beside a torch that is there already (its `site-packages` in a .pth file of the new environment):

    python -m venv peers
    peers/bin/pip install --no-deps lightly==1.6.0 lightly-train==0.18.0 stable-pretraining==0.1.8
    peers/bin/pip install --no-deps lightning==2.6.6 pytorch-lightning==2.6.6 torchmetrics==1.9.0 \
        lightning-utilities omegaconf==2.4.0 antlr4-python3-runtime==4.9.3 hydra-core==1.3.8
    peers/bin/pip install --no-deps transformers==5.24.0 tokenizers regex albumentations==2.0.8 \
        albucore==0.0.24 simsimd stringzilla opencv-python-headless eval-type-backport \
        nvidia-ml-py pytz pyarrow tensorboard tensorboard-data-server absl-py grpcio protobuf \
        markdown werkzeug loguru richuru tabulate prettytable wcwidth submitit zstandard \
        opt-einsum requests requests-cache urllib3 charset-normalizer certifi cattrs attrs \
        url-normalize datasets dill multiprocess xxhash aiohttp aiosignal frozenlist multidict \
        yarl propcache aiohappyeyeballs
    mkdir sources; cd sources
    git clone --depth 1 https://github.com/huggingface/pytorch-image-models
    git clone --depth 1 https://github.com/pytorch/vision
    cd ..
    PEER_SOURCES=sources peers/bin/python -m pytest -m nightly tests/nightly/test_peer_files.py

What is not installed, or not in PEER_SOURCES, is skipped. One file takes a minute or two.
"""

import os
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import peer_training
import pytest
import torch
from PIL import Image

from bench.encoders.checkpoint.load import load
from bench.errors import UserError

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
PER_CLASS = 8
SIDE = 80  # pixels
PATIENCE = 600  # seconds of one training
ROUNDING = 1e-5  # of other networks with the same weights; features are about 1


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder for each class of random, smooth images."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(peer_training.CLASSES):
        folder = root / f"class{number}"
        folder.mkdir()
        for index in range(PER_CLASS):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / f"{index}.png")
    return root


def trained(name, images, folder):
    """The file that a peer saved, or a skip."""
    peer = peer_training.CASES[name]
    if find_spec(peer.package) is None:
        pytest.skip(f"{peer.package} is not installed")
    sources = Path(os.environ.get("PEER_SOURCES", "."))
    for source in peer.sources:
        if not (sources / source).is_file():
            pytest.skip(f"{source} is not in PEER_SOURCES")
    program = str(ROOT / "tests" / "peer_training.py")
    done = subprocess.run(
        [sys.executable, program, name, str(images), str(folder)],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PEER_SOURCES": str(sources.resolve())},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted(folder.glob(peer.file))
    assert files, f"{name} wrote no {peer.file}"
    return files[-1]


def same_features(path, peer):
    """Compare a loaded encoder with what the peer's own computed, and check the layout."""
    arch = peer.spec.removeprefix("arch=")
    loaded = load(path, arch, **peer.arguments)
    assert fnmatchcase(loaded.layout.name, peer.layout)
    own = torch.load(path.parents[len(Path(peer.file).parts) - 1] / "features.pt")
    with torch.inference_mode():
        features = loaded.module(own["images"])
    if peer.exact:
        assert torch.equal(features, own["features"])
    else:
        assert torch.allclose(features, own["features"], atol=ROUNDING)


@pytest.mark.parametrize("name", peer_training.CASES)
def test_a_file_is_a_row(name, images, tmp_path):
    peer = peer_training.CASES[name]
    path = trained(name, images, tmp_path)
    if peer.refusal:
        with pytest.raises(UserError, match=peer.refusal):
            load(path, peer.spec.removeprefix("arch="))
        return
    same_features(path, peer)
    what = ["--methods", f"{name}=file:{path}?{peer.spec}", "--tasks", "voc_cls"]
    where = ["--suite", "smoke", "--out", str(tmp_path / "rows"), "--cache", str(tmp_path / "c")]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", *what, *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert name in done.stdout
