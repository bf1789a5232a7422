"""Methods and tasks by name, wherever they come from.

A plug-in is one Python file with one public class. It comes from `methods/` or `tasks/` of this
project, from the entry-point groups `ssl_gap.methods` and `ssl_gap.tasks` of an installed package,
from a path on the command line, or it is a Python object. Being there is the registration.
A method may also be a spec of weights from elsewhere (`bench.specs`).

Names, summaries and versions are read from the source without importing it, and torch with it.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from bench import own_code, specs
from bench.errors import UserError, unknown
from bench.metrics import registry
from bench.runtime.fingerprint import code_digest, digest, file_digest, harness_digest

Kind = Literal["methods", "tasks"]
Origin = Literal["shipped", "package", "path", "object", "spec"]

# What a plug-in's class must have, and what its source must say in the class body as a literal.
ATTRIBUTES: dict[Kind, tuple[str, ...]] = {
    "methods": ("reference", "version", "datasets", "pretrain"),
    "tasks": ("reference", "version", "metric", "dataset_kinds", "Settings", "evaluate"),
}
LITERALS: dict[Kind, tuple[str, ...]] = {
    "methods": ("reference", "version"),
    "tasks": ("reference", "version", "metric"),
}
INPUTS = ("rgb", "L", "ab", "above_diagonal", "below_diagonal")  # of a branch of an encoder
UNTRAINED = "random_init"  # the shipped method that other inputs derive from, as random_init-L
OF_BACKBONE = "@"  # in the name of a method on another backbone than the suite's: random_init@NAME


@dataclass(frozen=True)
class Source:
    """Where a plug-in comes from.

    Attributes:
        name: by which it is requested.
        origin: how it became known.
        path: its file; None of an object.
        module: by which an installed package imports it.
        value: the class, of an object; the `specs.Spec`, of a spec.
        own: digest by which an object is recognized.
    """

    name: str
    origin: Origin
    path: Path | None
    module: str = ""
    value: Any = None
    own: str = ""

    def __str__(self) -> str:
        if self.origin == "spec":
            return str(self.value)
        return str(self.path) if self.path else f"the object '{self.name}'"


@dataclass(frozen=True)
class Description:
    """Description of a plug-in, read without importing it.

    Attributes:
        name: by which it is requested.
        summary: first line of its docstring.
        constants: the literals of its class, such as reference and version.
        has_settings: whether its class body defines `Settings`.
        origin: how it became known.
        legend: first line of the docstring of `visualize`: what its image shows.
    """

    name: str
    summary: str
    constants: dict[str, Any]
    has_settings: bool
    origin: Origin
    legend: str = ""

    @property
    def title(self) -> str:
        """Display name of a method: its summary up to the colon, `Random init (L only)`.

        Empty without a colon, and of weights from elsewhere.
        """
        title, colon, _ = self.summary.partition(":")
        if not colon or self.origin == "spec":
            return ""
        derived = _derived(self.name)[1]
        parts = [name.replace("_", " ") for name in derived.get("inputs", ())]
        parts = [f"{parts[0]} only"] if len(parts) == 1 else parts
        parts += [derived["backbone"]] if "backbone" in derived else []
        return f"{title} ({', '.join(parts)})" if parts else title

    @property
    def version(self) -> int:
        """Raised whenever its numbers may change."""
        return int(self.constants["version"])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Input of each branch of a method's encoder."""
        return tuple(self.constants.get("inputs", ("rgb",)))

    @property
    def backbones(self) -> str:
        """The kind of backbone that a method can train, of `encoders.kinds`; empty for any."""
        return str(self.constants.get("backbones", ""))

    @property
    def backbone(self) -> str:
        """The timm model that it is an encoder of; empty for the suite's."""
        return str(self.constants.get("backbone", ""))

    @property
    def role(self) -> Literal["reference", "untrained", "pretrained"]:
        """What a method's row is for the others."""
        if self.constants.get("untrained"):
            return "untrained"
        return "reference" if self.constants.get("reference_row") else "pretrained"

    @property
    def is_from_elsewhere(self) -> bool:
        """Whether its weights are neither trained here nor named by the suite."""
        return self.origin == "spec" or bool(self.backbone and self.constants.get("reference_row"))

    @property
    def trains_on_suite(self) -> bool:
        """Whether a method trains on the suite's pretraining images."""
        return bool(self.constants.get("datasets", ("pretraining",)))


_added: dict[Kind, dict[str, Source]] = {"methods": {}, "tasks": {}}
_metrics: list[Path] = []  # files that define a metric


