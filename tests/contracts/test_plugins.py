"""Methods and tasks by name, path, entry point and object, and what each is refused for."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import plugins
from bench.encoders.encoder import Encoder
from bench.encoders.weights import made_by_program
from bench.errors import UserError
from bench.metrics import registry
from bench.runtime.fingerprint import code_digest
from bench.training.pretext import PretextTask

ROOT = Path(__file__).parents[2]
OUTSIDE = ROOT / "tests" / "outside"

FLIP = '''"""Flip: is the image mirrored?"""

from typing import ClassVar

from bench.training.pretext import PretextTask


class Flip(PretextTask):
    """Tells mirrored images."""

    reference: ClassVar[str] = "ours, https://example.org"
    version: ClassVar[int] = 3
    views_per_image: ClassVar[int] = 2
'''


@pytest.fixture
def write(tmp_path, own_plugins):
    """Write a plug-in's file below a folder of the test."""

    def make(name, text=FLIP):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


def test_all_is_every_file():
    shipped = {p.stem for p in (ROOT / "methods").glob("[!_]*.py")}
    assert {"imagenet", "random_init", "rotation", "supervised"} <= shipped
    assert shipped <= {*plugins.select("methods", "all")}
    assert "voc_cls" in plugins.select("tasks", "all")


def test_a_request_keeps_its_order_without_repeats():
    assert plugins.select("methods", "rotation, imagenet,rotation") == ["rotation", "imagenet"]


def test_an_unknown_name_gets_the_near_ones():
    with pytest.raises(UserError, match="unknown method 'rotatoin': did you mean rotation"):
        plugins.select("methods", "rotatoin")
    with pytest.raises(UserError, match="unknown task 'zzz': there are imagenet_linear, knn, voc_"):
        plugins.select("tasks", "zzz")
    with pytest.raises(UserError, match="no methods given"):
        plugins.select("methods", ",")


def test_what_the_source_says_is_what_the_class_says():
    for kind in ("methods", "tasks"):
        for name in plugins.names(kind):
            cls = plugins.load(kind, name)
            described = plugins.describe(kind, name)
            for key, value in described.constants.items():
                assert getattr(cls, key) == value
            own = vars(cls).get("Settings")
            assert described.has_settings == (own is not None)


def test_the_code_digest_sees_code_and_not_comments(tmp_path):
    path = tmp_path / "m.py"

    def digest(text):
        path.write_text(text)
        return code_digest([path])

    plain = digest("def f(x):\n    return x + 1\n")
    assert digest('"""Doc."""\n\n\ndef f(x):\n    "doc"\n    return (x + 1)  # why\n') == plain
    assert digest("def f(x):\n    return x + 2\n") != plain


def test_a_file_is_a_plugin_by_its_path(write):
    path = write("flip.py")
    assert plugins.select("methods", f"{path},rotation") == ["flip", "rotation"]
    assert plugins.select("methods", str(path)) == ["flip"]  # once more
    assert plugins.select("methods", "flip") == ["flip"]
    assert "flip" in plugins.names("methods")
    described = plugins.describe("methods", "flip")
    assert (described.version, described.origin) == (3, "path")
    assert described.summary == "Flip: is the image mirrored?"
    assert (described.inputs, described.trains_on_suite) == (("rgb",), True)
    flip = plugins.load("methods", "flip")
    assert issubclass(flip, PretextTask)
    assert flip is plugins.load("methods", "flip")
    assert pickle.loads(pickle.dumps(flip)) is flip  # for the workers of a loader


def test_a_relative_path_is_one_of_the_working_folder(write, monkeypatch):
    path = write("flip.py")
    monkeypatch.chdir(path.parent)
    assert plugins.select("methods", "flip.py") == ["flip"]
    assert plugins.source("methods", "flip").path == path.resolve()
    assert plugins.select("methods", "./flip.py") == ["flip"]


