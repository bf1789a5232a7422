import sys
from dataclasses import dataclass

import pytest
import torch
from support import SMOKE

from bench import cli, suite
from bench.data import open_data
from bench.method import Context
from bench.progress import Reporter


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smoke():
    return suite.load("mini", SMOKE)


@pytest.fixture(scope="session")
def smoke_data(smoke, cache):
    return open_data(smoke, None, {"corpus", "voc", "masks"}, cache, Reporter())


@pytest.fixture(scope="session")
def devkit(smoke_data):
    """The rendered data root: VOCdevkit/VOC2007 and corpus/. Copy it before changing it."""
    return smoke_data.voc.train.pictures.root.parents[1]


@pytest.fixture
def context(smoke, smoke_data, cache):
    def make(method="rotation", seed=0, at=smoke, where=cache):
        return Context(at, method, seed, torch.device("cpu"), smoke_data, where, Reporter())

    return make


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line on stderr, which must be the whole message."""
        assert "Traceback" not in self.err
        return self.err.strip().splitlines()[-1]


@pytest.fixture
def bench(capfd, monkeypatch, cache):
    """Call the command line in this process, as its entry point does."""
    monkeypatch.setenv("SSL_GAP_CACHE", str(cache))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        return Outcome(status, *capfd.readouterr())

    return call


@pytest.fixture
def bench_run(bench, cache, tmp_path):
    """`bench run` on the shrunken `mini`."""

    def call(methods, *arguments, out=tmp_path / "out", sets=SMOKE, cache=cache):
        overrides = [part for key in sets for part in ("--set", key)]
        places = ["--out", out, "--cache", cache, "--device", "cpu"]
        return bench(
            "run", "--methods", methods, "--tasks", "voc_cls", *places, *overrides, *arguments
        )

    return call