def add_path(kind: Kind, path: Path) -> str:
    """Make a file known as a plug-in, and the metric beside a task; its name is the file's.

    Raises:
        UserError: there is no such file, or its name is taken.
    """
    path = path.resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{path}: no such Python file")
    if not path.stem.isidentifier():
        raise UserError(f"{path}: rename the file so that its name is a Python identifier")
    _add(kind, Source(path.stem, "path", path))
    if kind == "tasks":
        metric = describe(kind, path.stem).constants["metric"]
        beside = path.with_name(f"{metric}.py")
        if registry.find(metric) is None and beside.is_file():
            add_metric(beside)
    return path.stem


def add_metric(path: Path) -> None:
    """Make the metric that a file defines known: an object of its one public class.

    Raises:
        UserError: there is no such file, or it defines no metric.
    """
    path = path.resolve()
    if not path.is_file():
        raise UserError(f"{path}: no such Python file")
    attributes = ("name", "label", "arrays", "per_class", "classes", "ground_truth")
    registry.register(_public_class(_from_path("metrics", path), path, attributes)())
    _metrics.append(path)


@dataclass(frozen=True)
class AddedPaths:
    """The files that were made known to this process, for another process to know them too."""

    methods: tuple[Path, ...]
    tasks: tuple[Path, ...]
    metrics: tuple[Path, ...]
    specs: tuple[specs.Spec, ...] = ()

    def add(self) -> None:
        """Make the files known here."""
        for path in self.metrics:
            add_metric(path)
        for path in self.methods:
            add_path("methods", path)
        for path in self.tasks:
            add_path("tasks", path)
        for spec in self.specs:
            add_spec(spec)


def added_paths() -> AddedPaths:
    """The files that were made known so far."""
    methods, tasks = (
        tuple(source.path for source in _added[kind].values() if source.path is not None)
        for kind in ("methods", "tasks")
    )
    given = [source.value for source in _added["methods"].values() if source.origin == "spec"]
    return AddedPaths(methods, tasks, tuple(dict.fromkeys(_metrics)), tuple(given))


def add_spec(spec: specs.Spec) -> str:
    """Make weights from elsewhere known as a method; its name is the spec's label.

    Raises:
        UserError: the name is taken, or what decides the weights cannot be had.
    """
    spec = _resolved(spec)
    known = _sources("methods").get(spec.label)
    if known is not None and known.value != spec:
        raise UserError(
            f"{spec}: the name {spec.label} is taken by {known}; give it another, as in mine={spec}"
        )
    _added["methods"][spec.label] = Source(spec.label, "spec", None, value=spec)
    return spec.label


def _resolved(spec: specs.Spec) -> specs.Spec:
    """A spec of a repository with the timm model that it is, its heads, and its commit.

    What the spec says of the network wins.
    """
    if spec.kind != "hf" or spec.option("revision"):
        return spec
    hub = importlib.import_module("bench.encoders.checkpoint.huggingface")
    asked = {key: spec.option(key) for key in ("arch", "heads") if spec.option(key)}
    return spec.having(**{**hub.resolved(spec.target), **asked})