def test_a_path_that_is_no_python_file_is_refused(write, tmp_path):
    with pytest.raises(UserError, match=r"absent\.py: no such Python file"):
        plugins.select("methods", str(tmp_path / "absent.py"))
    with pytest.raises(UserError, match=r"flip\.txt: no such Python file"):
        plugins.select("methods", str(write("flip.txt")))
    with pytest.raises(UserError, match="rename the file so that its name is a Python identifier"):
        plugins.select("methods", str(write("my-flip.py")))
    with pytest.raises(UserError, match=r"broken\.py: is not Python"):
        write("broken.py", "class Flip(:\n")
        plugins.describe("methods", plugins.add_path("methods", tmp_path / "broken.py"))


def test_a_name_that_exists_twice_is_refused_with_both_places(write, tmp_path):
    shipped = plugins.source("methods", "rotation").path
    own = write("rotation.py")
    message = f"method 'rotation' exists twice: {shipped} and {own}"
    with pytest.raises(UserError, match=f"^{message}$"):
        plugins.select("methods", str(own))
    first, second = write("a/flip.py"), write("b/flip.py")
    plugins.add_path("methods", first)
    with pytest.raises(UserError, match=f"^method 'flip' exists twice: {first} and {second}$"):
        plugins.add_path("methods", second)
    with pytest.raises(UserError, match=f"'flip' exists twice: {first} and the object 'flip'"):
        plugins.add_object("methods", "flip", object)
    assert plugins.source("methods", "flip").path == first


def test_a_shipped_file_by_its_path_is_the_shipped_method(own_plugins):
    assert plugins.select("methods", str(ROOT / "methods" / "rotation.py")) == ["rotation"]
    assert plugins.describe("methods", "rotation").origin == "shipped"
    assert plugins.own_digest("methods", "rotation") == ""


def test_an_object_does_not_take_the_name_of_a_file(own_plugins):
    with pytest.raises(UserError, match=r"'rotation' exists twice: .*rotation\.py and the object"):
        plugins.add_object("methods", "rotation", object)


def test_an_object_takes_the_place_of_an_object(own_plugins):
    class Model:
        """A model of a program."""

        reference = ""
        datasets = ()

    for own in ("a", "b"):
        plugins.add_object("methods", "model", type("Model", (Model,), {}), own)
        assert plugins.own_digest("methods", "model") == own
    assert plugins.describe("methods", "model").origin == "object"
    assert not plugins.describe("methods", "model").trains_on_suite


@pytest.mark.parametrize(
    ("line", "literal"),
    [
        ("    version: ClassVar[int] = 1 + 2\n", "version"),
        ("    version = max(1, 3)\n", "version"),
        ("", "version"),
    ],
)
def test_a_version_is_a_literal(write, line, literal):
    path = write("flip.py", FLIP.replace("    version: ClassVar[int] = 3\n", line))
    name = plugins.add_path("methods", path)
    message = rf"flip\.py: `{literal}` must be a literal in the body of its class, for example"
    with pytest.raises(UserError, match=message):
        plugins.describe("methods", name)


def test_a_metric_is_a_literal_of_a_task(write):
    text = (OUTSIDE / "class_mean.py").read_text()
    path = write(
        "near.py", text.replace('metric: ClassVar[str] = "class_accuracy"', "metric = str(1)")
    )
    with pytest.raises(UserError, match=r"near\.py: `metric` must be a literal"):
        plugins.add_path("tasks", path)


def test_a_plugin_that_lacks_something_or_breaks_is_named(write):
    silent = write("silent.py", '"""S."""\nclass Silent:\n    version = 1\n    datasets = ()\n')
    plugins.add_path("methods", silent)
    with pytest.raises(UserError, match=r"silent\.py: Silent has no `reference`"):
        plugins.load("methods", "silent")
    broken = write("broken.py", FLIP + "\n    layer = nn.Linear\n")
    plugins.add_path("methods", broken)
    with pytest.raises(UserError, match=r"broken\.py: cannot be imported \(NameError: name 'nn'"):
        plugins.load("methods", "broken")
    two = write("two.py", FLIP + "\n\nclass Other:\n    pass\n")
    plugins.add_path("methods", two)
    with pytest.raises(UserError, match=r"two\.py: defines 2 public classes, must be one"):
        plugins.load("methods", "two")
    helper = write("helper.py", FLIP + "\n\nclass _Other:\n    pass\n")
    assert plugins.load("methods", plugins.add_path("methods", helper)).version == 3


