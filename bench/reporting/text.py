"""Sentences about leaderboards, tables, tasks, methods and provenance, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import plugins
from bench.config.schema import PRETRAINING, FineTuning, ImageFolder
from bench.errors import UserError, one_line
from bench.plugins import Description, Kind
from bench.reporting import columns
from bench.reporting.format import coefficient, deviation, estimate, settled
from bench.reporting.leaderboard import Leaderboard
from bench.reporting.rows import BASELINE, FINE_TUNED, REFERENCE, Row, Table
from bench.results.record import Record
from bench.statistics.cache import find_metric
from bench.statistics.rank_correlation import FEWEST, RankCorrelation
from bench.statistics.training_runs import Source

LISTED = 4  # rows that a sentence names
KNOWN: dict[Source, str] = {
    "calibration": "**One seed** of {rows}. How far another run would move them is known from the"
    " calibration of the suite, which has several seeds of each.",
    "kind": "**One seed** of {rows}. How far another run would move them is taken from rows like"
    " them that have several seeds.",
    "fixed": "The weights of {rows} come from elsewhere. The interval is about these weights: no"
    " other pretraining is in it.",
}
UNKNOWN = "Training runs: unknown. No row of its kind has several seeds."
RENDERED = (
    "**The images are rendered**: small scenes that the suite draws for itself. No number here can"
    " be compared with a published one."
)
# How many images the official splits have: VOC devkit, doc/voc.pdf, "Database statistics"; of the
# augmented one, Hariharan et al. 2011 as used by Long et al. 2015.
OFFICIAL = {
    ("voc", "VOC2007/trainval"): 5011,
    ("voc", "VOC2007/test"): 4952,
    ("voc", "VOC2012/train"): 5717,
    ("voc", "VOC2012/val"): 5823,
    ("voc", "VOC2012/trainval"): 11540,
    ("voc_masks", "VOC2012/train_aug"): 10582,
    ("voc_masks", "VOC2012/train"): 1464,
    ("voc_masks", "VOC2012/val"): 1449,
    ("voc_masks", "VOC2012/trainval"): 2913,
}
RECIPE: dict[str, Any] = {
    "views": lambda v: f"{v:,} views",
    "batch": lambda v: f"batch {v}",
    "crop": lambda v: f"crops of {v} px",
    "crop_scale": lambda v: f"crop area {v[0]:g} to {v[1]:g} of the image",
    "optimizer": str,
    "learning_rate": lambda v: f"learning rate {v:g}",
    "betas": lambda v: f"betas {v[0]:g} and {v[1]:g}",
    "weight_decay": lambda v: f"weight decay {v:g}",
    "schedule": lambda v: f"{v} schedule",
    "warmup": lambda v: f"warm-up {v:.0%}",
    "milestones": lambda v: f"learning rate drops at {listed(v)}",
    "precision": lambda v: f"precision {v}",
}  # how text names the keys of a recipe


def summary(leaderboard: Leaderboard) -> str:
    """Summary of the suite, as a sentence."""
    text = leaderboard.settings.summary
    return f"{text[0].upper()}{text[1:]}."


def key(leaderboard: Leaderboard) -> list[str]:
    """Key to the tables, and the caveats of all of them."""
    backbone = leaderboard.settings.backbone.name
    paragraphs = [
        f"Each row is one way to pretrain the backbone `{backbone}`. All rows are scored by the"
        " same protocol on the same test images. The **gap** is the score of the"
        f" {REFERENCE} weights minus the score of the row. Brackets are 95% confidence intervals"
        " over test images and over training runs, as far as these are known to vary.",
    ]
    if any(table.backbone for table in leaderboard.tables):
        paragraphs.append(
            "Rows of another backbone have tables of their own, which are named after it."
        )
    if leaderboard.settings.synthetic:
        paragraphs.append(RENDERED)
    return paragraphs


def problems(leaderboard: Leaderboard) -> list[str]:
    """The records that were left out, and why."""
    count = len(leaderboard.problems)
    if not count:
        return []
    what = "1 record is" if count == 1 else f"{count} records are"
    lines = [f"**{what} left out of the tables:**", ""]
    paths = (one_line("/".join(problem.path.parts[-3:])) for problem in leaderboard.problems)
    reasons = (problem.reason for problem in leaderboard.problems)
    pairs = zip(paths, reasons, strict=True)
    return [*lines, *(f"- {verbatim(path)}: {verbatim(reason)}" for path, reason in pairs)]


def lead(table: Table) -> str:
    """The table in a sentence."""
    reference = table.row(table.reference)
    baseline = table.row(table.baseline)
    if reference is None or reference.value is None:
        return f"{table.metric} of {len(table.rows)} methods; no row has the {REFERENCE} weights."
    parts = [f"`{reference.method}` reaches {estimate(reference.value)} {table.metric}"]
    pretrained = [row for row in table.rows if row.role == "pretrained" and row.gap]
    if pretrained:
        best = pretrained[0]
        assert best.gap
        where = "behind" if best.gap.value >= 0 else "behind, so ahead of it"
        gap = f"{estimate(best.gap)} points {where}"
        parts.append(f"of rows pretrained otherwise `{best.method}` is the best, {gap}")
    if baseline and baseline.gap:
        parts.append(f"{BASELINE} is {estimate(baseline.gap)} points behind")
    return f"{'; '.join(parts)}."


def shared_warnings(table: Table) -> list[str]:
    """The warnings that are above a table, since every pretrained row has them."""
    return [f"Warning of every pretrained row: {verbatim(w)}." for w in table.shared_warnings]


def titles(leaderboard: Leaderboard) -> dict[str, str]:
    """Display name of every method that has one: of what is installed, by its docstring."""
    names = dict.fromkeys(row.method for table in leaderboard.tables for row in table.rows)
    found = {name: _described(name) for name in names}
    return {name: about.title for name, about in found.items() if about and about.title}


def _described(method: str) -> Description | None:
    """Description of a method that is installed, variants of inputs and backbone too."""
    try:
        return plugins.describe("methods", method)
    except UserError:
        return None


def legend(kind: Kind, name: str) -> str:
    """What the image of a method or task shows, by the docstring of `visualize`."""
    about = describe(kind, name)
    return about.legend if about else ""


def caveats(leaderboard: Leaderboard, table: Table) -> list[str]:
    """Caveats of one table, one paragraph each."""
    scored = [row for row in table.rows if row.scored]
    paragraphs = [*_benefit(table), *_doubt(table)]
    subset = _subset(table)
    if subset:
        paragraphs.append(subset)
    if table.reference and table.baseline and not any(row.gap_closed for row in scored):
        paragraphs.append(
            f"No **gap closed**: {REFERENCE} is not significantly better than {BASELINE}."
        )
    failed = [
        f"`{row.method}`, seed {record.seed}: {verbatim(record.error)}"
        for row in table.rows
        for record in row.records
        if record.error
    ]
    return paragraphs + (["**Failed cells**: " + "; ".join(failed)] if failed else [])


def _benefit(table: Table) -> list[str]:
    """Number of methods that beat random init; nothing where that cannot be said."""
    if table.above_baseline is None:
        return []
    known = [row for row in table.known if row.role == "pretrained"]
    better = len(table.above_baseline)
    verb = "beats" if better == 1 else "beat"
    count = f"{better} of {len(known)} pretrained methods"
    names = [row.method for row in known if row.method in table.above_baseline]
    which = f": {listing(names)}" if 0 < better < min(len(known), LISTED + 1) else ""
    return [f"{count} {verb} {BASELINE}, tested jointly at 95%{which}."]


def _doubt(table: Table) -> list[str]:
    """Where the training runs' share of the intervals comes from, and where there is none."""
    rows = [row for row in table.rows if row.value and row.value.interval]
    unknown = [row.method for row in rows if row.runs.source == "unknown"]
    paragraphs = []
    if table.images_only:
        paragraphs.append(
            "**Test images only.** No row has several seeds, and no calibration holds for the"
            " suite. So the intervals say nothing of another run, which would move a row by an"
            " amount that is not known here. No rank and no probability is claimed."
        )
    elif unknown:
        paragraphs.append(
            f"**Test images only** for {listing(unknown)}: no row of that kind has several seeds."
            " No rank and no probability is claimed of them; ranks are among the other rows. A"
            " difference to one of them includes the runs of the other row only."
        )
    paragraphs += [_known(source, rows) for source in KNOWN if _known(source, rows)]
    return paragraphs


