"""The words of LEADERBOARD.md: settings as sentences, and how to read a board."""

from __future__ import annotations

from typing import Any

from bench import plugins
from bench.reporting.leaderboard import CEILING, FLOOR, RESAMPLES, Board, Table
from bench.results.record import Record

KINDS = {
    "fpn": "a feature pyramid",
    "c4": "the last stage in the head (C4)",
    "fcn": "two dilated convolutions at stride 16",
    "fcn32s": "FCN-32s",
}  # of detectors and segmenters, by the words of a suite


def recipe_words(recipe: dict[str, Any], base: dict[str, Any]) -> str:
    """What a recipe says, or in what it differs from `base`, in words."""
    said = {key: value for key, value in recipe.items() if base.get(key, ...) != value}
    crops = "" if "crop" in said else "crops "
    words: dict[str, Any] = {
        "views": lambda v: f"{v:,} inputs",
        "batch": lambda v: f"batch {v}",
        "crop": lambda v: f"crops of {v} px",
        "crop_scale": lambda v: f"{crops}that cover {v[0]:g} to {v[1]:g} of an image",
        "optimizer": str,
        "learning_rate": lambda v: f"learning rate {v:g}",
        "betas": lambda v: f"betas {v[0]:g} and {v[1]:g}",
        "weight_decay": lambda v: f"weight decay {v:g}",
        "schedule": lambda v: f"{v} schedule",
        "warmup": lambda v: f"warm-up {v:.0%}",
    }
    return ", ".join(words[key](said[key]) for key in words if key in said)


def verbatim(text: str) -> str:
    """What somebody else wrote, so that Markdown shows it as it is."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def chance(found: float | None) -> str | None:
    """A probability in percent; a thousand resamples cannot tell 1 from nearly 1."""
    if found is None:
        return None
    return "> 99 %" if found > 0.99 else f"{100 * found:.0f} %"


def tuning_words(said: dict[str, Any]) -> str:
    """How every row was fine-tuned, in words."""
    rates = " or ".join(f"{rate:g}" for rate in said["learning_rates"])
    words = [
        f"with {said['views']:,} random crops of {said['size']} px in batches of {said['batch']}",
        f"by {said['optimizer']}, {said['schedule']} schedule, learning rate {rates}: each is tried"
        f" with {said['trial']:.0%} of the crops, and the one that does best on a held-out"
        f" {said['held_out']:.0%} of the training list is used for all of them",
    ]
    kind = KINDS.get(said.get("protocol") or said.get("head") or "")
    frozen = ["the encoder frozen"] if said["frozen"] else []
    return ", ".join([*([kind] if kind else []), *frozen, *words])


# How many images the official lists hold: VOC devkit, doc/voc.pdf, "Database statistics"; of the
# augmented one, Hariharan et al. 2011 as used by Long et al. 2015.
OFFICIAL = {
    ("VOC2007", "voc", "trainval"): 5011,
    ("VOC2007", "voc", "test"): 4952,
    ("VOC2012", "voc", "train"): 5717,
    ("VOC2012", "voc", "val"): 5823,
    ("VOC2012", "masks", "train_aug"): 10582,
    ("VOC2012", "masks", "val"): 1449,
}


def intro(table: Table) -> list[str]:
    """What a table holds."""
    example = table.example
    known = table.task in plugins.names("tasks")
    about = plugins.describe("tasks", table.task) if known else None
    lines = []
    if about:
        lines += [f"{about.summary} After {about.constants.get('reference', '')}.", ""]
    kind = (example.tuning or {}).get("metric")
    lines += [f"{example.metric}{f', {kind},' if kind else ''} in points, more is better."]
    lines[-1] += f" {_lists(table)} Version {example.task_version} of the task."
    if example.tuning:
        lines[-1] += f" Fine-tuned: {tuning_words(example.tuning)}."
    return [*lines, *_classes(table)]


def _lists(table: Table) -> str:
    """Which lists a table was trained and tested on, and whether they are the official ones."""
    example, voc = table.example, table.example.suite_settings["voc"]
    scenes = example.suite_settings.get("scenes") or {}
    kind = "masks" if "masks_test" in example.data else "voc"
    lists = (example.tuning or {}) | ({} if kind == "masks" else voc)
    said, subset = [], False
    for verb, part in (("trained", "train"), ("tested", "test")):
        count = example.images.get(f"{kind}_{part}") or scenes.get(part)
        count = count or (table.images if part == "test" else None)
        official = OFFICIAL.get((voc["folder"].split("/")[-1], kind, lists[part]))
        said.append(f"{verb} on {f'{count:,} images of ' if count else ''}`{lists[part]}`")
        if count and official and count != official and not scenes:
            said[-1] += f" (the official list has {official:,})"
            subset = True
    found = ", ".join(said)
    return f"{found[0].upper()}{found[1:]}." + (
        " **A subset: these are no official VOC numbers.**" if subset else ""
    )


def _classes(table: Table) -> list[str]:
    """Over which classes the mean is, where some are left out."""
    scores = [row.scored[0].scores for row in table.rows if row.scored]
    left_out = {name for found in scores for name in found.get("excluded_classes") or []}
    if not left_out:
        return []
    every = list(dict.fromkeys(name for found in scores for name in found.get("per_class", {})))
    every += sorted(left_out - set(every))
    counted = [name for name in every if name not in left_out]
    said = f"The mean is over {len(counted)} of {len(every)} classes"
    if len(counted) < len(left_out):
        said += f": {', '.join(counted)}. Of the others the lists hold too few examples."
    else:
        said += f". Left out, with too few examples in the lists: {', '.join(sorted(left_out))}."
    return ["", said]


EXPLAINED = f"""## How to read this

