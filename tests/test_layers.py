"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [p for folder in ("bench", "methods", "tasks") for p in (ROOT / folder).glob("*.py")]

# The end of the flow: who alone may use these.
USERS = {
    "cli": {"__main__"},
    "run": {"cli"},
    "cell": {"run", "check", "reproduce"},
    "plan": {"cli", "run", "cell", "check", "reproduce"},
    "board": {
        *("cli", "run", "leaderboard", "markdown", "plots", "page", "details", "wording"),
        *("compare", "check"),
    },
    "markdown": {"leaderboard"},
    "details": {"leaderboard", "markdown", "plots", "page"},
    "leaderboard": {"cli", "run"},
    "page": {"leaderboard"},
    "plots": {"leaderboard", "reported"},
    "compare": {"cli", "check"},
    "check": {"cli", "reproduce"},
    "reproduce": {"cli"},
    "reported": {"cli"},
    "audit": {"cli", "board"},
    "duplicates": {"audit"},
}


LIGHT = (
    *("record", "metrics", "stats", "board", "details", "page", "plots", "run", "cli"),
    *("compare", "check"),
)


def imports(path):
    """The bench modules that a file imports, at any depth, by their short names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name.split(".")[1] for name in found if name and name.startswith("bench.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_data_flows_one_way(path):
    names = imports(path)
    assert not names & {"methods", "tasks"}, "plug-ins are loaded by name"
    if path.parent.name != "bench":
        assert not names & {"run", "cell", "cli", "plan", "board"}
    for module, users in USERS.items():
        assert module not in names or path.stem in users, f"{module} is for {users}"


@pytest.mark.parametrize("module", LIGHT)
def test_modules_that_start_fast_import_no_torch(module):
    code = f"import sys, bench.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_board_is_checked_without_drawing():
    code = "import sys, bench.leaderboard; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_files_stay_readable():
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 350}
    assert not long