def module_of(path: Path) -> ModuleType:
    """The module of a Python file that a spec names.

    Raises:
        UserError: there is no such file, or it cannot be imported.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such Python file")
    return _from_path("specs", path.resolve())


def add_object(kind: Kind, name: str, value: Any, own: str = "") -> None:
    """Make a class known as a plug-in; `own` is the digest of what decides its numbers."""
    _add(kind, Source(name, "object", None, value=value, own=own))


def check_object_name(kind: Kind, name: str) -> None:
    """Refuse a name that an object cannot have; an object takes the place of another one.

    Raises:
        UserError: a plug-in has it, or it derives a method from one, as `random_init-L` does.
    """
    known = _sources(kind).get(name)
    if known is not None and known.origin != "object":
        raise UserError(f"name={name}: is taken by {known}; give it another")
    if kind == "methods" and _derived(name)[1]:
        raise UserError(f"name={name}: names a variant of {_base(kind, name)}; give it another")


def _add(kind: Kind, source: Source) -> None:
    known = _sources(kind).get(source.name)
    if known is None or known.origin == source.origin == "object":
        _added[kind][source.name] = source
    elif known.path is None or known.path.resolve() != source.path:
        raise UserError(f"{kind[:-1]} '{source.name}' exists twice: {known} and {source}")


def _sources(kind: Kind) -> dict[str, Source]:
    """Every plug-in of a kind by name."""
    return _installed(kind) | _added[kind]


@cache
def _installed(kind: Kind) -> dict[str, Source]:
    """The plug-ins of this project and of installed packages."""
    try:
        package = importlib.import_module(f"bench.{kind}")
    except ModuleNotFoundError:
        # A wheel is installed, but the working directory's own bench/ hides it.
        raise UserError(
            f"bench.{kind} is not installed: run `pip install -e .` in the repository"
        ) from None
    folder = Path(next(iter(package.__path__)))
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    known = {
        name: Source(name, "shipped", folder / f"{name}.py", f"bench.{kind}.{name}")
        for name in modules
        if not name.startswith("_")
    }
    for entry in entry_points(group=f"ssl_gap.{kind}"):
        try:
            spec = importlib.util.find_spec(entry.module)
        except ImportError:  # of the package that it is in
            spec = None
        if spec is None or not spec.origin:
            raise UserError(f"entry point {entry.name} of ssl_gap.{kind}: no module {entry.module}")
        source = Source(entry.name, "package", Path(spec.origin), entry.module)
        if entry.name in known:
            both = f"{known[entry.name]} and {source}"
            raise UserError(f"{kind[:-1]} '{entry.name}' exists twice: {both}")
        known[entry.name] = source
    return known


def names(kind: Kind) -> list[str]:
    """The names of all plug-ins of a kind, sorted."""
    return sorted(_sources(kind))


def select(
    kind: Kind, request: str, allow_missing: bool = False, trust_remote_code: bool = False
) -> list[str]:
    """The names in a comma-separated request of names, paths and, of methods, specs.

    `all` is every one that is known.

    Args:
        kind: methods or tasks.
        request: what was asked for.
        allow_missing: whether a file of weights may lack some of its encoder's.
        trust_remote_code: whether code of `hub:` repositories may be run.

    Raises:
        UserError: an unknown name, a file that is no plug-in, or nothing.
    """
    parts = specs.parts(request)
    if not parts:
        raise UserError(f"no {kind} given: name some, or say 'all'")
    selected: list[str] = []
    for part in parts:
        if kind == "methods" and specs.is_spec(part):
            spec = specs.parse(part)
            if allow_missing and spec.kind == "file":
                spec = spec.having(**{specs.MISSING: "yes"})
            if trust_remote_code and spec.kind == "hub":
                spec = spec.having(**{specs.TRUSTED: "yes"})
            selected.append(add_spec(spec))
        elif part.endswith(".py") or "/" in part:
            selected.append(add_path(kind, Path(part)))
        elif part == "all":
            selected += [name for name in names(kind) if _sources(kind)[name].origin != "spec"]
        else:
            source(kind, part)
            selected.append(part)
    return list(dict.fromkeys(selected))


def source(kind: Kind, name: str) -> Source:
    """Where a plug-in comes from.

    Raises:
        UserError: it is unknown.
    """
    known = _sources(kind)
    base = name if name in known else _base(kind, name)
    if base not in known:
        raise unknown(kind[:-1], name, known)
    return known[base]


def untrained_name(inputs: Sequence[str], backbone: str = "") -> str:
    """The method that leaves an encoder of some inputs, and of a backbone, untrained."""
    name = "-".join([UNTRAINED, *(() if tuple(inputs) == ("rgb",) else inputs)])
    return f"{name}{OF_BACKBONE}{backbone}" if backbone else name


def _base(kind: Kind, name: str) -> str:
    """The plug-in's own name: `random_init` of `random_init-L` and `random_init@resnet50`."""
    base, derived = _derived(name)
    return base if kind == "methods" and derived else name


def _derived(name: str) -> tuple[str, dict[str, Any]]:
    """The plug-in that a derived name is of, and what it sets there: inputs and backbone."""
    rest, separator, backbone = name.partition(OF_BACKBONE)
    base, *inputs = rest.split("-")
    constants: dict[str, Any] = {"inputs": tuple(inputs)} if inputs else {}
    if separator:
        constants["backbone"] = backbone
    known = (base == UNTRAINED and {*inputs} <= {*INPUTS}) or rest == specs.REFERENCE
    return (base, constants) if known and (backbone or not separator) else (name, {})


def load(kind: Kind, name: str) -> Any:
    """The plug-in's class: the one public class that its file defines.

    Raises:
        UserError: it is unknown, cannot be imported, or lacks an attribute.
    """
    where = source(kind, name)
    if where.origin == "object":
        return where.value
    if where.origin == "spec":
        readers = importlib.import_module("bench.encoders.weights")
        return readers.method(where.value)
    assert where.path is not None
    try:
        module = (
            importlib.import_module(where.module) if where.module else _from_path(kind, where.path)
        )
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever its module raises
        text = f"{type(error).__name__}: {error}"
        raise UserError(f"{where}: cannot be imported ({text})") from error
    plugin = _public_class(module, where.path, ATTRIBUTES[kind])
    constants = _derived(name)[1] if kind == "methods" else {}
    return type(plugin.__name__, (plugin,), constants) if constants else plugin


def _from_path(kind: str, path: Path) -> ModuleType:
    """The module of a file that no package has; a changed file is imported again."""
    return _import_file(kind, path, file_digest(path))


@cache
def _import_file(kind: str, path: Path, content: str) -> ModuleType:
    """The module of a file with a content, by its digest."""
    name = f"bench_plugins_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a loader's worker looks classes up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever its module raises
        text = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: cannot be imported ({text})") from error
    return module