- **mAP** is the mean over classes of average precision (AP): how well the images that show a
  class are ranked before those that do not. **AP50** is the same of detected boxes, right if they
  overlap an object by more than half. **mIoU** is the mean over classes of the overlap of
  predicted and true pixels. 100 is perfect.
- **[95 %]**: how far the value might be from that on other test images. Half of the test
  images are drawn {RESAMPLES:,} times, each half is scored, and the middle 95 % of the scores,
  moved until their mean is the value, are the interval. In simulated experiments 93 to 97 % of
  such intervals of mAP, one seed, held the expected value on other lists of as many images
  (docs/design.md, "Intervals", has the table, and what the intervals do not hold). With several
  seeds their spread is part of it.
- **gap**: the value of `{CEILING}` less the row's. Smaller is better; below 0 beats `{CEILING}`.
  Like all differences it is paired: both rows on the same halves, so that what is hard for both
  cancels, and a difference can be surer than the two values.
- **closed**: the share of the way from `{FLOOR}` to `{CEILING}`: (row - `{FLOOR}`) /
  (`{CEILING}` - `{FLOOR}`). Below 0: less than `{FLOOR}`.
- **over {FLOOR}**: the row's value less that of `{FLOOR}`, the untrained network.
- **over untrained**: the row's value less that of an untrained network that sees of an image
  what this one sees: all of it (`{FLOOR}`), lightness only (`{FLOOR}_l`), lightness
  and color by halves of the network (`{FLOOR}_lab`), or the two sides of the diagonal
  (`{FLOOR}_halves`).
- **rank**: the places that a row may have. 4-9 of 17 says: three rows are better and eight
  worse, each by a difference whose interval excludes 0; from the other five it cannot be told.
  Rows stand in the order of their values; a lower one may have the better range, where its
  differences are surer. Each pair is judged by itself at 95 %: among many pairs a few are adversarial_loss
  wrongly. Whether bars or intervals of two rows overlap decides nothing; `bench compare` shows
  any pair.
- **above next**: the share of the halves in which the row beats the one below it. 50 % is a
  toss-up; from about 97.5 % on the two can be told apart. With one seed it is no probability that
  the method is the better one.
- **seeds**: independent runs of pretraining and scoring, whose mean the value is. With one, the
  interval says nothing of how another run would differ. With several it does, by Student's t on
  their spread, so that two or three seeds make wide intervals. `{CEILING}` is one set of weights
  from elsewhere: its seeds differ in scoring alone.
