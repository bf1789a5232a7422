"""How often the intervals and rank ranges of a whole board hold, simulated.

`python benchmarks/coverage.py --boards N` runs it: N boards of every shape, spread and ratio. All
scores are normal. The variance of a score over test images is in part common to all rows, in part a
row's own, in part that of one run. Training moves every run by a standard deviation of its row; the
standard deviations are log-normal. Half of the boards have the images' standard deviation of 500
test images, half that of 5,000; half have equal rows, half rows that differ by about the width of
an interval. Everything is computed by the functions of the leaderboard.

The oracle knows the law of the standard deviations and all variances of images, and sees the same
seeds; its intervals are quantiles of a mixture of normal laws.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import t as student

from bench.statistics import model, simultaneous
from bench.statistics.model import Kind, Seeds, Spread
from bench.statistics.scores import RowScore, row_score
from bench.statistics.training_runs import Runs

IMAGES = (1.4, 0.45)  # points: standard deviation over 500 and over 5,000 test images
COMMON, ROW, RUN = 0.5, 0.3, 0.2  # of that variance: of all rows, of a row, of one run
RESAMPLES = 300
CALIBRATION = 5  # seeds of a row in a calibration
TAILS = (0.025, 0.975)
NORMAL = np.linspace(-3.6, 3.6, 25)  # log sd of training, in spreads, for the oracle
SPREADS = (0.0, 0.6, 1.0)
RATIOS = (0.0, 0.3, 1.0, 2.0, 6.0)
ENOUGH = 8  # degrees of freedom, from which on the width is bounded
LOWEST = {"one seed": 93.0, "k seeds": 94.0, "gaps": 94.0, "ranks": 94.0}  # %
LARGEST = 1.2  # width, in the oracle's

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """The rows of a board.

    Attributes:
        several: rows of `seeds` seeds.
        seeds: of each of them.
        single: rows of one seed.
        calibrated: of the rows of one seed, how many the calibration has.
        absent: rows that the calibration alone has.
    """

    several: int
    seeds: int
    single: int
    calibrated: int = 0
    absent: int = 0

    @property
    def rows(self) -> int:
        """All rows."""
        return self.several + self.single

    @property
    def degrees(self) -> int:
        """Degrees of freedom of what is known of the variances."""
        calibrated = self.calibrated + self.absent
        return self.several * (self.seeds - 1) + calibrated * (CALIBRATION - 1)

    def __str__(self) -> str:
        parts = [f"{self.several} x {self.seeds}"] if self.several else []
        parts += [f"{self.single} x 1"] if self.single else []
        calibrated = self.calibrated + self.absent
        suffix = f", calibration {calibrated} x {CALIBRATION}" if calibrated else ""
        return " + ".join(parts) + suffix


SHAPES = (
    Shape(1, 5, 1),
    Shape(2, 2, 1),
    Shape(4, 2, 2),
    Shape(4, 3, 2),
    Shape(6, 2, 6),
    Shape(4, 5, 8),
    Shape(12, 3, 0),
    Shape(5, 3, 12),
    Shape(12, 5, 5),
    Shape(0, 1, 2, calibrated=1, absent=11),
    Shape(0, 1, 17, calibrated=12),
)


@dataclass(frozen=True)
class Scenario:
    """Boards of one shape.

    Attributes:
        shape: the rows.
        spread: of the logarithms of the rows' standard deviations of training.
        ratio: their median, in standard deviations over images.
    """

    shape: Shape
    spread: float
    ratio: float


class Known(Spread):
    """A spread that computes its quantiles once: rows of one seed share one."""

    def quantiles(self, probabilities: Floats, seeds: float = 1) -> Floats:
        """Those of `Spread`."""
        kept: dict[tuple[int, float], Floats] = self.__dict__.setdefault("kept", {})
        key = len(probabilities), seeds
        if key not in kept:
            kept[key] = super().quantiles(probabilities, seeds)
        return kept[key]


@dataclass
class Board:
    """One simulated board: what is true, and what is seen.

    Attributes:
        images: standard deviation over test images.
        means: (R,) mu_r.
        training: (R,) standard deviations of training.
        seeds: (R,) how many seeds of a row the board has.
        values: (R, S) scores; a calibrated row's further seeds are the calibration's.
        told: (R,) how many of them tell of a row's variance.
        resampled: (R, S, B) the same on resamples of the images.
        absent: (A, S) scores of rows that the calibration alone has.
    """

    images: float
    means: Floats
    training: Floats
    seeds: NDArray[np.int64]
    told: NDArray[np.int64]
    values: Floats
    resampled: Floats
    absent: Floats


def simulate(scenario: Scenario, rng: np.random.Generator, number: int) -> Board:
    """A board, by its number with images of either kind and with equal rows or others."""
    shape = scenario.shape
    images = IMAGES[number % 2]
    size = (shape.rows, max(shape.seeds, CALIBRATION if shape.calibrated else 1), RESAMPLES + 1)
    median = images * scenario.ratio
    training = median * np.exp(scenario.spread * rng.normal(size=shape.rows))
    apart = 2 * images * np.hypot(1, scenario.ratio) * (number // 2 % 2)
    means = 40 + apart * rng.normal(size=shape.rows)
    of_all = np.sqrt(COMMON) * rng.normal(size=RESAMPLES + 1)
    of_row = np.sqrt(ROW) * rng.normal(size=(shape.rows, 1, RESAMPLES + 1))
    moves = images * (of_all + of_row + np.sqrt(RUN) * rng.normal(size=size))
    runs = training[:, None] * rng.normal(size=size[:2])
    values = means[:, None] + moves[..., 0] + runs
    seeds = np.repeat([shape.seeds, 1], [shape.several, shape.single])
    told = seeds.copy()
    told[shape.several :][: shape.calibrated] = CALIBRATION
    others = median * np.exp(scenario.spread * rng.normal(size=(shape.absent, 1)))
    absent = np.hypot(others, np.sqrt(RUN) * images) * rng.normal(size=(shape.absent, CALIBRATION))
    resampled = values[..., None] + moves[..., 1:]
    return Board(images, means, training, seeds, told, values, resampled, absent)


def known_runs(board: Board) -> list[Runs]:
    """What is known of the training runs of every row, as `training_runs` puts it together."""
    rows = {str(r): Seeds.of(board.values[r, :k]) for r, k in enumerate(board.told) if k > 1}
    rows |= {f"absent {a}": Seeds.of(values) for a, values in enumerate(board.absent)}
    kind = Kind({name: seeds for name, seeds in rows.items() if seeds})
    shares = {
        r: model.interaction(board.resampled[r, : board.told[r]])
        for r in range(len(board.means))
        if board.told[r] > board.seeds[r]
    }
    mean = float(np.mean([*shares.values()])) if shares else 0.0
    unseen = kind.spread("a row of one seed")
    common = Known(unseen.sds, unseen.weights) if unseen else None
    return [
        Runs(kind.spread(str(r)) if k > 1 else common, shares.get(r, mean))
        for r, k in enumerate(board.told)
    ]


def scored(board: Board) -> list[RowScore]:
    """The rows as the leaderboard has them."""
    rows = []
    for r, runs in enumerate(known_runs(board)):
        count = board.seeds[r]
        both = np.concatenate([board.values[r, :count, None], board.resampled[r, :count]], axis=1)
        rows.append(row_score(f"row {r}", list(both), runs))
    return rows


def by_students_t(board: Board, rows: Sequence[RowScore], rng: np.random.Generator) -> Floats:
    """Samples (R, B) as they were before: images, and Student's t of a row's own seeds."""
    samples = np.array([row.images for row in rows])
    p = (np.arange(RESAMPLES) + 0.5) / RESAMPLES
    for r, count in enumerate(board.seeds):
        if count > 1:
            own = board.values[r, :count]
            share = model.interaction(board.resampled[r, :count]) or 0.0
            common = (1 - share) / (1 - share + share / count) if share < 1 else 0.0
            runs = student.ppf(p, count - 1) * own.std(ddof=1) / np.sqrt(count)
            center = samples[r].mean()
            moves = np.sqrt(common) * (samples[r] - center)
            samples[r] = center + moves + rng.permutation(runs)
    return samples


def mixture_quantile(variances: Floats, weights: Floats) -> Floats:
    """The 97.5% quantiles of mixtures of normal laws about 0, by halving.

    Args:
        variances: (N, G).
        weights: (N, G), rows sum to 1.
    """
    sds = np.sqrt(variances)
    low = np.zeros(len(sds))
    high = 10 * sds.max(axis=1)
    for _ in range(20):
        middle = (low + high) / 2
        below = (ndtr(middle[:, None] / sds) * weights).sum(axis=1) < TAILS[1]
        low = np.where(below, middle, low)
        high = np.where(below, high, middle)
    return (low + high) / 2


def oracle(scenario: Scenario, board: Board) -> tuple[Floats, Floats]:
    """Variances (R, G) that a run may have, and their probabilities, where the law is known."""
    law = board.images * scenario.ratio * np.exp(scenario.spread * NORMAL)
    variances = np.broadcast_to(law**2 + RUN * board.images**2, (len(board.means), len(law)))
    log = np.broadcast_to(-(NORMAL**2) / 2, variances.shape).copy()
    for r, k in enumerate(board.told):
        if k > 1:
            ratio = board.values[r, :k].var(ddof=1) / variances[r]
            log[r] += (k - 1) / 2 * (np.log(ratio) - ratio)
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    return variances, weights / weights.sum(axis=1, keepdims=True)


def oracle_widths(scenario: Scenario, board: Board) -> tuple[Floats, float]:
    """The oracle's width of every row (R,), and of the last row less the first."""
    variances, weights = oracle(scenario, board)
    images = board.images**2
    means = variances / board.seeds[:, None]
    rows = 2 * mixture_quantile((COMMON + ROW) * images + means, weights)
    gap = (2 * ROW * images + means[-1][:, None] + means[0]).reshape(1, -1)
    both = (weights[-1][:, None] * weights[0]).reshape(1, -1)
    return rows, float(2 * mixture_quantile(gap, both)[0])


