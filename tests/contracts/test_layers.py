"""Imports go one way: a package imports only those after it in one ordered list."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"

# From what a user types down to what knows nothing of the others. Left of `results` numbers are
# read, from `evaluation` on they are made.
ORDER = (
    *("cli", "commands", "reporting", "statistics", "results"),
    *("evaluation", "training", "encoders", "data"),
    *("config", "plugins", "specs", "own_code", "metrics", "execution", "runtime", "errors"),
)
PLUGINS = ("methods", "tasks")
FACE = ("__init__", "__main__")  # of the package itself: loads what is asked for
SOURCES = sorted(p for p in BENCH.rglob("*.py") if p.parent.name not in PLUGINS)

# A second run, and whoever only reads numbers, starts without torch.
LIGHT = (
    *("bench", "bench.cli", "bench.errors", "bench.plugins", "bench.specs"),
    *("bench.commands.run", "bench.commands.plan", "bench.commands.request"),
    *("bench.commands.compare", "bench.commands.check", "bench.commands.audit"),
    *("bench.commands.cells", "bench.commands.work", "bench.commands.status"),
    *("bench.commands.merge", "bench.commands.publish", "bench.commands.submit", "bench.execution"),
    *(f"bench.{package}" for package in ("config", "metrics", "results", "statistics")),
    "bench.reporting",
)
MOST_MODULES = 15
MOST_VERBS = 26


def place(path):
    """The package of a file of bench/, or its own name at the top."""
    parts = path.relative_to(BENCH).with_suffix("").parts
    return parts[0]


def imported(path):
    """The packages of `bench` that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("bench.")} & {*ORDER, *PLUGINS}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(BENCH)))
def test_a_package_imports_only_those_after_it(path):
    if place(path) in FACE:
        return
    assert place(path) in ORDER, f"{place(path)} has no place in the order"
    allowed = ORDER[ORDER.index(place(path)) :]
    assert imported(path) <= {*allowed}, "imports run one way"


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_import_no_verb_and_not_each_other(folder):
    for path in (ROOT / folder).glob("*.py"):
        read_only = {"cli", "commands", "reporting", "statistics", "results"}
        assert not imported(path) & {*PLUGINS, *read_only}, path


@pytest.mark.parametrize("name", LIGHT)
def test_modules_that_start_fast_import_no_torch(name):
    modules = [name]
    folder = BENCH.joinpath(*name.split(".")[1:])
    if name != "bench" and folder.is_dir():
        modules = [f"{name}.{path.stem}" for path in folder.glob("*.py")]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_leaderboard_is_checked_without_drawing():
    code = "import sys, bench.reporting.publish; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_folder_is_seen_at_a_glance():
    for folder in {path.parent for path in SOURCES}:
        modules = [p for p in folder.glob("*.py") if p.stem != "__init__"]
        most = MOST_VERBS if folder.name == "commands" else MOST_MODULES
        assert len(modules) <= most, folder


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {p.parent for p in BENCH.rglob("__init__.py") if p.parent.name not in PLUGINS}
    names = {".".join(p.relative_to(ROOT).parts) for p in folders}
    assert names | {f"bench.{kind}" for kind in PLUGINS} <= {*listed}


def strings(path):
    """The strings in a file's code; those that are statements, as docstrings, do not count."""
    tree = ast.parse(path.read_text())
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str) and id(node) not in texts}


def test_nothing_in_the_harness_names_a_method_or_a_task():
    names = {p.stem for folder in PLUGINS for p in (ROOT / folder).glob("[!_]*.py")}
    allowed = {"random_init", "imagenet"}  # of messages; and of the untrained encoder, by its file
    for path in SOURCES:
        named = strings(path) & (names - allowed)
        assert not named, f"{path} names {named}"
