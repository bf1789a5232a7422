"""Content digests: what decides a result, as a short name."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON-compatible value in canonical form.

    Keys are sorted and floats keep their shortest exact form, so equal values give equal digests.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of what some Python files compute: comments, docstrings and layout do not count."""
    # Named by folder and file, so that a checkout and an installed wheel agree.
    return digest({f"{path.parent.name}/{path.name}": _computation(path) for path in paths})


# Modules of bench/ that carry results about and decide none: their changes make no record stale.
PLUMBING = {
    *("audit", "board", "bootstrap", "cell", "check", "cli", "comparable", "compare", "data"),
    *("details", "digest", "drawn", "duplicates", "environment", "errors", "flags"),
    *("leaderboard", "markdown", "method", "page", "plan", "plots", "plugins", "processes"),
    *("progress", "record", "reported", "reproduce", "run", "settings", "showing", "stats"),
    *("suite", "task", "wording"),
}


def deciding_code(path: Path) -> str:
    """Digest of a file's code and of all that it imports of `bench`, in turn, less `PLUMBING`."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            todo += _imported(file)
    return code_digest(found)


def _imported(path: Path) -> list[Path]:
    """The files of `bench` that a file imports, less `PLUMBING`."""
    names: set[str] = set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    modules = {name.split(".")[1] for name in names if name.startswith("bench.")} - PLUMBING
    files = (Path(__file__).with_name(f"{module}.py") for module in sorted(modules))
    return [file for file in files if file.is_file()]


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _computation(path: Path) -> str:
    tree = _parse(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