def intervals(samples: Floats) -> Floats:
    """The ends of intervals (N, 2) of samples (N, B) that are centered on their values."""
    ends: Floats = np.quantile(samples, TAILS, axis=1).T
    return ends


def hold(ends: Floats, true: Floats) -> Bools:
    """Which of the intervals (N, 2) contain the true values (N,)."""
    return (ends[:, 0] <= true) & (true <= ends[:, 1])


def ranks_hold(means: Floats, above: set[tuple[str, str]]) -> bool:
    """Whether the rank ranges that follow from some pairs hold for all rows."""
    count = len(means)
    for r, mean in enumerate(means):
        ranks = simultaneous.from_pairs(str(r), count, above)
        better, worse = (means > mean).sum(), (means < mean).sum()
        if ranks.first > 1 + better or ranks.last < count - worse:
            return False
    return True


def ordered(pairs: Iterable[tuple[int, int]], values: Floats) -> set[tuple[str, str]]:
    """Pairs of different rows with the better one first."""
    return {(str(i), str(j)) if values[i] > values[j] else (str(j), str(i)) for i, j in pairs}


@dataclass
class Measured:
    """What is measured of boards of one scenario, concatenated over boards.

    Attributes:
        several: whether a row has several seeds, for each row.
        training: its standard deviation of training, in those of images.
        rows: whether its interval holds.
        rows_images: the same with images alone.
        widths: of its interval, in the oracle's.
        gaps: whether the interval of one row less the next holds.
        gaps_images: the same with images alone.
        gap_widths: of the last row less the first, in the oracle's.
        equal: whether a board's rows are equal.
        ranks: whether all of its rank ranges hold.
        ranks_before: the same, by pairs and Student's t.
    """

    several: list[bool] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    rows: list[bool] = field(default_factory=list)
    rows_images: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    gaps: list[bool] = field(default_factory=list)
    gaps_images: list[bool] = field(default_factory=list)
    gap_widths: list[float] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)
    ranks: list[bool] = field(default_factory=list)
    ranks_before: list[bool] = field(default_factory=list)

    def add(self, scenario: Scenario, number: int) -> None:
        """Simulate a board and measure it."""
        seed = [SHAPES.index(scenario.shape), int(10 * scenario.spread), int(10 * scenario.ratio)]
        rng = np.random.default_rng([*seed, number])
        board = simulate(scenario, rng, number)
        rows = scored(board)
        samples = np.array([row.samples for row in rows])
        images = np.array([row.images for row in rows])
        width, gap_width = oracle_widths(scenario, board)
        ends = intervals(samples)
        self.several += (board.seeds > 1).tolist()
        self.training += (board.training / board.images).tolist()
        self.rows += hold(ends, board.means).tolist()
        self.rows_images += hold(intervals(images), board.means).tolist()
        self.widths += (np.ptp(ends, axis=1) / width).tolist()
        true = board.means - np.roll(board.means, -1)
        gaps = intervals(samples - np.roll(samples, -1, axis=0))
        self.gaps += hold(gaps, true).tolist()
        gaps_images = intervals(images - np.roll(images, -1, axis=0))
        self.gaps_images += hold(gaps_images, true).tolist()
        self.gap_widths.append(float(np.ptp(gaps[-1])) / gap_width)
        self._add_ranks(board, samples, by_students_t(board, rows, rng))

    def _add_ranks(self, board: Board, samples: Floats, before: Floats) -> None:
        pairs = list(combinations(range(len(samples)), 2))
        values = samples.mean(axis=1)
        family = {(i, j): samples[i] - samples[j] for i, j in pairs}
        jointly = ordered(simultaneous.different(family), values)
        ends = intervals(np.array([before[i] - before[j] for i, j in pairs]))
        alone = [pair for pair, (low, high) in zip(pairs, ends, strict=True) if low > 0 or high < 0]
        self.equal.append(bool(np.ptp(board.means) == 0))
        self.ranks.append(ranks_hold(board.means, jointly))
        self.ranks_before.append(ranks_hold(board.means, ordered(alone, values)))