def test_a_shipped_plugin_that_breaks_is_named(monkeypatch):
    def broken(name):
        raise NameError("name 'nn' is not defined")

    plugins.names("methods")
    monkeypatch.setattr(plugins.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"jigsaw\.py: cannot be imported \(NameError: name 'nn'"):
        plugins.load("methods", "jigsaw")


def test_the_metric_beside_a_task_is_known_with_it(own_plugins):
    assert registry.find("class_accuracy") is None
    assert plugins.select("tasks", str(OUTSIDE / "class_mean.py")) == ["class_mean"]
    assert registry.get("class_accuracy").label == "class accuracy"


def test_a_task_without_its_metric_is_known_and_the_metric_is_not(tmp_path, own_plugins):
    shutil.copy(OUTSIDE / "class_mean.py", tmp_path / "class_mean.py")
    plugins.add_path("tasks", tmp_path / "class_mean.py")
    with pytest.raises(UserError, match="unknown metric 'class_accuracy'"):
        registry.get("class_accuracy")
    plugins.add_metric(OUTSIDE / "class_accuracy.py")
    assert registry.get("class_accuracy").label == "class accuracy"
    with pytest.raises(UserError, match=r"class_mean\.py: ClassMean has no `name`"):
        plugins.add_metric(tmp_path / "class_mean.py")


def test_own_code_identifies_what_does_not_ship(write):
    path = write("flip.py")
    plugins.add_path("methods", path)
    own, code = plugins.own_digest("methods", "flip"), plugins.code("methods", "flip")
    path.write_text(FLIP.replace("class Flip", "# A comment.\nclass Flip"))
    assert plugins.own_digest("methods", "flip") == own
    path.write_text(FLIP.replace("views_per_image: ClassVar[int] = 2", "views_per_image = 3"))
    assert plugins.own_digest("methods", "flip") != own
    assert plugins.code("methods", "flip") != code
    assert plugins.own_digest("methods", "rotation") == ""
    assert plugins.code("methods", "rotation") != plugins.code("methods", "jigsaw")


RANDOM = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
"""


def test_a_function_that_draws_weights_makes_the_same_ones_in_every_process(write):
    (name,) = plugins.select("methods", f"py:{write('own.py', RANDOM)}:build")
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        made_by_program.cache_clear()  # as in a new process
        weights = made_by_program(plugins.source("methods", name).value).weights_sha256()
        digests.add((weights, plugins.own_digest("methods", name)))
    assert len(digests) == 1


@pytest.mark.parametrize("inputs", [("L",), ("ab",), ("L", "ab"), ("above_diagonal",)])
def test_an_untrained_encoder_of_other_inputs_is_a_method(inputs, smoke, context):
    name = plugins.untrained_name(inputs)
    assert name == "-".join(["random_init", *inputs])
    assert plugins.select("methods", name) == [name]
    described, plugin = plugins.describe("methods", name), plugins.load("methods", name)
    assert described.inputs == plugin.inputs == inputs
    assert described.constants["untrained"]
    base = plugins.load("methods", "random_init")
    assert issubclass(plugin, base)
    assert base.inputs == plugins.describe("methods", "random_init").inputs == ("rgb",)
    encoder = plugin().pretrain(context(name))
    assert isinstance(encoder, Encoder)
    assert tuple(encoder.inputs) == inputs
    assert plugins.source("methods", name) == plugins.source("methods", "random_init")


def test_the_untrained_encoder_of_rgb_is_random_init():
    assert plugins.untrained_name(("rgb",)) == "random_init"


@pytest.mark.parametrize(
    "name", ["random_init-lab", "random_init-", "rotation-L", "random_init-L-x"]
)
def test_only_known_inputs_and_the_untrained_method_derive(name):
    with pytest.raises(UserError, match=f"unknown method '{name}'"):
        plugins.source("methods", name)


def test_a_task_has_no_inputs(own_plugins):
    with pytest.raises(UserError, match="unknown task 'random_init-L'"):
        plugins.source("tasks", "random_init-L")


def run(code, *paths):
    """What a fresh process prints, with folders on its path; it must end well."""
    lines = [f"sys.path.append({str(path)!r})" for path in paths]
    text = "\n".join(["import json, sys", *lines, code])
    command = [sys.executable, "-c", text]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(outcome.stdout)


DESCRIBE = """
from pathlib import Path
from bench import plugins
plugins.select("methods", {method!r})
plugins.select("tasks", {task!r})
texts = []
for kind in ("methods", "tasks"):
    for name in plugins.names(kind):
        described = plugins.describe(kind, name)
        plugins.own_digest(kind, name), plugins.code(kind, name)
        texts.append([name, described.version, described.summary])
