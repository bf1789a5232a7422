"""Every column of a leaderboard, once: heading, value, format, explanation, outputs.

Markdown, terminal, web page, LaTeX, CSV, DataFrame and the glossary all come from `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bench.reporting import format as formats
from bench.reporting.rows import BASELINE, REFERENCE, Row, Table, seconds, views_seen
from bench.results.record import Record
from bench.statistics.intervals import Estimate

Place = Literal["markdown", "terminal", "web", "latex", "csv"]
Section = Literal["main", "more", "obtained", "file"]
Kind = Literal["text", "integer", "number", "estimate"]
Value = Estimate | float | int | str | None

PAGES: tuple[Place, ...] = ("markdown", "web", "csv")
EVERYWHERE: tuple[Place, ...] = ("markdown", "terminal", "web", "latex", "csv")


def _always(table: Table, row: Row) -> bool:
    return False


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in leaderboard.csv and in DataFrames; of an estimate, `key_low` and
            `key_high` follow.
        heading: as a reader sees it; `{metric}` is the name of the table's metric, `{only}` says
            where intervals are over test images only.
        help: what it means, for the glossary.
        value: what it shows of a row.
        format: a value as text.
        kind: of the value.
        section: `main`; `more`; `obtained`, how a row was obtained; `file`, in files only.
        shown_in: which outputs have it.
        trivial: of which rows it says nothing, such as the gap of the reference to itself.
        printed: what tables show, where that is not the value in files.
        sort: what it is sorted by on the page, where that is not the value.
        ascending: whether the page sorts the smallest first.
    """

    key: str
    heading: str
    help: str
    value: Callable[[Table, Row], Value]
    format: Callable[[Any], str] = str
    kind: Kind = "text"
    section: Section = "main"
    shown_in: tuple[Place, ...] = PAGES
    trivial: Callable[[Table, Row], bool] = _always
    printed: Callable[[Table, Row], Value] | None = None
    sort: Callable[[Row], Value] | None = None
    ascending: bool = False

    def title(self, table: Table) -> str:
        """The heading over a table."""
        only = ", test images only" if table.images_only else ""
        return self.heading.format(metric=table.metric, only=only)

    def text(self, table: Table, row: Row) -> str:
        """The value of a row, as text."""
        value = (self.printed or self.value)(table, row)
        if value in (None, "") or self.trivial(table, row):
            return formats.MISSING
        return self.format(value)

    def order(self, table: Table, row: Row) -> float | str:
        """What the page sorts a row by; empty where there is nothing."""
        if self.sort:
            value = self.sort(row)
        elif self.trivial(table, row):
            value = None
        else:
            value = self.value(table, row)
        if isinstance(value, Estimate):
            value = value.value
        return "" if value is None else value


def _is_reference(table: Table, row: Row) -> bool:
    return row.method == table.reference


def _is_baseline(table: Table, row: Row) -> bool:
    return row.method == table.baseline


def _is_end(table: Table, row: Row) -> bool:
    return _is_reference(table, row) or _is_baseline(table, row)


def _mean(read: Callable[[Record], Any]) -> Callable[[Table, Row], float | None]:
    return lambda table, row: row.mean(read)


def _run_sd(table: Table, row: Row) -> float | None:
    return row.runs.spread.variance**0.5 if row.runs.spread else None


def _rank(ranks: str, end: str) -> Callable[[Table, Row], int | None]:
    def read(table: Table, row: Row) -> int | None:
        found = getattr(row, ranks)
        return getattr(found, end) if found else None

    return read


def _warnings(table: Table, row: Row) -> str:
    return "failed" if row.status == "failed" else "; ".join(row.warnings)


def selected(row: Row) -> str:
    """What was selected on training images: the stage and the hyperparameters, over seeds."""
    parts = [f"stage {stage}" for stage in sorted(row.selected_stages)]
    settings = [record.hyperparameters.selected for record in row.scored]
    names = dict.fromkeys(name for values in settings for name in values if name != "stage")
    for name in names:
        texts = dict.fromkeys(_range(values[name]) for values in settings if name in values)
        parts += [f"{name.replace('_', ' ')} {text}" for text in texts if text]
    return ", ".join(parts)


def pretext(row: Row) -> str:
    """The score at the method's own task, mean over seeds; empty without one."""
    score = next((r.pretraining.pretext for r in row.scored if r.pretraining.pretext), None)
    value = row.mean(lambda r: r.pretraining.pretext and r.pretraining.pretext.value)
    trivial = row.mean(lambda r: r.pretraining.pretext and r.pretraining.pretext.trivial)
    if score is None or value is None or not trivial:
        return ""
    if not score.higher_is_better:
        return f"{score.measure} {value / trivial:.2f} of {score.trivial_answer}'s"
    chance = f"{score.trivial_answer} {formats.percentage(trivial)}"
    return f"{formats.percentage(value)} of {round(1 / trivial)}-way ({chance})"


