"""The words of LEADERBOARD.md: settings as sentences, and how to read a board."""

from __future__ import annotations

from typing import Any

from bench import plugins
from bench.board import CEILING, FLOOR, RESAMPLES, Board
from bench.record import Record


def recipe_words(recipe: dict[str, Any], base: dict[str, Any]) -> str:
    """What a recipe says, or in what it differs from `base`, in words."""
    said = {key: value for key, value in recipe.items() if base.get(key, ...) != value}
    words: dict[str, Any] = {
        "images": lambda v: f"{v:,} pictures through the encoder",
        "batch": lambda v: f"batch {v}",
        "crop": lambda v: f"crops of {v} px",
        "crop_scale": lambda v: f"of {v[0]:g} to {v[1]:g} of the area",
        "optimiser": str,
        "learning_rate": lambda v: f"rate {v:g}",
        "betas": lambda v: f"betas {v[0]:g} and {v[1]:g}",
        "weight_decay": lambda v: f"weight decay {v:g}",
        "schedule": lambda v: f"{v} schedule",
        "warmup": lambda v: f"warm-up {v:.0%}",
    }
    return ", ".join(words[key](said[key]) for key in words if key in said)


def chance(found: float | None) -> str | None:
    """A probability in percent; a thousand resamples cannot tell 1 from nearly 1."""
    if found is None:
        return None
    return "> 99 %" if found > 0.99 else f"{100 * found:.0f} %"


def tuning_words(said: dict[str, Any]) -> str:
    """How every row was fine-tuned, in words."""
    rates = " or ".join(f"{rate:g}" for rate in said["learning_rates"])
    words = [
        f"on {said['images']:,} pictures of {said['size']} px in batches of {said['batch']}",
        f"by {said['optimiser']}, {said['schedule']} schedule, rate {rates}: whichever does better",
        f"on {said['held_out']:.0%} of the training list after {said['trial']:.0%} of the budget",
    ]
    kind = said.get("protocol") or said.get("head")
    frozen = ["the encoder frozen"] if said["frozen"] else []
    return ", ".join([*([kind] if kind else []), *frozen, *words[:2]]) + " " + words[2]


EXPLAINED = f"""## How to read this

- **mAP** is the mean over classes of average precision: how well the pictures that show a class
  are ranked before those that do not. **AP50** is the same of detected boxes, right if they
  overlap an object by more than half. **mIoU** is the mean over classes of the overlap of
  predicted and true pixels. 100 is perfect.
- **[95 %]**: what chance in the choice of the test pictures leaves open, and chance in training
  where a row has several seeds. Half of the test pictures are drawn {RESAMPLES:,} times; the
  interval holds the middle 95 % of what the halves give, moved onto the value. It is about the
  value to be expected on other lists of as many pictures from the same source. In simulated
  experiments 93 to 97 of 100 such intervals held it (docs/design.md, "Intervals"); with three
  seeds that differ much, 91 to 99.
- **gap**: the value of `{CEILING}` less the row's. Smaller is better; below 0 beats ImageNet
  labels. Like all differences it is paired: both rows on the same halves, so that what is hard
  for both cancels, and a gap can be surer than the two values.
- **closed**: the share of the way from no training to ImageNet labels, (row - `{FLOOR}`) /
  (`{CEILING}` - `{FLOOR}`).
- **over {FLOOR}**: the row's value less that of `{FLOOR}`, the untrained network.
- **over untrained**: the row's value less that of an untrained network that sees of a picture
  what this one sees: all of it (`{FLOOR}`), lightness only (`{FLOOR}_l`), lightness
  and colour by halves of the network (`{FLOOR}_lab`), or the two sides of the diagonal
  (`{FLOOR}_halves`). Above 0: training helped. Untrained networks differ too.
- **rank**: the places that a row may have. 4-9 among 17 rows says: three rows are better and
  eight worse, each by a difference whose interval does not hold 0; from the others it cannot be
  told. Each pair is judged by itself at 95 %: among many pairs a few are judged wrongly.
- **above next**: how probable it is that the row is better than the one below it: the share of
  the resamples in which it is. 50 % is a toss-up.
- **seeds**: independent runs of pretraining and scoring, whose mean the value is. With one, the
  interval says nothing of how another run would differ. With several it does: their spread,
  less what the pictures explain of it, enters by Student's t, so that two or three seeds make
  wide intervals. `{CEILING}` is one set of weights from elsewhere: its seeds differ in scoring
  alone.
- **flags**: a row `below` an untrained one, or `not distinguishable from` it (the interval of the
  difference holds 0), has shown no benefit here. `generated pictures collapsed`: an adversary's
  generator made nearly the same picture every time. `collapsed features`: fewer than two
  effective directions. `contaminated`: so many test pictures have a near-duplicate in the corpus
  that the row was pretrained on; audit.json beside this file lists them. FAILED: no value; a loss
  or a feature that is not finite fails its row.
- **sees**: what the network is given: rgb, l (lightness), ab (colour), the side above or below
  the diagonal. **parameters**: of the network that was scored.
- **images seen**: pictures that went through the network in pretraining, every view counted.
  **pretraining**: how long it took, on the machine named below. `{CEILING}` comes pretrained
  from elsewhere and shows neither.
- **candidates**: settings tried, the same for every row. **chosen**: what they settled on, on the
  training list alone: a stage of the network and costs of its classifiers, or a learning rate.
- **optimism**: what choosing stage and costs on the test list would have added, in points, as is
  often done. It is not in the value.
- **effective rank**: over how many directions the features of the chosen stage spread, the
  exponential of their spectrum's entropy."""


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
        own = f" Its own recipe: {recipe_words(recipe, base)}." if recipe != base else ""
        lines.append(f"- `{method}`{said}{'.' if about else ''}{own}")
    return "\n".join(lines)


def provenance(board: Board) -> str:
    """Where the numbers come from and how they can be checked."""
    records = [r for table in board.tables for row in table.rows for r in row.records]
    machines = sorted({_machine(r) for r in records if r.environment})
    lines = ["## Where this comes from", ""]
    lines += [
        f"- {len(records)} records beside this file, TASK/METHOD/seedK.json, with the predictions"
        " for every test picture in seedK.npz. This file is computed from them alone (`bench"
        " board`), and every value again from its predictions.",
        f"- Settings that all rows share: SHA-256 `{board.sha256[:16]}`. Records of other settings,"
        " task versions, backbones, pictures or scoring code are refused, never mixed.",
    ]
    unsealed = sum(r.seal is None for r in records)
    if unsealed:
        lines.append(
            f"- {unsealed} of the records carry no seal, so that a change to them, other than to"
            " a value or a prediction, would not be noticed."
        )
    return "\n".join([*lines, *(f"- Made on {machine}." for machine in machines)])


def _machine(found: Record) -> str:
    said = found.environment
    parts = [f"{said.get('processor', 'an unknown processor')}, {said.get('threads', '?')} threads"]
    parts += [f"device {said.get('device', '?')}", f"torch {said.get('torch', '?')}"]
    return ", ".join([*parts, f"ssl-gap {said.get('harness', '?')}"])