- **flags**: a row `below` an untrained one, or `not distinguishable from` it (the interval of the
  difference holds 0), has shown no benefit here. `generated images collapsed`: an adversary's
  generator made nearly the same image every time. `collapsed features`: fewer than two
  effective directions. `probe fits unconverged`: some classifiers did not reach their optimum.
  `contaminated`: so many test images have a near-duplicate in the corpus that the row was
  pretrained on. `seed failed`, FAILED: that seed, or the row, has no value; a loss or a feature
  that is not finite fails it.
- **stage**: a network has stages from 0, fine and early, to the last, coarse. **cost**: C of a
  class's support vector machine. **chosen**: what the candidates settled on, on the training list
  alone. **candidates**: how many settings were tried, the same for every row.
- **sees**: what the network is given: rgb, l (lightness), ab (color), the side above or below
  the diagonal. **parameters**: of the network that was scored.
- **inputs seen**: what went through the network in pretraining; every turn, patch or tile of a
  image counts as one, so these are no equal amounts of images. **pretraining**: how long it
  took by the clock, other work on the machine included. `{CEILING}` comes pretrained from
  elsewhere and shows neither.
- **optimism**: how many points higher the value would read if stage and costs had been chosen on
  the test list, as is often done. It is not in the value.
- **effective rank**: over how many directions the features of the chosen stage spread, the
  exponential of their spectrum's entropy. More is not better."""


def methods(board: Board) -> str:
    """What each row's name stands for, and the recipes of their own."""
    known = plugins.names("methods")
    rows = [row for table in board.tables for row in table.rows]
    lines = ["## The methods", ""]
    for method in sorted({row.method for row in rows}):
        about = plugins.describe("methods", method) if method in known else None
        said = f": {about.summary} {about.constants.get('reference', '')}" if about else ""
        recipe = next(row.records[0].recipe for row in rows if row.method == method)
        base = board.settings["pretraining"]
        own = f" Other than above: {recipe_words(recipe, base)}." if recipe != base else ""
        lines.append(f"- `{method}`{said}{'.' if about else ''}{own}")
    return "\n".join(lines)


def provenance(board: Board) -> str:
    """Where the numbers come from and how they can be checked."""
    records = [r for table in board.tables for row in table.rows for r in row.records]
    machines = sorted({_machine(r) for r in records if r.environment})
    lines = ["## Where this comes from", ""]
    lines += [
        f"- {len(records)} records beside this file, TASK/METHOD/seedK.json, with the predictions"
        " for every test image in seedK.npz. This file is computed from them alone (`bench"
        " board`), and every value again from its predictions.",
        f"- Settings that all rows share: SHA-256 `{board.sha256[:16]}`. Records of other settings,"
        " task versions, backbones, images or scoring code are refused, never mixed.",
    ]
    lines.append(
        "- Each record names all settings, the commit, packages and machine of its run, and the"
        " fingerprints of its images."
    )
    if dirty := sum(bool(r.environment.get("dirty")) for r in records):
        lines[-1] += f" {dirty} of them were made with changes that were not committed."
    if board.audit is None:
        lines.append(
            "- Near-duplicates of test images among the pretraining images were not searched"
            " for (`bench audit` does)."
        )
    else:
        count = board.audit.contaminated(board.audit.tests.keys())
        lines.append(
            f"- {count} test images have a near-duplicate among the pretraining images"
            " (audit.json beside this file)."
        )
    lines[-1] += f" What `{CEILING}` has seen elsewhere is unknown."
    return "\n".join([*lines, *(f"- Made on {verbatim(machine)}." for machine in machines)])


def _machine(found: Record) -> str:
    said = found.environment
    parts = [f"{said.get('processor', 'an unknown processor')}, {said.get('threads', '?')} threads"]
    parts += [f"device {said.get('device', '?')}", f"torch {said.get('torch', '?')}"]
    return ", ".join([*parts, f"ssl-gap {said.get('harness', '?')}"])