def _known(source: Source, rows: Iterable[Row]) -> str:
    """How the training runs of the rows of one source are known; empty if there are none."""
    methods = [row.method for row in rows if row.runs.source == source]
    return KNOWN[source].format(rows=listing(methods)) if methods else ""


def runs_known(row: Row) -> str:
    """How the training runs of a row are known, in a sentence or two; empty of a failed row."""
    runs = row.runs
    if not row.scored or runs.source == "unknown":
        return UNKNOWN if row.scored else ""
    if runs.source == "fixed":
        return "Training runs: none, its weights are fixed."
    assert runs.spread is not None
    if not runs.spread.varies:
        return "Training runs: its seeds do not differ."
    source = {
        "seeds": f"by its own {len(row.scored)} seeds",
        "calibration": "by its seeds in the suite's calibration",
        "kind": "by rows of its kind",
    }[runs.source]
    others = runs.rows - (runs.source != "kind")
    counted = f"{others} row{'s' if others != 1 else ''} of its kind"
    if runs.source == "kind":
        source = f"by {counted}"
    elif others:
        source += f" and those of {counted}"
    sd = deviation(runs.spread.variance**0.5)
    return f"Training runs: {source}. One run varies by {sd} points (sd)."


def needed(row: Row, table: Table) -> list[str]:
    """What would tell a pretrained row from the next row and from the baseline, where it is not."""
    if row.role != "pretrained":
        return []
    names = [other.method for other in table.rows if other.scored]
    following = names[names.index(row.method) + 1 :][:1] if row.method in names else []
    sentences = []
    for other in dict.fromkeys([*following, table.baseline]):
        pair = table.pairs.get((row.method, other)) if other else None
        if pair is None or pair.needed is None or pair.difference.interval is None:
            continue
        low, high = pair.difference.interval
        if low <= 0 <= high:
            about = "the next row, " if other in following else ""
            ways = settled(pair.difference, pair.needed)
            sentences.append(f"From {about}{other}: {ways}.")
    return sentences


