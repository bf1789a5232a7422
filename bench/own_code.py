"""The code of somebody's plug-in: the files that a file imports, what a class names.

Installed packages and the standard library are none of it; `bench` itself is identified by the
versions of its plug-ins.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from bench.errors import UserError
from bench.runtime.fingerprint import code_digest, digest

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
        new = {*_imported(file, package)} - found
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


def class_digest(given: type) -> str:
    """Digest of the code of a class: its source, and whatever own code its functions name.

    Raises:
        UserError: Python cannot say its source.
    """
    found: dict[str, Any] = {}
    todo: list[Any] = [given]
    visited: list[Any] = []
    while todo:
        value = todo.pop()
        if any(value is other for other in visited):
            continue
        visited.append(value)
        name = f"{value.__module__}.{value.__qualname__} {len(visited)}"
        if is_own(value.__module__):
            found[name] = _source(value)
        elif value is not given:
            continue
        if isinstance(value, type):
            todo += value.__bases__
        for key, part in _named(value):
            wrapped: Any = part
            part = inspect.unwrap(wrapped) if hasattr(wrapped, "__wrapped__") else wrapped
            if isinstance(part, ModuleType):
                if is_own(part.__name__) and part.__file__:
                    files = with_imported(Path(part.__file__))
                    found[f"{name}: {key}"] = [code_digest([file]) for file in files]
            elif isinstance(part, type) or inspect.isfunction(part):
                todo.append(part)
            elif (text := _plain(part)) is not None:
                found[f"{name}: {key}"] = text
    return digest([f"{given.__module__}.{given.__qualname__}", found])


def _named(value: Any) -> Iterator[tuple[str, Any]]:
    """What a class has and its functions name, or what a function names."""
    if not isinstance(value, type):
        yield from _named_by(value)
        return
    for key, part in vars(value).items():
        if key[:2] != "__":
            yield key, part
        each = (part.fget, part.fset) if isinstance(part, property) else (part,)
        for function in each:
            whole: Any = getattr(function, "__func__", function)
            plain = inspect.unwrap(whole)
            if inspect.isfunction(plain):
                yield from _named_by(plain)


def _named_by(function: Any) -> Iterator[tuple[str, Any]]:
    """The values of the names that a function uses, in functions within it too."""
    codes = [function.__code__]
    names = set[str]()
    while codes:
        code = codes.pop()
        names |= {*code.co_names}
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
    yield from ((n, function.__globals__[n]) for n in sorted(names) if n in function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # of a name that has no value yet
            yield name, cell.cell_contents
    yield "defaults", (function.__defaults__ or (), function.__kwdefaults__ or {})


def _plain(value: Any) -> str | None:
    """A value of plain types as text that is the same in every process; None of any other."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Path):
        return repr(value)
    if isinstance(value, dict):
        parts = [_plain(item) for item in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [_plain(item) for item in value]
    else:
        return None
    texts = [part for part in parts if part is not None]
    if len(texts) < len(parts):
        return None
    ordered = texts if isinstance(value, list | tuple) else sorted(texts)
    return f"{type(value).__name__}({', '.join(ordered)})"


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        raise UserError(
            f"{value.__name__}: its source cannot be read; write it into a file and give its path"
        ) from None


def _imported(path: Path, package: str) -> Iterator[Path]:
    """The files that a file imports, where they count."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not Python ({error})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name, package)
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            for name in ([], *([alias.name] for alias in node.names)):
                if not node.level:
                    yield from _files(".".join([*base, *name]), package)
                elif package or not _is_installed(path):
                    yield from _within(_package_folders(path, node.level), [*base, *name], top=True)


def _package_folders(path: Path, level: int) -> tuple[Path, ...]:
    """The folder of the package that so many dots in a file are of; none beyond packages."""
    above = path.parents[1:level]
    inside = all((folder / "__init__.py").is_file() for folder in above)
    return (path.parents[level - 1],) if inside else ()


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
    yield from _within(folders, parts)


def _within(folders: tuple[Path, ...], parts: list[str], top: bool = False) -> Iterator[Path]:
    """The files of a module in some folders, and of the packages on the way to it.

    Args:
        folders: of the package that the parts are in.
        parts: of its dotted name.
        top: whether the file of that package counts too.
    """
    if top:
        yield from (f for folder in folders if (f := folder / "__init__.py").is_file())
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
