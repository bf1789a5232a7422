"""Which files are a plug-in's own code: its own, and those that it own_code."""

import shutil
from pathlib import Path

import filelock
import pytest

from bench import own_code, plugins
from bench.errors import UserError
from bench.runtime.fingerprint import code_digest

ROOT = Path(__file__).parents[2]
OUTSIDE = ROOT / "tests" / "outside"
FLIP = '''
class Flip:
    """Tells mirrored images."""

    reference = "ours"
    version = 1
'''


def forget():
    """What this process knows of files; a new one looks again."""
    own_code._located.cache_clear()
    plugins._first_digest.cache_clear()


@pytest.fixture
def write(tmp_path, monkeypatch, own_plugins):
    """Write files below a folder on Python's path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "_metrics", [])
    forget()

    def make(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield make
    forget()


@pytest.fixture
def own_digest(write):
    """The digest of a method that begins with some lines, as a new process has it."""

    def make(lines):
        plugins.add_path("methods", write("flip.py", f"{lines}\n{FLIP}"))
        forget()
        return plugins.own_digest("methods", "flip")

    return make


FOREIGN = """
import json, torch.nn, xml.dom.minidom
from pathlib import Path
from numpy import linalg
from bench.data import voc
import absent
"""


def test_a_plugin_that_imports_no_own_file_is_its_file(own_digest, write):
    digest = own_digest(FOREIGN)
    assert digest == code_digest([plugins.source("methods", "flip").path])
    assert own_code.with_imported(write("foreign.py", FOREIGN)) == [write("foreign.py", FOREIGN)]


IMPORTS = ("import helper", "from helper import rate", "def f():\n    import helper as h")


@pytest.mark.parametrize("line", IMPORTS)
def test_another_helper_is_another_plugin(own_digest, write, line):
    helper = write("helper.py", "rate = 1\n")
    first = own_digest(line)
    assert first != code_digest([plugins.source("methods", "flip").path])
    helper.write_text("# The same rate.\nrate = 1\n")
    assert own_digest(line) == first
    helper.write_text("rate = 2\n")
    assert own_digest(line) != first


def test_another_helper_of_a_helper_is_another_plugin(own_digest, write):
    write("helper.py", "import deeper\n")
    deeper = write("deeper.py", "import helper\nrate = 1\n")
    first = own_digest("import helper")
    deeper.write_text("import helper\nrate = 2\n")
    assert own_digest("import helper") != first


def test_a_helper_counts_as_this_process_imported_it(own_digest, write):
    helper = write("helper.py", "rate = 1\n")
    first = own_digest("import helper")
    helper.write_text("rate = 2\n")
    assert plugins.own_digest("methods", "flip") == first


def test_the_files_of_a_package_are_found_by_relative_imports(write):
    tools = {
        "tools/__init__.py": "from . import losses\n",
        "tools/losses.py": "from .parts.heads import Head\n",
        "tools/parts/__init__.py": "",
        "tools/parts/heads.py": "from ..shared import WIDTH\nfrom ... import beyond\n",
        "tools/shared.py": "WIDTH = 8\n",
    }
    files = [write(name, text) for name, text in tools.items()]
    write("tools/unused.py")
    write("beyond.py")
    path = write("plugin.py", "import tools\n")
    assert own_code.with_imported(path) == sorted([path, *files])


def test_a_module_of_a_package_brings_the_packages_that_it_is_in(write):
    files = [write("tools/__init__.py"), write("tools/a/__init__.py"), write("tools/a/b.py")]
    write("tools/other.py")
    path = write("plugin.py", "from tools.a import b, something\n")
    assert own_code.with_imported(path) == sorted([path, *files])


def test_a_shipped_plugin_that_is_imported_counts(write):
    lines = "from bench.methods.rotation import Rotation\nfrom bench.tasks import knn\n"
    path = write("plugin.py", lines)
    shipped = [plugins.source("methods", "rotation"), plugins.source("tasks", "knn")]
    found = {file.resolve() for file in own_code.with_imported(path)}
    assert {path, *(source.path.resolve() for source in shipped)} <= found
    assert {file.parent.name for file in found - {path}} == {"methods", "tasks"}


def test_an_installed_package_counts_for_its_own_plugins_alone(write):
    path, start = write("plugin.py", "import filelock\n"), Path(filelock.__file__)
    assert own_code.with_imported(path) == [path]
    assert own_code.with_imported(start) == [start]
    own = own_code.with_imported(start, "filelock")
    assert len(own) > 1
    assert all(file.is_relative_to(start.parent) for file in own)


def test_a_helper_that_is_not_python_is_one_line(own_digest, write):
    helper = write("helper.py", "def rate(:\n\n    return 1\n")
    with pytest.raises(UserError, match=r"^.*helper\.py: is not Python \(.*\)$"):
        own_digest("import helper")
    helper.write_bytes(b"rate = '\xff'\n")
    with pytest.raises(UserError, match=r"^.*helper\.py: is not Python \('utf-8' codec.*\)$"):
        own_digest("import helper")


def test_another_metric_beside_a_task_is_another_task(write, tmp_path):
    for name in ("class_mean.py", "class_accuracy.py"):
        shutil.copy(OUTSIDE / name, tmp_path)
    plugins.add_path("tasks", tmp_path / "class_mean.py")

    def digest():
        forget()
        return plugins.own_digest("tasks", "class_mean")

    first = digest()
    write("beside.py", "rate = 1\n")
    assert digest() == first
    metric = tmp_path / "class_accuracy.py"
    metric.write_text(metric.read_text().replace("right / np", "0.5 * right / np"))
    assert digest() != first


def test_modules_beside_a_file_are_found_where_their_folder_is_no_package(write):
    files = [write("space/losses.py"), write("space/parts.py")]
    main = write("space/main.py", "from . import losses\nfrom .parts import y\n")
    assert own_code.with_imported(main) == sorted([main, *files])