def listing(names: Sequence[str]) -> str:
    """Names in code, the last after `and`; many are counted."""
    if len(names) > LISTED:
        return f"{len(names)} rows"
    texts = [f"`{name}`" for name in names]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def agreement(leaderboard: Leaderboard) -> list[str]:
    """What the rank correlations between tasks are of, and whether frozen probes predict others."""
    found = {pair: c for pair, c in leaderboard.correlations.items() if c.estimate}
    counts = sorted({len(c.methods) for c in found.values()})
    number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    tables = [t for t in leaderboard.tables if any(t.task in pair for pair in found)]
    unknown = [f"`{t.task}`" for t in tables if _unknown_runs(t)]
    paragraphs = [
        f"Kendall's tau-b between the scores of the {number} methods that were pretrained here and"
        " have both scores. 1 is the same order, -1 the opposite one."
        f" {REFERENCE} and untrained rows are left out, since they would decide it. Brackets are"
        " 95% intervals for the expected scores of these methods, over test images and training"
        " runs."
        " Noise pulls the number itself towards 0, so it may be near one end. Which methods there"
        " are is not in the interval: others may correlate otherwise."
    ]
    if unknown:
        paragraphs.append(
            f"**Test images only** in {', '.join(unknown)}: it is not known how far another run"
            " would move a row there. Intervals with these tasks are too narrow."
        )
    return paragraphs + _predictions(leaderboard)


def _unknown_runs(table: Table) -> bool:
    """Whether nothing is known of the training runs of any method pretrained here."""
    rows = [row for row in table.rows if row.role == "pretrained" and row.scored]
    return any(row.runs.source == "unknown" for row in rows)


def _predictions(leaderboard: Leaderboard) -> list[str]:
    """Of every fine-tuned task, whether the frozen probes order methods as it does."""
    own = [table for table in leaderboard.tables if not table.backbone]
    frozen = [table.task for table in own if not _fine_tuned(table)]
    sentences = []
    for table in own if frozen else []:
        if _fine_tuned(table):
            pairs = {k: c for k, c in leaderboard.correlations.items() if table.task in k}
            probes = {task: c for k, c in pairs.items() for task in k if task in frozen}
            sentences.append(
                f"Do frozen probes predict `{table.task}` ({table.metric})? {_answer(probes)}"
            )
    return sentences