HEADERS = (
    "rows x seeds",
    "degrees",
    "spread",
    "training / images",
    "one seed",
    "images only",
    "least third",
    "middle",
    "largest",
    "width / oracle",
    "k seeds",
    "images only",
    "width / oracle",
    "gaps",
    "images only",
    "width / oracle",
    "ranks: equal rows",
    "other rows",
    "before: equal",
    "other",
)


def measure(boards: int, widest: float | None, scenario: Scenario) -> dict[str, Floats]:
    """The measurements of boards of one scenario."""
    if widest:
        model.WIDEST = widest
    measured = Measured()
    for number in range(boards):
        measured.add(scenario, number)
    return {name: np.array(values) for name, values in vars(measured).items()}


def percent(values: Floats | Bools) -> float:
    """Share that is true, in percent; nan of nothing."""
    return 100 * float(np.mean(values)) if len(values) else np.nan


def summarize(found: dict[str, Floats]) -> list[float]:
    """The numbers of a line of the table, after the scenario."""
    several = found["several"].astype(bool)
    single = ~several
    training = found["training"][single]
    thirds = [np.nan] * 3
    if len(training) and np.ptp(training) > 1e-9:
        parts = np.array_split(found["rows"][single][np.argsort(training)], 3)
        thirds = [percent(part) for part in parts]
    equal = found["equal"].astype(bool)
    of_several = [percent(found[name][several]) for name in ("rows", "rows_images")]
    return [
        percent(found["rows"][single]),
        percent(found["rows_images"][single]),
        *thirds,
        float(np.median(found["widths"][single])) if single.any() else np.nan,
        *of_several,
        float(np.median(found["widths"][several])) if several.any() else np.nan,
        percent(found["gaps"]),
        percent(found["gaps_images"]),
        float(np.median(found["gap_widths"])),
        percent(found["ranks"][equal]),
        percent(found["ranks"][~equal]),
        percent(found["ranks_before"][equal]),
        percent(found["ranks_before"][~equal]),
    ]