def _public_class(module: ModuleType, path: Path, attributes: Sequence[str]) -> Any:
    """The one public class that a module defines."""
    classes = [
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and key[0] != "_"
    ]
    if len(classes) != 1:
        raise UserError(f"{path}: defines {len(classes)} public classes, must be one")
    for attribute in attributes:
        if not hasattr(classes[0], attribute):
            raise UserError(f"{path}: {classes[0].__name__} has no `{attribute}`")
    return classes[0]


def describe(kind: Kind, name: str) -> Description:
    """Read a plug-in's summary and constants from its source.

    Raises:
        UserError: it is unknown, is not Python, or does not say its version as a literal.
    """
    where = source(kind, name)
    if where.origin == "spec":
        return _describe_spec(where.value)
    if where.origin == "object":
        described = _describe_object(name, where.value)
    else:
        assert where.path is not None
        described = _describe_file(name, where.path, where.origin)
        for literal in LITERALS[kind]:
            if literal not in described.constants:
                raise UserError(
                    f"{where}: `{literal}` must be a literal in the body of its class, "
                    f"for example `version: ClassVar[int] = 1`"
                )
    if kind == "methods":
        described.constants.update(_derived(name)[1])
    return described


def _describe_spec(spec: specs.Spec) -> Description:
    constants = {
        "reference": str(spec),
        "version": specs.VERSION,
        "datasets": (),
        "backbone": spec.backbone,
        "reference_row": spec.is_reference,
    }
    return Description(spec.label, f"Weights from {spec}.", constants, False, "spec")


def describe_file(path: Path) -> Description:
    """Read the summary and the constants of a file that need not be known.

    Raises:
        UserError: there is no such file, or it is not Python.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such Python file")
    return _describe_file(path.stem, path, "path")


def _describe_file(name: str, path: Path, origin: Origin) -> Description:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not Python ({error})") from None
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    constants: dict[str, Any] = {}
    has_settings = False
    legend = ""
    for body in (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_"):
        for node in body:
            if isinstance(node, ast.ClassDef):
                has_settings |= node.name == "Settings"
            if isinstance(node, ast.FunctionDef) and node.name == "visualize":
                legend = (ast.get_docstring(node) or "").split("\n")[0]
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                has_settings |= ast.unparse(target) == "Settings"
                with contextlib.suppress(ValueError):  # not a literal
                    constants[ast.unparse(target)] = ast.literal_eval(node.value)
    return Description(name, summary, constants, has_settings, origin, legend)


def _describe_object(name: str, value: Any) -> Description:
    summary = (value.__doc__ or "").strip().split("\n")[0]
    keys = (
        *("reference", "version", "metric", "inputs", "backbones", "datasets", "untrained"),
        "reference_row",
    )
    constants = {key: getattr(value, key) for key in keys if hasattr(value, key)}
    return Description(name, summary, {"version": 1, **constants}, True, "object")


def own_digest(kind: Kind, name: str) -> str:
    """Digest of a plug-in's own code where it does not ship with the project; else empty.

    Its own code is its file, what that imports (`bench.own_code`), and of a task the metric beside
    it. What ships is identified by its version, which `bench check` watches.
    """
    where = source(kind, name)
    if where.origin == "shipped":
        return ""
    if where.origin == "spec":
        return _spec_digest(where.value)
    if where.path is None:
        return where.own
    package = where.module.partition(".")[0]
    files = {*own_code.with_imported(where.path, package)} - {where.path}
    if kind == "tasks":
        metric = type(registry.find(describe(kind, name).constants["metric"])).__module__
        is_own = own_code.is_own(metric) or (package and metric.partition(".")[0] == package)
        if is_own and (file := sys.modules[metric].__file__):
            files |= {*own_code.with_imported(Path(file), package)}
    own = _first_digest(where.path) if where.module else code_digest([where.path])
    others = sorted(map(_first_digest, files))
    return digest([own, *others]) if others else own


@cache
def _first_digest(path: Path) -> str:
    """Digest of a module as it was when this process first looked: it is imported once."""
    return code_digest([path])


def _spec_digest(spec: specs.Spec) -> str:
    """What identifies the weights of a spec; of those that a program makes, the weights."""
    if spec.kind not in specs.PROGRAMS:
        return spec.digest
    weights = importlib.import_module("bench.encoders.weights")
    return str(weights.identity(weights.made_by_program(spec), str(spec)))


def code(kind: Kind, name: str) -> str:
    """Digest of the code that makes a plug-in's numbers: its own and the harness's.

    Kept in records as provenance; it decides nothing.
    """
    where = source(kind, name)
    own = own_digest(kind, name)
    if where.origin == "shipped" and where.path is not None:
        own = code_digest([where.path])
    return digest([own, harness_digest()])
