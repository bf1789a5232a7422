"""Methods and tasks by name: being a file in `methods/` or `tasks/` is the registration."""

from __future__ import annotations

import ast
import contextlib
import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import UserError, unknown
from bench.runtime.fingerprint import code_digest, digest, harness_digest

Kind = Literal["methods", "tasks"]

# What a plug-in's class must say of itself.
ATTRIBUTES: dict[Kind, tuple[str, ...]] = {
    "methods": ("reference", "datasets", "pretrain"),
    "tasks": ("reference", "reads", "metric", "version", "evaluate"),
}


@dataclass(frozen=True)
class Description:
    """What a plug-in's file says of itself, read without importing it (and torch with it).

    Attributes:
        name: of the file.
        summary: first line of its docstring.
        constants: the literals of its class, such as reference and version.
    """

    name: str
    summary: str
    constants: dict[str, Any]


def names(kind: Kind) -> list[str]:
    """The names of all plug-ins of a kind, sorted."""
    try:
        package = importlib.import_module(f"bench.{kind}")
    except ModuleNotFoundError:
        # A wheel is installed, but the working directory's own bench/ hides it.
        raise UserError(
            f"bench.{kind} is not installed: run `pip install -e .` in the repository"
        ) from None
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def select(kind: Kind, request: str) -> list[str]:
    """The names in a comma-separated request; `all` is every one. Unknown names are refused."""
    known = names(kind)
    if request == "all":
        return known
    chosen = list(dict.fromkeys(part.strip() for part in request.split(",") if part.strip()))
    if not chosen:
        raise UserError(f"no {kind} given: name some, or say 'all'")
    for name in chosen:
        if name not in known:
            raise unknown(kind[:-1], name, known)
    return chosen


def load(kind: Kind, name: str) -> Any:
    """The plug-in's class: the one public class that its file defines."""
    try:
        module = importlib.import_module(f"bench.{kind}.{name}")
    except Exception as error:  # whatever its module raises
        text = f"{type(error).__name__}: {error}"
        raise UserError(f"{source(kind, name)}: cannot be imported ({text})") from error
    found = [
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and key[0] != "_"
    ]
    if len(found) != 1:
        raise UserError(f"{source(kind, name)}: defines {len(found)} public classes, must be one")
    for attribute in ATTRIBUTES[kind]:
        if not hasattr(found[0], attribute):
            raise UserError(f"{source(kind, name)}: {found[0].__name__} says no `{attribute}`")
    return found[0]


def source(kind: Kind, name: str) -> Path:
    """The plug-in's file."""
    package = importlib.import_module(f"bench.{kind}")
    return Path(next(iter(package.__path__))) / f"{name}.py"


def describe(kind: Kind, name: str) -> Description:
    """Read a plug-in's summary and constants from its source."""
    try:
        tree = ast.parse(source(kind, name).read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{source(kind, name)}: is not Python ({error})") from None
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    constants: dict[str, Any] = {}
    public = (n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))
    for node in (part for cls in public for part in cls.body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                with contextlib.suppress(ValueError):  # not a literal
                    constants[ast.unparse(target)] = ast.literal_eval(node.value)
    return Description(name, summary, constants)


def code(kind: Kind, name: str) -> str:
    """Digest of the code that decides a method's weights or a task's scores.

    Comments, docstrings and layout do not count.
    """
    return digest([code_digest([source(kind, name)]), harness_digest()])