def cells(numbers: Iterable[float]) -> list[str]:
    """Numbers as text: shares with one digit, ratios of widths with two."""
    texts = []
    for header, number in zip(HEADERS[4:], numbers, strict=True):
        digits = 2 if header.startswith("width") else 1
        texts.append("" if np.isnan(number) else f"{number:.{digits}f}")
    return texts


def line(texts: Iterable[object]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, texts))} |"


def run(boards: int, processes: int, widest: float | None) -> int:
    """Simulate every scenario, print the table and its summary; 1 if a claim fails.

    Args:
        boards: of every scenario.
        processes: that share the work.
        widest: in place of `model.WIDEST`.
    """
    start = time.monotonic()
    scenarios = [Scenario(*each) for each in product(SHAPES, SPREADS, RATIOS)]
    print(line(HEADERS), line(["---:"] * len(HEADERS)), sep="\n", flush=True)
    table = []
    with ProcessPoolExecutor(processes) as pool:
        results = pool.map(partial(measure, boards, widest), scenarios)
        for scenario, found in zip(scenarios, results, strict=True):
            numbers = summarize(found)
            table.append(numbers)
            about = [scenario.shape, scenario.shape.degrees, scenario.spread, scenario.ratio]
            print(line([*about, *cells(numbers)]), flush=True)
    held = print_summary(scenarios, np.array(table))
    print(f"\n{boards} boards of each, {time.monotonic() - start:.0f} s")
    return int(not held)