texts.append(plugins.describe("methods", "random_init-L").inputs)
print(json.dumps([texts, [m for m in ("torch", "timm", "torchvision") if m in sys.modules]]))
"""


def test_describing_plugins_imports_no_torch():
    method, task = str(OUTSIDE / "two_crops.py"), str(OUTSIDE / "class_mean.py")
    texts, imported = run(DESCRIBE.format(method=method, task=task))
    assert imported == []
    assert ["two_crops", 1, plugins.describe_file(OUTSIDE / "two_crops.py").summary] in texts
    assert all(text[2] for text in texts[:-1])
    assert {*plugins.names("methods"), *plugins.names("tasks")} <= {text[0] for text in texts[:-1]}


ENTRIES = """
from bench import plugins
from bench.errors import UserError
try:
    texts = [plugins.names(kind) for kind in ("methods", "tasks")]
    described = plugins.describe("methods", "flip")
    texts += [described.origin, described.version, "torch" in sys.modules]
    texts += [plugins.load("methods", "flip").__name__, plugins.load("tasks", "near").__name__]
    texts += [len(plugins.own_digest("methods", "flip")), plugins.select("methods", "flip,jigsaw")]
except UserError as error:
    texts = str(error)
print(json.dumps(texts))
"""


@pytest.fixture
def package(tmp_path):
    """Install a package with a method, a task and entry points."""

    def make(entries):
        modules = tmp_path / "more_methods"
        modules.mkdir()
        (modules / "__init__.py").write_text("")
        (modules / "flip_module.py").write_text(FLIP)
        shutil.copy(OUTSIDE / "class_mean.py", modules / "neighbors.py")
        info = tmp_path / "more_methods-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more_methods\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        return tmp_path

    return make


METHODS = "[ssl_gap.methods]\n"
TASKS = "[ssl_gap.tasks]\nnear = more_methods.neighbors:ClassMean\n"


def test_plugins_of_installed_packages_are_known_by_their_entry_points(package):
    path = package(f"{METHODS}flip = more_methods.flip_module:Flip\n{TASKS}")
    methods, tasks, *texts = run(ENTRIES, path)
    assert {"flip", "rotation"} <= {*methods}
    assert {"near", "voc_cls"} <= {*tasks}
    assert texts == ["package", 3, False, "Flip", "ClassMean", 64, ["flip", "jigsaw"]]


def test_an_entry_point_with_the_name_of_a_shipped_method_is_refused_with_both_places(package):
    path = package(f"{METHODS}rotation = more_methods.flip_module:Flip\n")
    message = run(ENTRIES, path)
    assert message.startswith("method 'rotation' exists twice: ")
    assert str(path / "more_methods" / "flip_module.py") in message
    assert str(Path("methods") / "rotation.py") in message


@pytest.mark.parametrize("module", ["absent", "absent.flip", "more_methods.absent"])
def test_an_entry_point_without_its_module_is_named(package, module):
    path = package(f"{METHODS}flip = {module}:Flip\n")
    message = run(ENTRIES, path)
    assert message == f"entry point flip of ssl_gap.methods: no module {module}"
