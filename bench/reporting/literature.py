"""Numbers from the literature: their own table and plot, never ranked with measured rows.

Each row of `results/literature/*.csv` is one number as its source prints it, with how far it was
checked. `bench literature` renders LITERATURE.md and a plot for each file. `names.toml` beside them
says which of them `bench compare ROW literature` lays beside a record. Imports no torch.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.config import loader
from bench.config.schema import Plain, Section, tuples
from bench.errors import UserError, from_validation
from bench.reporting.plots import BLUE, ORANGE, guarded, new_figure, style
from bench.results.record import Record
from bench.runtime import regular
from bench.runtime.files import atomic_write


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has a control character")
    return value


Line = Annotated[str, AfterValidator(_line)]
Text = Annotated[Line, Field(min_length=1)]
MARKS = {"verified": "", "unverified": "?", "conflicting": "!"}
PAGE = "LITERATURE.md"
NAMES = "names.toml"
LARGEST = 2**24  # bytes of a CSV file
FEWEST = 7  # methods that a column needs for a plot


class Number(BaseModel):
    """One number from the literature."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Text
    task: Text
    metric: Text
    value: Annotated[str, Field(pattern=r"^([0-9]{1,2}(\.[0-9]+)?|100(\.0+)?)$")]
    """Points 0-100, digit by digit as printed."""
    backbone: Text
    pretraining: Line
    """The images; empty where our notes do not say."""
    protocol: Text
    """Variant of the protocol, where a task has several."""
    source: Text
    url: Annotated[Line, Field(pattern=r"^https://\S+$")]
    status: Literal["verified", "unverified", "conflicting"]
    """Checked in the source, not checked, or given otherwise elsewhere (a row for each)."""
    note: Line

    @property
    def column(self) -> tuple[str, str, str]:
        """Task, protocol and metric: numbers of one column are of the same kind."""
        return self.task, self.protocol, self.metric

    @property
    def row(self) -> str:
        """The method, with its pretraining images where they are neither ImageNet nor none."""
        usual = self.pretraining in ("", "none", "ImageNet")
        return self.method if usual else f"{self.method} ({self.pretraining})"


class Column(Section):
    """A column of published numbers, and the task that measures the same here."""

    task: str
    """Of this project."""
    score: str = ""
    """A diagnostic of the record, in points; its main score if empty."""
    published: str
    """The task in the tables."""
    metric: str
    protocols: tuple[str, ...]
    images: tuple[int, int]
    """How many it is trained and tested on."""
    settings: Plain = Field(default_factory=dict)
    """Those of the task here that make it this protocol."""
    differs: str = ""
    """What is never the same here and there."""

    def holds(self, number: Number) -> bool:
        """Whether a number is of this column."""
        task, protocol, metric = number.column
        return (task, metric) == (self.published, self.metric) and protocol in self.protocols

    def differences(self, record: Record) -> list[str]:
        """Why a record does not measure this column; empty if it does."""
        if record.suite_settings.synthetic:
            return ["its images are rendered"]
        reasons = [self.differs] if self.differs else []
        parts = (("trained", "train"), ("tested", "test"))
        for (verb, part), count in zip(parts, self.images, strict=True):
            own = record.num_images.get(f"{record.dataset}_{part}", count)
            if own != count:
                reasons.append(f"{verb} on {own:,} images, published: {count:,}")
        own_settings = record.task_settings
        return reasons + [
            f"{key} = {own_settings.get(key)}, published: {value}"
            for key, value in self.settings.items()
            if own_settings.get(key) != value
        ]


class Names(Section):
    """What this project's methods, backbones and tasks are called in the tables."""

    methods: dict[str, tuple[str, ...]]
    backbones: dict[str, str]
    columns: tuple[Column, ...]


def read_names(folder: Path) -> Names:
    """The names beside the CSV files.

    Raises:
        UserError: there are none, or they break the schema.
    """
    path = folder / NAMES
    try:
        return Names.model_validate(tuples(loader.read_toml(path)))
    except ValidationError as error:
        raise from_validation(str(path), error) from None