def _fine_tuned(table: Table) -> bool:
    return any(row.runs.kind == FINE_TUNED for row in table.rows)


def _answer(probes: Mapping[str, RankCorrelation]) -> str:
    """How many probes correlate with a task, by their intervals."""
    found = {task: c.estimate for task, c in probes.items() if c.estimate}
    if not found:
        most = max(len(c.methods) for c in probes.values())
        return f"Not known: methods with both scores: {most}, needed: {FEWEST}."
    shown = ", ".join(f"`{task}` {coefficient(e)}" for task, e in found.items())
    known = [task for task in found if probes[task].runs]
    if not known:
        return f"Not claimed, since training runs are not known: {shown}."
    above = [task for task in known if (found[task].low or 0) > 0]
    verb = "does" if len(above) == 1 else "do"
    return f"{len(above)} of {len(known)} {verb}, by an interval above 0: {shown}."


def setup(leaderboard: Leaderboard) -> list[tuple[str, str]]:
    """Settings that all rows share: name and text."""
    settings = leaderboard.settings
    records = [r for table in leaderboard.tables for row in table.rows for r in row.scored]
    split = f"{PRETRAINING}_train"
    counts = {r.num_images[split] for r in records if split in r.num_images}
    synthetic = settings.synthetic
    count = max(counts, default=synthetic and synthetic.pretraining)
    folder = settings.datasets[PRETRAINING]
    assert isinstance(folder, ImageFolder)
    images = "rendered scenes" if synthetic else "images"
    source = f"{images} of `{folder.train}`"
    if folder.decoder != "pillow":
        source += f", decoded by {folder.decoder}"
    recipe = settings.pretraining.model_dump(mode="json")
    return [
        ("backbone", f"`{settings.backbone.name}`; of two branches, each has half the width"),
        ("pretraining images", f"{f'{count:,} ' if count else ''}{source}"),
        ("pretraining recipe, unless a method has its own", recipe_text(recipe)),
    ]


