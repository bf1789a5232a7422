import os
import sys
import threading
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from hypothesis import settings
from loopback import Server
from made_up import save
from support import SHORT

from bench import cli, plugins
from bench.commands import check
from bench.commands.execute import compute, open_for
from bench.commands.request import Cell, Request
from bench.config import loader
from bench.data.datasets import open_datasets
from bench.data.published import download
from bench.metrics import registry
from bench.runtime import workers
from bench.runtime.progress import Reporter
from bench.training.context import Context

settings.register_profile("nightly", max_examples=6_000)  # of the fuzz suite: 60 times its inputs


def pytest_configure(config):
    """Take the profile of the same name with `-m nightly`; share the cores with `-n`.

    Processes that each use every core wait for each other: the contracts took 1.7 times as long.
    """
    if config.option.markexpr == "nightly":
        settings.load_profile("nightly")
    if processes := getattr(config.option, "numprocesses", None):
        share = str(max(1, workers.cores() // processes))
        os.environ.setdefault("OMP_NUM_THREADS", share)
        os.environ.setdefault("SSL_GAP_WORKERS", share)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smoke():
    return loader.load("smoke", SHORT)


@pytest.fixture(scope="session")
def smoke_data(smoke, cache):
    return open_datasets(smoke, set(smoke.datasets), None, cache, Reporter())


@pytest.fixture(scope="session")
def devkit(smoke_data):
    """The rendered data root: VOCdevkit/VOC2007, pretraining/. Copy it before changing it."""
    return smoke_data["voc"].train.images.root.parents[1]


@pytest.fixture
def context(smoke, smoke_data, cache):
    def make(method="rotation", seed=0, at=smoke, where=cache, task=""):
        cpu = torch.device("cpu")
        return Context(at, method, seed, cpu, smoke_data, where, Reporter(), task=task)

    return make


@pytest.fixture
def own_plugins(monkeypatch):
    """Methods, tasks and metrics that a test makes known are forgotten after it."""
    added = {kind: dict(sources) for kind, sources in plugins._added.items()}
    monkeypatch.setattr(plugins, "_added", added)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.0)
    monkeypatch.setattr(download, "TIMEOUT", 2.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


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
    monkeypatch.setenv("SSL_GAP_WORKERS", "1")

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
    """`bench run` on the shrunken `smoke`."""

    def call(methods, *arguments, out=tmp_path / "out", sets=SHORT, cache=cache, suite="smoke"):
        overrides = [part for key in sets for part in ("--set", key)]
        places = ["--suite", suite, "--out", out, "--cache", cache, "--device", "cpu"]
        tasks = [] if "--tasks" in arguments else ["--tasks", "voc_cls"]
        return bench("run", "--methods", methods, *tasks, *places, *overrides, *arguments)

    return call


@pytest.fixture
def folder(tmp_path):
    """Records of three methods, made up."""
    for method, quality in {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}.items():
        save(tmp_path, method, quality)
    return tmp_path


# `mini`, shrunk until the probe of two untrained-here encoders takes two seconds.
SMALL = [
    "name='small'",
    "synthetic.size=64",
    "synthetic.pretraining=10",
    "synthetic.validation=10",
    "synthetic.train=200",
    "synthetic.test=300",
    "datasets.voc.min_positives=5",
    "tasks.voc_cls.size=48",
    "tasks.voc_cls.dimensions=256",
    "tasks.voc_cls.costs=[0.1, 1.0]",
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Records of two methods, the cache with their scenes, and the data sets of their task."""
    folder, cache = tmp_path_factory.mktemp("reference"), tmp_path_factory.mktemp("scenes")
    methods, settings = ("imagenet", "random_init"), loader.load("mini", SMALL)
    asked = Request(settings, methods, ("voc_cls",), (0,), None, folder, cache, "cpu")
    cells = [Cell(method, "voc_cls", 0) for method in methods]
    datasets = open_for(cells, asked, Reporter())
    compute(cells, asked, Reporter(), datasets)
    (folder / check.ORDER).write_text('[small]\nvoc_cls = ["imagenet", "random_init"]\n')
    return folder, cache, datasets


@pytest.fixture
def fake_tracker(monkeypatch):
    """A tracker that keeps what it is told, by the name `fake`."""

    class Fake(GeneralTracker):
        name = "fake"
        requires_logging_directory = True
        runs: ClassVar[dict] = {}
        failure = None

        def __init__(self, run, folder):
            super().__init__()
            self.run, self.folder = run, folder

        @property
        def tracker(self):
            return self

        def start(self):
            self.entries = self.runs[self.run] = [self.folder]

        def log(self, values, step):
            if self.failure:
                raise self.failure
            self.entries.append((step, values))

        def finish(self):
            self.entries.append("finished")

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "fake", Fake)
    return Fake