def print_summary(scenarios: Sequence[Scenario], table: Floats) -> bool:
    """Means over scenarios, by shape and by degrees; whether the claims hold of the latter."""
    print("", line(["mean over", *HEADERS[4:]]), line(["---:"] * (len(HEADERS) - 3)), sep="\n")
    shapes = [scenario.shape for scenario in scenarios]
    for shape in SHAPES:
        mean = mean_of(table[[each is shape for each in shapes]])
        print(line([f"{shape}: {shape.degrees} degrees", *cells(mean)]))
    enough = np.array([shape.degrees >= ENOUGH for shape in shapes])
    many = mean_of(table[enough])
    few = mean_of(table[~enough])
    print(line([f"at least {ENOUGH} degrees", *cells(many)]))
    print(line([f"fewer than {ENOUGH} degrees", *cells(few)]), end="\n\n")
    failed = [f"{ENOUGH} degrees or more, {each}" for each in [*too_seldom(many), *too_wide(many)]]
    failed += [f"fewer than {ENOUGH} degrees, {each}" for each in too_seldom(few)]
    for each in failed:
        print(f"claim not held: {each}")
    return not failed


def mean_of(table: Floats) -> Floats:
    """Means over the lines that have a number."""
    counts = (~np.isnan(table)).sum(axis=0)
    sums = np.nansum(table, axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def too_seldom(mean: Floats) -> list[str]:
    """The shares that are below what is claimed."""
    shares = {
        "one seed": mean[0],
        "k seeds": mean[6],
        "gaps": mean[9],
        "ranks": (mean[12] + mean[13]) / 2,
    }
    return [f"{name}: {shares[name]:.1f}%" for name in LOWEST if shares[name] < LOWEST[name]]


def too_wide(mean: Floats) -> list[str]:
    """The widths that are above what is claimed."""
    widths = {"one seed": mean[5], "k seeds": mean[8], "gaps": mean[11]}
    return [f"{name}: {width:.2f} as wide" for name, width in widths.items() if width > LARGEST]