def beside(
    record: Record, names: Names, files: Mapping[str, Sequence[Number]]
) -> list[tuple[Column, Number]]:
    """The numbers of a record's method in its task, each with its column."""
    called = names.methods.get(record.method, ())
    return [
        (column, number)
        for column in names.columns
        if column.task == record.task
        for numbers in files.values()
        for number in numbers
        if number.method in called and column.holds(number)
    ]


def read(path: Path) -> list[Number]:
    """Read one file of published numbers.

    Raises:
        UserError: it is not such a file; names the line and the column.
    """
    try:
        text = regular.read(path, LARGEST).decode()
        lines = list(csv.reader(text.splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None
    names = list(Number.model_fields)
    if not lines or lines[0] != names:
        raise UserError(f"{path}: the first line must be {','.join(names)}")
    numbers: list[Number] = []
    for line, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(names):
            raise UserError(f"{path}, line {line}: has {len(cells)} cells, must have {len(names)}")
        try:
            number = Number.model_validate(dict(zip(names, cells, strict=True)))
        except ValidationError as error:
            raise from_validation(f"{path}, line {line}", error) from None
        if number in numbers:
            raise UserError(f"{path}, line {line}: duplicate row")
        numbers.append(number)
    for number in numbers:
        rivals = {n.value for n in numbers if (n.row, n.column) == (number.row, number.column)}
        if number.status == "conflicting" and len(rivals) == 1:
            what = f"{number.method}, {', '.join(number.column)}"
            raise UserError(f"{path}: {what} is called conflicting, but has one value; give both")
    return numbers


def read_all(folder: Path) -> dict[str, list[Number]]:
    """Every file of published numbers in a folder, by name without suffix.

    Raises:
        UserError: there are none, or one is not such a file.
    """
    files = {path.stem: read(path) for path in sorted(folder.glob("*.csv"))}
    if not any(files.values()):
        raise UserError(f"{folder}: contains no CSV files of published numbers")
    return files


def write(folder: Path, warn: Callable[[str], None]) -> None:
    """Render LITERATURE.md and the plots from the CSV files beside them.

    The tables come first. `warn` takes the line about plots that cannot be drawn.

    Raises:
        UserError: a file is not as it should be, or the folder cannot be written.
    """
    files = read_all(folder)
    _write(folder, {PAGE: markdown(files).encode()})
    with guarded(folder, warn):
        for name, numbers in files.items():
            _write(folder, plot(name, numbers))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        for name, content in files.items():
            atomic_write(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); see --out") from None


def stale(folder: Path) -> bool:
    """Whether LITERATURE.md does not say what the CSV files say, or it or a plot is missing."""
    page = folder / PAGE
    files = read_all(folder)
    plots = [folder / f"{name}.svg" for name, numbers in files.items() if any(_drawn(numbers))]
    if not all(path.is_file() and b"<svg" in path.read_bytes() for path in plots):
        return True
    return not page.is_file() or page.read_text(encoding="utf-8") != markdown(files)


def markdown(files: Mapping[str, Sequence[Number]]) -> str:
    """LITERATURE.md: a table for each task of each file, in the order of the file."""
    parts = [HEAD, *(_section(name, numbers) for name, numbers in files.items())]
    return "\n\n".join(parts) + "\n"


def _section(name: str, numbers: Sequence[Number]) -> str:
    sources = list(dict.fromkeys((n.source, n.url) for n in numbers))
    ordinals = {source: ordinal for ordinal, source in enumerate(sources, start=1)}
    backbones = ", ".join(dict.fromkeys(n.backbone for n in numbers))
    checked = sum(n.status == "verified" for n in numbers)
    lines = [f"## [{name}.csv]({name}.csv): {backbones}"]
    lines += ["", f"{checked} of {len(numbers)} numbers were checked in their source."]
    for task in dict.fromkeys(n.task for n in numbers):
        of_task = [n for n in numbers if n.task == task]
        columns = list(dict.fromkeys(n.column for n in of_task))
        cells: dict[tuple[str, Any], list[str]] = defaultdict(list)
        for n in of_task:
            text = f"{n.value}{MARKS[n.status]} [{ordinals[n.source, n.url]}]"
            cells[n.row, n.column].append(text)
        heads = [f"{protocol} ({metric})" for _, protocol, metric in columns]
        lines += ["", f"### {task}", "", f"| method | {' | '.join(heads)} |"]
        lines.append(f"| --- |{' ---: |' * len(columns)}")
        for row in dict.fromkeys(n.row for n in of_task):
            texts = [", ".join(cells.get((row, column), ["-"])) for column in columns]
            lines.append(f"| {row} | {' | '.join(texts)} |")
    if any(_drawn(numbers)):
        lines += ["", f"![published numbers]({name}.svg)", ""]
        lines += ["A dot for each number, a panel for each protocol; their axes differ."]
    lines += ["", "Notes:", ""]
    lines += [
        f"- {n.row}, {n.task}, {n.protocol} ({n.metric}), {n.value}: {n.note}."
        for n in numbers
        if n.note
    ]
    lines += ["", "Sources:", ""]
    lines += [f"- [{ordinal}] [{source}]({url})" for (source, url), ordinal in ordinals.items()]
    return "\n".join(lines)


def _drawn(numbers: Iterable[Number]) -> list[tuple[str, str, str]]:
    """The columns of a plot: transfer to VOC, with enough methods to show a spread."""
    methods: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for n in numbers:
        if n.task.startswith("VOC"):
            methods[n.column].add(n.row)
    return [column for column, rows in methods.items() if len(rows) >= FEWEST]


def plot(name: str, numbers: Sequence[Number]) -> dict[str, bytes]:
    """A panel for each column, a dot for each number: file name -> content, SVG and PNG."""
    columns = _drawn(numbers)
    if not columns:
        return {}
    looks: dict[str, dict[str, Any]] = {
        "verified": {"marker": "o", "mfc": BLUE, "mec": BLUE, "label": "checked in its source"},
        "unverified": {"marker": "o", "mfc": "white", "mec": BLUE, "label": "not checked"},
        "conflicting": {"marker": "X", "mfc": ORANGE, "mec": ORANGE, "label": "sources differ"},
    }
    rows = list(dict.fromkeys(n.row for n in numbers if n.column in columns))[::-1]
    across = min(4, len(columns))
    down = -(-len(columns) // across)
    with style():
        size = (2.6 * across + 1.8, down * (1.0 + 0.24 * len(rows)))
        figure = new_figure(figsize=size, layout="constrained")
        axes = figure.subplots(down, across, sharey=True, squeeze=False)
        for index, panel in enumerate(axes.flat):
            if index >= len(columns):
                panel.set_visible(False)
                continue
            task, protocol, metric = columns[index]
            for n in numbers:
                if n.column == columns[index]:
                    panel.plot(float(n.value), rows.index(n.row), ls="", ms=6, **looks[n.status])
            panel.set_title(f"{task}\n{protocol}", fontsize=9, loc="left")
            panel.set_xlabel(f"{metric}, points")
            panel.set_yticks(range(len(rows)), rows)
            panel.grid(axis="y", lw=0.3)
        labels: dict[Any, Any] = {}
        for panel in axes.flat:
            for line, label in zip(*panel.get_legend_handles_labels(), strict=True):
                labels.setdefault(label, line)
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3)
        figure.suptitle("From the literature, not measured here: not to be ranked", fontsize=10)
        files = {}
        for form, about in {"svg": {"Date": None}, "png": {"Software": None}}.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, metadata=about, dpi=110)
            files[f"{name}.{form}"] = buffer.getvalue()
    return files


HEAD = """# Numbers from the literature

Numbers attributed to papers and repositories, in points. None was measured here. **Those with a
question mark were not checked in their source: do not cite them from here.**

**They are never ranked with measured rows.** Backbone, pretraining images and length, tuning
budget, test crops, metric and the selection of the stage differ from ours, and from source to
source. Each of these alone can move a number by more than methods differ. A column has the numbers
of one protocol. Even there, rows may come from several sources, in brackets, and differ in what was
tuned. A paper's name in a heading means that paper's protocol. The order of the rows is that of the
CSV file, not a ranking.

- `54.4` was checked in its source.
- `54.4?` was not checked, and may be wrong.
- `54.4!` is one of several values given for the same thing; all are shown, checked or not.
- `[1]` is the source, below each part."""