def recipe_text(recipe: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> str:
    """A recipe, or in what it differs from `base`."""
    values = {k: v for k, v in recipe.items() if base is None or base.get(k, ...) != v}
    if base is None:
        values = {k: v for k, v in values.items() if v not in ([], "auto")}
    texts = [words(values[k]) for k, words in RECIPE.items() if k in values]
    return ", ".join([*texts, *_pairs({k: v for k, v in values.items() if k not in RECIPE})])


def _pairs(settings: Mapping[str, Any]) -> list[str]:
    """Other settings as name and value."""
    return [f"{name.replace('_', ' ')} {listed(value)}" for name, value in settings.items()]


def listed(value: Any) -> str:
    """A setting's value."""
    if isinstance(value, list | tuple):
        return " / ".join(map(listed, value)) if value else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def protocol(table: Table) -> list[str]:
    """Protocol of a task's rows, one paragraph each."""
    example = table.example
    about = describe("tasks", table.task)
    paragraphs = []
    if about:
        paragraphs.append(" ".join([about.summary, *_after(about)]))
    paragraphs.append(
        f"{_data(table)} Metric: {table.metric}, in points. Task version {example.task_version}."
    )
    settings = dict(example.task_settings)
    if settings.keys() >= FineTuning.model_fields.keys():
        paragraphs.append(_fine_tuning(settings))
        settings = {k: v for k, v in settings.items() if k not in FineTuning.model_fields}
    settings.pop("dataset", None)
    if settings:
        paragraphs.append(f"Settings: {', '.join(_pairs(settings))}.")
    return paragraphs + _classes(table)


def _after(about: Description) -> list[str]:
    reference = about.constants.get("reference")
    return [f"After {reference}."] if reference else []


def describe(kind: Kind, name: str) -> Description | None:
    """Description of a plug-in by its file; None if it did not ship with the project."""
    try:
        return plugins.describe(kind, name) if name in plugins.names(kind) else None
    except UserError:  # its file was changed so that it cannot be read
        return None


def _fine_tuning(settings: Mapping[str, Any]) -> str:
    """Fine-tuning protocol of every row, as sentences."""
    rates = " or ".join(f"{rate:g}" for rate in settings["learning_rates"])
    selection = (
        f" Each rate is tried on {settings['selection_fraction']:.0%} of the crops. The best on a"
        f" held-out {settings['validation_fraction']:.0%} of the training split is used for all"
        " crops."
    )
    frozen = "with the encoder frozen, " if settings["frozen"] else ""
    return (
        f"Fine-tuned {frozen}on {settings['views']:,} random crops of {settings['size']} px in"
        f" batches of {settings['batch']}: {settings['optimizer']}, {settings['schedule']}"
        f" schedule, learning rate {rates}.{selection if settings['selection_fraction'] else ''}"
    )


def _data(table: Table) -> str:
    """The splits that a table was trained and tested on."""
    parts = []
    for verb, part in (("Trained", "train"), ("tested", "test")):
        count = _num_images(table, part)
        images = f"{count:,} images of " if count else ""
        parts.append(
            f"{verb} on {images}{' + '.join(f'`{name}`' for name in _splits(table, part))}"
        )
    rendered = table.example.suite_settings.synthetic is not None
    note = " The images are rendered, in the layout of these splits." if rendered else ""
    return f"{', '.join(parts)}.{note}"


def _splits(table: Table, part: str) -> tuple[str, ...]:
    """The splits of the task's data set that are its training or test split."""
    record = table.example
    section = record.suite_settings.datasets.get(record.dataset)
    names = getattr(section, part, record.dataset)
    return names if isinstance(names, tuple) else (names,)


def _num_images(table: Table, part: str) -> int | None:
    record = table.example
    count = record.num_images.get(f"{record.dataset}_{part}")
    synthetic = record.suite_settings.synthetic
    if count is None and synthetic:
        count = getattr(synthetic, part)
    return count or (table.num_images if part == "test" else None)


def _subset(table: Table) -> str:
    """Splits with fewer or more images than the official ones; empty if none."""
    record = table.example
    section = record.suite_settings.datasets.get(record.dataset)
    if record.suite_settings.synthetic or section is None:
        return ""
    texts = []
    for part in ("train", "test"):
        names = _splits(table, part)
        count = _num_images(table, part)
        official = sum(OFFICIAL.get((section.kind, name), 0) for name in names)
        known = all((section.kind, name) in OFFICIAL for name in names)
        if known and count and count != official:
            texts.append(f"{' + '.join(names)} has {count:,} images, officially {official:,}")
    return f"**A subset of VOC, no official numbers**: {'; '.join(texts)}." if texts else ""


def _classes(table: Table) -> list[str]:
    """Over which classes the mean is, where some are left out."""
    records = [row.scored[0] for row in table.rows if row.scored]
    excluded = {name for record in records for name in record.excluded_classes}
    if not excluded:
        return []
    every = list(dict.fromkeys(name for record in records for name in record.per_class))
    every += sorted(excluded - set(every))
    counted = [name for name in every if name not in excluded]
    text = f"The mean is over {len(counted)} of {len(every)} classes"
    if len(counted) < len(excluded):
        return [f"{text}: {', '.join(counted)}. The others have too few examples."]
    return [f"{text}. Left out, with too few examples: {', '.join(sorted(excluded))}."]


def glossary(tables: Iterable[Table]) -> list[str]:
    """Every column and metric explained."""
    lines = [f"- **{label}**: {help_}" for label, help_ in _metrics(tables).items()]
    for column in columns.COLUMNS:
        if column.section != "file":
            heading = column.heading.format(metric="Score", only="")
            name = f" (`{column.key}`)" if "csv" in column.shown_in else ""
            lines.append(f"- **{heading}**{name}: {column.help}")
    only = columns.shown("csv", "file")
    lines += ["", "Only in leaderboard.csv and DataFrames:", ""]
    return lines + [f"- `{column.key}`: {column.help}" for column in only]


def _metrics(tables: Iterable[Table]) -> dict[str, str]:
    """The metrics of some tables: label -> what it is."""
    texts = {}
    for table in tables:
        metric, _ = find_metric(table.example.metric)
        text = (type(metric).__doc__ or "").strip().splitlines() if metric else []
        if metric and text:
            texts[metric.label] = text[0]
    return texts


def methods(leaderboard: Leaderboard) -> list[str]:
    """Meaning of each row's name, and its own recipe."""
    base = leaderboard.settings.pretraining.model_dump(mode="json")
    rows: dict[str, Row] = {}
    for table in leaderboard.tables:
        for row in table.rows:
            rows.setdefault(row.method, row)
    return [_method(name, rows[name], base) for name in sorted(rows)]


def _method(name: str, row: Row, base: Mapping[str, Any]) -> str:
    about = describe("methods", name)
    if about and about.origin == "spec":
        about = None  # another process knows what the record says, and no more
    read = row.records[0].weights
    parts = [f"`{name}`"]
    if read and not about:
        source = read.get("weights") or read.get("layout")
        parts = [f"`{name}`: weights from elsewhere ({verbatim(str(source))})."]
    elif about:
        reference = about.constants.get("reference", "")
        parts = [f"`{name}`: {about.summary}", *([f"{reference}."] if reference else [])]
    elif row.role == "untrained" and row.inputs:
        parts = [f"`{name}`: untrained, inputs {', '.join(row.inputs)}."]
    source = row.records[0].provenance.source
    parts += [f"Source: <{source}>."] if source else []
    recipe = row.records[0].recipe
    own = recipe_text(recipe, base) if recipe else ""
    if own:
        parts.append(f"Own recipe: {own}.")
    return f"- {' '.join(parts)}"


def provenance(leaderboard: Leaderboard) -> list[str]:
    """Provenance of the numbers, and how to check them."""
    records = [r for table in leaderboard.tables for row in table.rows for r in row.records]
    lines = [
        f"- {len(records)} records beside this file, TASK/METHOD/seedK.json. Beside each are the"
        " predictions for every test image, seedK.npz. `bench leaderboard` computes this file and"
        " every score again from them.",
        f"- Settings that all rows share: SHA-256 `{leaderboard.sha256[:16]}`. Records of other"
        " settings, versions, backbones or images are refused.",
        "- Each record names its settings, commit, packages, machine and fingerprints of images.",
    ]
    dirty = sum(bool(record.environment.get("dirty")) for record in records)
    if dirty:
        lines[-1] += f" {dirty} of them ran with changes that were not committed."
    lines.append(f"- {_code(records)}")
    lines.append(
        f"- {_audit(leaderboard)} Which images the {REFERENCE} weights have seen is unknown."
    )
    machines = sorted({_machine(record) for record in records if record.environment})
    trained = sorted({place for record in records for place in _trained_on(record)})
    return [
        *lines,
        *(f"- Run on {verbatim(machine)}." for machine in machines),
        *(f"- Networks were trained on {verbatim(place)}." for place in trained),
    ]


def _code(records: Sequence[Record]) -> str:
    """Commits of the code that computed the records, most records first."""
    commits = Counter((r.environment.get("commit") or "")[:8] or "no commit" for r in records)
    named = [f"{commit} ({count} records)" for commit, count in commits.most_common()]
    return f"Code of the records, by commit of ssl-gap: {', '.join(named)}."


def _audit(leaderboard: Leaderboard) -> str:
    if leaderboard.audit is None:
        return (
            "Nobody searched the pretraining images for near-duplicates of test images (`bench"
            " audit` does)."
        )
    count = leaderboard.audit.contaminated(leaderboard.audit.tests.keys())
    return f"{count} test images have a near-duplicate among the pretraining images (audit.json)."


def _machine(record: Record) -> str:
    about = record.environment
    parts = [
        f"{about.get('processor', 'an unknown processor')}, {about.get('threads', '?')} threads",
        f"device {about.get('device', '?')}",
        f"torch {about.get('torch', '?')}",
        f"ssl-gap {about.get('harness', '?')}",
    ]
    return ", ".join(parts)


def _trained_on(record: Record) -> list[str]:
    """Where the networks behind a record were trained, which may be long before it."""
    traces = (record.pretraining.trace, record.training)
    return [place for trace in traces if trace for place in trace.machines]


def verbatim(text: str) -> str:
    """Text of somebody else as inline code, so that Markdown changes nothing in it."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
