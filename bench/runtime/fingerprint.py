"""Content digests: what decides a result, as a short name."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import bench


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


def tree_digest(folder: Path, without: str = "") -> str:
    """SHA-256 (64 hex digits) of the names and contents of all files below a folder.

    Args:
        folder: the folder.
        without: name of a file directly in it that does not count.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest(
        {
            path.relative_to(folder).as_posix(): file_digest(path)
            for path in files
            if path != folder / without
        }
    )


def code_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of what some Python files compute: comments, docstrings and layout do not count."""
    # Named by folder and file, so that a checkout and an installed wheel agree.
    return digest({f"{path.parent.name}/{path.name}": _computation(path) for path in paths})


# The packages that make numbers; the others only read them (tests/contracts/test_layers.py).
COMPUTING = ("config", "data", "encoders", "training", "evaluation", "metrics", "runtime")


@cache
def harness_digest() -> str:
    """Digest of the packages that make numbers, kept in records as provenance."""
    root = Path(bench.__file__).parent
    files = sorted(file for name in COMPUTING for file in (root / name).rglob("*.py"))
    return code_digest(files)


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
