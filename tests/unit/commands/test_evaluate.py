"""What `bench.evaluate` refuses at once, in one line, and what it leaves as it was."""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from torch import nn

import bench as ssl_gap
from bench import own_code, plugins
from bench.commands import evaluate as module
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import Pretraining
from bench.errors import UserError
from bench.training.method import load_or_pretrain

LITE = "tf_efficientnet_lite0"


@pytest.fixture
def requests(monkeypatch, own_plugins, cache):
    """The requests that `bench.evaluate` would have run."""
    monkeypatch.setenv("SSL_GAP_CACHE", str(cache))
    made = []
    monkeypatch.setattr(module, "run", lambda request, reporter: made.append(request))
    return made


def refused(model, message, **keys):
    keys = {"tasks": "voc_cls", "suite": "smoke", "name": "mine"} | keys
    with pytest.raises(UserError, match=message) as error:
        ssl_gap.evaluate(model, **keys)
    assert "\n" not in str(error.value)


class Small(nn.Module):
    def __init__(self, change=lambda m: m):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 4, 1)
        self.change = change

    def forward(self, rgb):
        return self.change(self.stem(rgb))


NAMES = {
    "../x": "must be a name, without folders and control characters",
    "": "must be a name",
    "a/b": "must be a name",
    "a\nb": r"^name=a\\nb: must be a name",
    "..": "must be a name",
    "imagenet": "is taken by .*imagenet.py; give it another",
    "random_init-L": "names a variant of random_init; give it another",
    "random_init@resnet50": "names a variant of random_init; give it another",
    "x" * 201: r"^name=x{40}\.\.\.: must be at most 200 bytes long",
    "é" * 101: "must be at most 200 bytes long",
    3: "^name=3: must be text, not int",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_row_can_have_is_refused_before_the_model_is_touched(requests, name):
    model = Small(lambda m: pytest.fail("the model is called"))
    refused(model, NAMES[name], name=name)


class Uncopyable(Small):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Packed(Small):
    def get_extra_state(self):
        return 1, 2


class Unfinished(nn.Module):
    def __init__(self):
        pass


MODELS = {
    "number": (5, "^the model is a int; give a network"),
    "function": (lambda rgb: rgb, "^the model is a function; give a network"),
    "weights": (Small().state_dict(), "^the model is a OrderedDict; give a network"),
    "modules": ([Small()], r"^model: must be text or a list of texts, not \[Small"),
    "bytes": (b"rotation", "^model: must be text or a list of texts"),
    "class": (nn.Conv2d, "^Conv2d: has no `datasets`, so it is no method"),
    "meta": (Small().to("meta"), "^mine: the model cannot be copied: NotImplementedError: "),
    "lock": (Uncopyable(), "^mine: the model cannot be copied: TypeError: "),
    "unfinished": (Unfinished(), "^mine: the model cannot be copied: AttributeError: "),
    "half": (Small().half(), "^mine: its encoder fails on 2 images of 128 x 128: RuntimeError: "),
    "double": (Small().double(), "^mine: its encoder fails on 2 images of 128 x 128: "),
}


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_no_usable_model_is_one_line(requests, kind):
    refused(*MODELS[kind])


def test_a_quantized_network_whose_state_is_no_tensor_is_one_line(requests):
    refused(Packed(), r"^mine: 'module\._extra_state' of its state is a tuple, not a tensor")


@pytest.mark.parametrize("seeds", [-1, 1001, 1.5, "2"])
def test_a_number_of_seeds_that_is_none_is_one_line(requests, seeds):
    refused("rotation", "^seeds=.*: must be a whole number of 0 to 1000", seeds=seeds)


@pytest.mark.parametrize("argument", ["tasks", "overrides"])
@pytest.mark.parametrize("value", [None, [3]])
def test_what_is_no_text_is_one_line(requests, argument, value):
    refused("rotation", f"^{argument}: must be text or a list of texts", **{argument: value})


class Changed(Encoder):
    """An encoder of the project whose maps are changed by a function."""

    def __init__(self, change):
        super().__init__(LITE)
        self.change = change

    def forward(self, rgb):
        return self.change(super().forward(rgb))


class Bare(Encoder):
    def __init__(self):
        nn.Module.__init__(self)


def fails(maps):
    raise KeyError("no\nluck")


ENCODERS = {
    "complex": (lambda: Changed(lambda maps: [m.to(torch.complex64) for m in maps]), "complex64"),
    "int8": (lambda: Changed(lambda maps: [m.to(torch.int8) for m in maps]), r"torch\.int8"),
    "none": (lambda: Changed(lambda maps: None), "its encoder returns a NoneType, not a list"),
    "few": (lambda: Changed(lambda maps: maps[:2]), "its encoder returns 2 maps, but declares 5"),
    "failing": (lambda: Changed(fails), "its encoder fails on 2 images of 64 x 64: KeyError: "),
    "bare": (Bare, r"its encoder does not call `super\(\)\.__init__`"),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_that_breaks_a_promise_is_one_line(requests, kind):
    make, message = ENCODERS[kind]
    refused(make(), f"^mine: .*{message}")


def test_a_program_s_switches_are_put_aside_and_its_variables_stay(monkeypatch, requests):
    def run(request, reporter):
        requests.append((torch.get_default_dtype(), os.environ.get("TIMM_FUSED_ATTN")))

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setenv("TIMM_FUSED_ATTN", "0")
    model = Small()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            ssl_gap.evaluate(model, "voc_cls", "smoke", name="mine")
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert os.environ["TIMM_FUSED_ATTN"] == "0"
    assert requests == [(torch.float32, None)]


def test_what_a_plug_in_s_file_switches_decides_nothing(own_plugins, context):
    types = []

    class Method:
        """It trains nothing."""

        version = 1
        datasets = ()

        def pretrain(self, context):
            types.append(torch.get_default_dtype())
            encoder = Encoder(LITE)
            encoder.pretraining = Pretraining()
            return encoder

    plugins.add_object("methods", "method", Method)
    torch.set_default_dtype(torch.float64)
    try:
        load_or_pretrain(context("method"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert types == [torch.float32]


OWN = '''
import functools

WIDTH = 8
RATE = 0.1
NAMES = {"ape", "bee"}
LAYERS = {"stem": (8, {"a", "b"}), "head": [None, 1.5, True]}
DEPTH, POWER, SHIFT, BASE, START = 3, 4, 5, 6, 7


@functools.cache
def shifted(x):
    return x + SHIFT


def scaled(x):
    return offset(x * RATE)


def offset(x):
    return x + 1


class Root:
    def build(self):
        return 1


class Base(Root):
    steps = 2


class Own(Base):
    """A method."""

    width = WIDTH
    names = NAMES

    def __init__(self):
        self.depth = DEPTH

    @property
    def base(self):
        return BASE

    def powers(self, start=START):
        return [x**POWER for x in range(shifted(start))]

    def pretrain(self, context):
        return scaled(self.width), LAYERS
'''


@pytest.fixture
def own_class(tmp_path, monkeypatch):
    """The class `Own` of a file, by its text."""

    def make(text=OWN):
        path = tmp_path / f"{len([*tmp_path.iterdir()])}" / "own_method.py"
        path.parent.mkdir()
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("own_method", path)
        made = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "own_method", made)
        spec.loader.exec_module(made)
        return made.Own

    return make


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        ("WIDTH = 8", "WIDTH = 16"),  # of an attribute, by the same source of the class
        ("return scaled(self.width)", "return scaled(2 * self.width)"),
        ("    steps = 2", "    steps = 3"),  # of a base
        ("        return 1", "        return 2"),  # of a base's base
        ("RATE = 0.1", "RATE = 0.2"),
        ("x * RATE", "x / RATE"),
        ("x + 1", "x + 2"),  # of a function that a function names
        ('"bee"', '"cat"'),
        ('"stem": (8', '"stem": (9'),
        ('{"a", "b"}', '{"a", "c"}'),
        ("[None, 1.5, True]", "[None, True, 1.5]"),
        ("3, 4, 5, 6, 7", "9, 4, 5, 6, 7"),  # of __init__
        ("3, 4, 5, 6, 7", "3, 9, 5, 6, 7"),  # of a function within a function
        ("3, 4, 5, 6, 7", "3, 4, 9, 6, 7"),  # of a function that is kept
        ("3, 4, 5, 6, 7", "3, 4, 5, 9, 7"),  # of a property
        ("3, 4, 5, 6, 7", "3, 4, 5, 6, 9"),  # of a default
    ],
)
def test_what_a_class_names_is_part_of_its_code(own_class, told, instead):
    assert told in OWN
    first = own_code.class_digest(own_class())
    assert own_code.class_digest(own_class(OWN.replace(told, instead))) != first


def test_equal_classes_have_one_digest_whatever_the_order_of_their_sets(own_class):
    first = own_code.class_digest(own_class())
    assert own_code.class_digest(own_class(f"UNNAMED = 3\n{OWN}")) == first
    a, b = next((a, b) for a, b in combinations("abcdefghijklm", 2) if [*{a, b}] != [*{b, a}])
    one, other = (
        own_class(OWN.replace('{"ape", "bee"}', f'{{"{x}", "{y}"}}')) for x, y in (a + b, b + a)
    )
    assert [*one.names] != [*other.names]
    assert own_code.class_digest(one) == own_code.class_digest(other)


def test_classes_of_packages_differ_by_their_names_and_by_what_they_set():
    derived = [plugins.load("methods", f"random_init-{name}") for name in ("L", "ab")]
    digests = {own_code.class_digest(each) for each in (*derived, nn.Linear, nn.Conv2d)}
    assert len(digests) == 4


def test_a_class_without_a_source_is_one_line(requests):
    method = type("Made", (), {"datasets": (), "pretrain": print})
    refused(method, "^Made: its source cannot be read; write it into a file and give its path$")


IN_A_DELETED_FOLDER = """
import os, sys, tempfile
from bench.errors import UserError
folder = tempfile.mkdtemp()
os.chdir(folder)
os.rmdir(folder)
{call}
"""
PYTHON = (
    "try:\n    import bench; bench.evaluate\nexcept UserError as error:\n    sys.exit(str(error))"
)
COMMAND = "sys.argv = ['bench', 'list', 'methods']\nfrom bench.__main__ import main\nmain()"


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
@pytest.mark.parametrize(("call", "start"), [(PYTHON, ""), (COMMAND, "bench: ")])
def test_a_deleted_folder_is_one_line(call, start):
    root = Path(ssl_gap.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_DELETED_FOLDER.format(call=call)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    line = f"{start}the current folder was deleted; change to another one (cd)\n"
    assert (done.stderr, bool(done.returncode)) == (line, True)


def test_the_example_of_the_docs_runs(monkeypatch, tmp_path, cache, own_plugins, capsys):
    """As docs/running.md has it, but for untrained weights, suite `smoke` and the folders."""
    root = Path(__file__).parents[3]
    page = (root / "docs/running.md").read_text()
    (code,) = (t.content for t in MarkdownIt().parse(page) if t.info == "python")
    for told, here in {
        "pretrained=True": "pretrained=False",
        '"mini"': '"smoke"',
        '"results/resnet18"': '"out"',
        '"results/reference"': f'"{root}/results/reference"',
    }.items():
        assert told in code
        code = code.replace(told, here)
    monkeypatch.setenv("SSL_GAP_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "% voc_cls-resnet18: mAP" in capsys.readouterr().out


def test_threads_are_evaluated_one_after_another(monkeypatch, tmp_path):
    """They share the random generators, so that two at once would change each other's numbers."""
    at_work = []
    most = []

    def run(request, reporter):
        at_work.append(request)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.pop()

    monkeypatch.setattr(module, "run", run)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(module.evaluate, "random_init", "voc_cls", "smoke", cache=tmp_path)
            for _ in range(4)
        ]
        for job in jobs:
            job.result()
    assert most == [1, 1, 1, 1]
