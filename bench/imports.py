"""The Python files that a file imports and that are no installed package."""

from __future__ import annotations

import ast
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.errors import UserError

OWN = "bench"  # identified by its version, but for the plug-ins that it ships
PLUGINS = ("bench.methods", "bench.tasks")


def with_imported(path: Path, package: str = "") -> list[Path]:
    """A file, and those that it imports, at the top of a module or in a function, and so on.

    Modules of the standard library and of installed packages are not among them, nor those of
    `bench`; the plug-ins that ship are: another one may be a subclass.

    Args:
        path: the file.
        package: the installed package that it is in, whose modules count; empty for none.

    Returns:
        Sorted, each once.

    Raises:
        UserError: one of them is not Python.
    """
    found = {path}
    todo = [path]
    while todo:
        file = todo.pop()
        for name in _imported(file):
            new = {*_files(name, package)} - found
            found |= new
            todo += new
    return sorted(found)


def is_own(module: str) -> bool:
    """Whether a module that was imported is neither `bench`'s, nor the library's or a package's."""
    top = module.partition(".")[0]
    if top == OWN:
        return module.startswith(PLUGINS)
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:  # built in, or the cells of a notebook
        return top not in sys.stdlib_module_names or top == "__main__"
    return not _is_installed(Path(file))


def _imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports; of `from a import b` both `a` and `a.b`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not Python ({error})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([_package_of(path, node.level), *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _package_of(path: Path, level: int) -> str:
    """The dotted name of the package that so many dots in a file are of."""
    folder = path.parent
    names = []
    while (folder / "__init__.py").is_file():
        names.append(folder.name)
        folder = folder.parent
    return ".".join(names[::-1][: len(names) - level + 1])


def _files(name: str, package: str) -> Iterator[Path]:
    """The files of a module and of the packages that it is in, where they count."""
    top, *parts = name.split(".")
    if top == OWN:
        if not name.startswith(PLUGINS):
            return
        _, folders = _located(".".join((top, parts.pop(0))))
    else:
        origin, folders = _located(top)
        if top != package and _is_installed(origin or next(iter(folders), None)):
            return
        if origin is not None:
            yield origin
    for part in parts:
        modules = [folder / f"{part}.py" for folder in folders]
        packages = [folder / part / "__init__.py" for folder in folders]
        yield from (file for file in (*modules, *packages) if file.is_file())
        folders = tuple(folder / part for folder in folders if (folder / part).is_dir())


@cache
def _located(name: str) -> tuple[Path | None, tuple[Path, ...]]:
    """The Python file of a module, and the folders of its submodules."""
    try:
        spec = importlib.util.find_spec(name) if name else None
    except (ImportError, ValueError):  # of a module that says nothing of where it is from
        spec = None
    if spec is None:
        return None, ()
    is_python = bool(spec.origin) and str(spec.origin).endswith(".py")
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    return Path(spec.origin) if is_python and spec.origin else None, folders


def _is_installed(path: Path | None) -> bool:
    """Whether a file or folder is of the standard library or of an installed package."""
    if path is None:
        return True
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_paths()[name] for name in names]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    resolved = path.resolve()
    return any(resolved.is_relative_to(Path(folder).resolve()) for folder in folders)