def _range(value: Any) -> str:
    """A value, or the smallest and the largest of several."""
    values = value.values() if isinstance(value, dict) else value
    if not isinstance(values, Iterable) or isinstance(values, str):
        return f"{value:g}" if isinstance(value, float) else str(value)
    numbers = [number for number in values if isinstance(number, int | float)]
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _in_files(
    key: str, heading: str, help: str, value: Callable[[Table, Row], Value], kind: Kind = "text"
) -> Column:
    """A column of leaderboard.csv and DataFrames alone."""
    return Column(key, heading, help, value, kind=kind, section="file", shown_in=("csv",))


COLUMNS: tuple[Column, ...] = (
    _in_files(
        "task",
        "Task",
        "Name of the task.",
        lambda table, row: table.task,
    ),
    _in_files(
        "task_version",
        "Task version",
        "Version of the task. It is raised whenever a score may change.",
        lambda table, row: table.example.task_version,
        kind="integer",
    ),
    Column(
        key="rank_range",
        heading="Rank range",
        help="Range of possible ranks. 4-9 of 17: three rows are significantly better, eight "
        "significantly worse, five indistinguishable. Rows are in the order of their scores. All "
        "pairs are tested jointly: with 95% confidence, no range of the table is wrong.",
        value=lambda table, row: row.rank_range,
        shown_in=("markdown", "terminal", "web", "latex"),
        sort=lambda row: row.ranks and row.ranks.first,
        ascending=True,
    ),
    Column(
        key="method",
        heading="Method",
        help="Name of the method; the methods are listed below.",
        value=lambda table, row: row.method,
        ascending=True,
        shown_in=EVERYWHERE,
    ),
    _in_files(
        "metric",
        "Metric",
        "Name of the metric.",
        lambda table, row: table.example.metric,
    ),
    Column(
        key="value",
        heading="{metric} (95% CI){only}",
        help="Main score in points, 0 to 100; more is better. The brackets are the 95% confidence "
        "interval over test images and training runs. Images: 1,000 random halves of the test "
        "split. Runs: the spread of the row's seeds, or of rows like it. With several seeds, the "
        "score is their mean.",
        value=lambda table, row: row.value,
        format=formats.estimate,
        kind="estimate",
        shown_in=EVERYWHERE,
    ),
    Column(
        key="gap",
        heading=f"Gap to {REFERENCE}",
        help=f"Score of the {REFERENCE} weights minus the score of the row, in points. Less is "
        f"better; a row below 0 beats {REFERENCE}. Differences are paired: both rows are scored "
        "on the same halves of the test split.",
        value=lambda table, row: row.gap,
        format=formats.estimate,
        kind="estimate",
        trivial=_is_reference,
        ascending=True,
        shown_in=EVERYWHERE,
    ),
    Column(
        key="gain",
        heading=f"Gain over {BASELINE}",
        help="Score of the row minus the score of the untrained backbone, in points, paired.",
        value=lambda table, row: row.gain,
        format=formats.estimate,
        kind="estimate",
        trivial=_is_baseline,
        shown_in=EVERYWHERE,
    ),
    Column(
        key="gap_closed",
        heading="Gap closed",
        help=f"Share of the way from {BASELINE} to {REFERENCE}: gain over {BASELINE}, divided by "
        f"that of {REFERENCE}. It is left out where {REFERENCE} is not significantly better than "
        f"{BASELINE}.",
        value=lambda table, row: row.gap_closed,
        format=formats.share,
        kind="estimate",
        section="more",
        trivial=_is_end,
    ),
    Column(
        key="matched_gain",
        heading=f"Gain over {BASELINE} with the same input",
        help="Score of the row minus the score of an untrained network that is given the same part "
        "of an image, in points, paired.",
        value=lambda table, row: row.matched_gain,
        format=formats.estimate,
        kind="estimate",
        section="more",
    ),
    _in_files(
        "matched_baseline",
        "Baseline with the same input",
        "Name of the untrained method with the inputs of the row.",
        lambda table, row: row.matched_baseline,
    ),
    *(
        _in_files(key, heading, help_, _rank(ranks, end), kind="integer")
        for key, heading, help_, ranks, end in (
            ("rank", "First rank", "Smallest rank that the row may have.", "ranks", "first"),
            ("last_rank", "Last rank", "Largest rank that the row may have.", "ranks", "last"),
            (
                "own_rank",
                "First rank, by itself",
                "The same, each pair tested by itself at 95%: among many, a few are wrong.",
                "own_ranks",
                "first",
            ),
            ("own_last_rank", "Last rank, by itself", "Likewise.", "own_ranks", "last"),
        )
    ),
    Column(
        key="p_better",
        heading="P(better than next row)",
        help="Probability that the row is better than the next one, over test images and training "
        "runs. 50% is a toss-up.",
        value=lambda table, row: row.p_better,
        format=formats.probability,
        kind="number",
        section="more",
    ),
    Column(
        key="seeds",
        heading="Seeds",
        help="Independent runs of pretraining and scoring: each has its own first weights, order "
        "of images and augmentation.",
        value=lambda table, row: len(row.scored),
        format=formats.count,
        kind="integer",
        section="more",
    ),
    Column(
        key="training_runs",
        heading="Training runs",
        help="How it is known how far another run would move the row: from its own `seeds`; from "
        "the seeds of the suite's `calibration`; from rows of its `kind`; `fixed` weights do not "
        "move; `unknown`, then the interval covers test images only.",
        value=lambda table, row: row.runs.source,
        section="more",
        ascending=True,
    ),
    Column(
        key="run_sd",
        heading="Run sd",
        help="Standard deviation of the score over training runs, in points: the median of what is "
        "known of it.",
        value=_run_sd,
        format=formats.deviation,
        kind="number",
        section="more",
    ),
    Column(
        key="images_share",
        heading="Doubt due to images",
        help="Share of the test images in the variance of the score. The rest is training runs.",
        value=lambda table, row: row.shares.get("images"),
        format=formats.percentage,
        kind="number",
        section="more",
    ),
    Column(
        key="inputs",
        heading="Inputs",
        help="What each branch of the network is given of an image: rgb; L, lightness; ab, color; "
        "or the pixels on one side of the diagonal.",
        value=lambda table, row: ", ".join(row.inputs or []),
        section="obtained",
        ascending=True,
    ),
    Column(
        key="parameters",
        heading="Parameters",
        help="Parameters of the network that was scored.",
        value=_mean(lambda r: r.encoder and r.encoder.parameters),
        format=formats.millions,
        kind="number",
        section="obtained",
    ),
    Column(
        key="views_seen",
        heading="Views seen",
        help="Images that went through the network in pretraining. Every rotation, patch or tile "
        "of an image counts as one.",
        value=lambda table, row: views_seen(row),
        format=formats.count,
        kind="number",
        section="obtained",
    ),
    Column(
        key="seconds",
        heading="Pretraining time",
        help="Time that pretraining took, other work on the machine included; seconds in files.",
        value=lambda table, row: seconds(row),
        format=formats.duration,
        kind="number",
        section="obtained",
    ),
    Column(
        key="pretext",
        heading="Pretext",
        help="Score of the method at its own task, on images that it was not trained on. An "
        "accuracy comes with the number of choices and chance. An error is a share of the error of "
        "an answer that needs no training.",
        value=lambda table, row: pretext(row),
        section="obtained",
        ascending=True,
    ),
    Column(
        key="num_settings",
        heading="Settings tried",
        help="Hyperparameter settings that the task compared on training images.",
        value=_mean(lambda r: r.hyperparameters.num_settings),
        format=formats.count,
        kind="number",
        section="obtained",
    ),
    Column(
        key="selected",
        heading="Selected",
        help="Stage and hyperparameters that did best on training images. Stage 0 is the finest. "
        "Cost is the C of a support vector machine; it is selected for each class.",
        value=lambda table, row: selected(row),
        section="obtained",
        ascending=True,
    ),
    Column(
        key="optimism",
        heading="Optimism",
        help="Points that the score would gain if stage and hyperparameters were selected on test "
        "images. The score does not include them.",
        value=_mean(lambda r: r.diagnostics.get("optimism")),
        format=formats.signed,
        kind="number",
        section="obtained",
    ),
    Column(
        key="effective_rank",
        heading="Effective rank",
        help="Number of directions that the features of the selected stage spread over: the "
        "exponential of the entropy of their spectrum. More is not better.",
        value=_mean(lambda r: r.diagnostics.get("effective_rank")),
        format=formats.count,
        kind="number",
        section="obtained",
    ),
    _in_files(
        "num_images",
        "Test images",
        "Number of test images.",
        lambda table, row: table.num_images,
        kind="integer",
    ),
    _in_files(
        "backbone",
        "Backbone",
        "Name of the network.",
        lambda table, row: next((r.encoder.backbone for r in row.scored if r.encoder), None),
    ),
    _in_files(
        "role",
        "Role",
        "`reference`, `untrained` or `pretrained`.",
        lambda table, row: row.role,
    ),
    _in_files(
        "status",
        "Status",
        "`ok`, `failed`, or `partial` if only some seeds failed.",
        lambda table, row: row.status,
    ),
    Column(
        key="warnings",
        heading="Warnings",
        help="Reasons to doubt the row. `below` a baseline or `not distinguishable from` it: "
        "pretraining shows no benefit here. `generated images collapsed`: a generator drew nearly "
        "the same image every time. `collapsed features`: fewer than two effective directions. "
        "`scores below 1 in every class but background`: nearly all pixels are called background. "
        "`contaminated`: test images have near-duplicates among the pretraining images. `failed`: "
        "the row, or the seed, has no score. `not better than` an answer at its own task: the "
        "method does not improve on an answer that needs no training, or not beyond its interval.",
        value=_warnings,
        printed=lambda table, row: "; ".join(table.own_warnings(row)),
    ),
)


def named(key: str) -> Column:
    """The column of a key."""
    return next(column for column in COLUMNS if column.key == key)


def shown(place: Place, *sections: Section) -> list[Column]:
    """The columns of an output, in order; those of some sections, if any are named."""
    return [c for c in COLUMNS if place in c.shown_in and (not sections or c.section in sections)]


def present(columns: Iterable[Column], table: Table) -> list[Column]:
    """The columns that say something of some row."""
    return [c for c in columns if any(c.text(table, row) != formats.MISSING for row in table.rows)]
