"""One table of columns: what Markdown, terminal, LaTeX, CSV, DataFrame and glossary show of it."""

import io
import re

import pandas as pd
import pytest
from made_up import FAILED, TUNED, TUNING, calibrate, encoder, save, text_of
from rich.console import Console

from bench.errors import UserError
from bench.reporting import columns, csv, format, leaderboard, text
from bench.reporting.rows import class_gaps, pivot
from bench.reporting.terminal import TaskTable
from bench.results.dataframe import load_results
from bench.statistics.intervals import ConfidenceInterval, Estimate

LONG = "random_init-above_diagonal-below_diagonal"


def of(value, low, high):
    return Estimate(value, ConfidenceInterval(low, high))


@pytest.fixture
def two(folder):
    """Two tasks, and a row that failed; the suite is calibrated."""
    for method, quality in (("imagenet", 3.0), ("random_init", 0.5)):
        save(folder, method, quality, task="voc_det", task_settings=TUNING, **TUNED)
    calibrate(folder)
    save(folder, "broken", 0, error="boom", **FAILED)
    return leaderboard.load(folder / "made")


@pytest.mark.parametrize(
    ("found", "points", "share"),
    [
        (of(41.26, 38.3, 44.31), "41.3 [38.3, 44.3]", "4126% [3830, 4431]"),
        (of(-0.02, -0.04, -0.001), "0.0 [0.0, 0.0]", "-2% [-4, 0]"),
        (of(0.0, -0.0, 0.0), "0.0 [0.0, 0.0]", "0% [0, 0]"),
        (of(-0.021, -0.03, -0.0049), "0.0 [0.0, 0.0]", "-2% [-3, 0]"),
        (Estimate(12.34), "12.3", "1234%"),
    ],
)
def test_an_estimate_reads_the_same_everywhere_and_has_no_negative_zero(found, points, share):
    assert format.estimate(found) == points
    assert format.share(found) == share
    assert format.signed(-0.01) == "+0.0"


def test_other_numbers():
    assert [format.probability(p) for p in (0.999, 0.95, 0.5, 0.001)] == [
        ">99%",
        "95%",
        "50%",
        "<1%",
    ]
    assert [format.duration(s) for s in (5, 130, 5399, 7200)] == [
        "<1 min",
        "2 min",
        "90 min",
        "2.0 h",
    ]
    assert format.millions(2_958_848) == "2.96 M"
    assert format.typographic("-2% [-3, 0]") == "\N{MINUS SIGN}2% [\N{MINUS SIGN}3, 0]"
    assert format.typographic("4-9") == "4-9"
    assert format.latex("-2% [-3, 0] a_b") == r"$-$2\% [$-$3, 0] a\_b"


def test_the_glossary_explains_every_column(two):
    lines = text.glossary(two.tables)
    for column in columns.COLUMNS:
        named = f"`{column.key}`" if "csv" in column.shown_in else column.heading
        (line,) = [line for line in lines if f"{named}" in line.split(": ")[0]]
        assert column.help in line
        for sentence in re.split(r"(?<=[.;:]) ", column.help):
            assert len(sentence.split()) <= 30
    assert any(line.startswith("- **mAP**: Mean over classes") for line in lines)


def test_every_heading_of_a_page_is_that_of_a_column(two, folder):
    page = text_of(folder)
    known = {column.title(table) for column in columns.COLUMNS for table in two.tables}
    for block in re.findall(r"^\| (?:Rank range|Method) \|.*$", page, flags=re.MULTILINE):
        headings = block.strip("| ").split(" | ")
        if not re.match(r"Stage|voc", headings[1]):
            assert {*headings} <= known


def test_no_percent_sign_is_apart_from_its_number(folder):
    assert not re.search(r"\d %", text_of(folder))


def test_the_csv_is_the_dataframes(two):
    frame = two.to_dataframe()
    assert csv.render(two.tables) == frame.to_csv(index=False, float_format="%.4f")
    assert list(frame.columns) == list(csv.dtypes())


def test_a_dataframe_has_a_row_per_task_and_method(two):
    frame = two.to_dataframe().set_index(["task", "method"])
    assert len(frame) == 6
    row = frame.loc["voc_cls", "rotation"]
    found = two.tables[0].row("rotation")
    for name, estimate in {
        "value": found.value,
        "gap": found.gap,
        "gain": found.gain,
        "matched_gain": found.matched_gain,
        "gap_closed": found.gap_closed,
    }.items():
        assert (row[name], row[f"{name}_low"], row[f"{name}_high"]) == (
            estimate.value,
            estimate.low,
            estimate.high,
        )
    assert (row["rank"], row["last_rank"], row["matched_baseline"]) == (2, 2, "random_init")
    broken = frame.loc["voc_cls", "broken"]
    assert broken["status"] == "failed"
    assert pd.isna(broken["value"]) and pd.isna(broken["rank"])


def test_a_pivot_is_that_of_pandas(two):
    frame = two.to_dataframe()
    expected = frame.pivot(index="method", columns="task", values="gap")
    cells = ((r["method"], r["task"], r["gap"]) for _, r in frame.iterrows())
    names, rows = pivot(cells)
    assert names == ["voc_cls", "voc_det"]
    assert {*rows} == {*expected.index}
    for method, values in rows.items():
        ours = pd.Series(values, index=names, dtype=float)
        pd.testing.assert_series_equal(ours, expected.loc[method], check_names=False)


def test_class_gaps_are_the_references_score_less_the_rows(two):
    table = two.tables[0]
    names, gaps = class_gaps(table)
    assert names == ["ape", "bee", "cat"]
    assert list(gaps) == ["rotation", "random_init"]
    top = table.row("imagenet").per_class
    for method, values in gaps.items():
        own = table.row(method).per_class
        assert values == [top[name] - own[name] for name in names]


def test_pairs_are_every_ordered_pair_of_a_task(two):
    frame = two.pairs_dataframe()
    assert len(frame) == 3 * 2 + 2
    assert list(frame.columns) == [
        "task",
        "method",
        "other",
        "difference",
        "low",
        "high",
        "p_better",
    ]
    row = frame[(frame.method == "rotation") & (frame.other == "random_init")].iloc[0]
    pair = two.tables[0].pairs["rotation", "random_init"]
    assert (row.difference, row.low, row.p_better) == (
        pair.difference.value,
        pair.difference.low,
        pair.p_better,
    )


def test_latex_is_a_booktabs_table_with_intervals(two):
    table = two.to_latex("voc_cls")
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"mAP (95\% CI)", r"random\_init"):
        assert part in table
    value = two.tables[0].row("rotation").value
    assert format.estimate(value) in table
    widths = {line.count("&") for line in table.splitlines() if line.endswith(r"\\")}
    assert widths == {4}
    both = two.to_latex()
    assert r"Method & voc\_cls (mAP) & voc\_det (mAP) \\" in both
    assert r"imagenet & -- & -- \\" in both
    with pytest.raises(UserError, match="unknown task 'voc_clz': did you mean voc_cls"):
        two.to_latex("voc_clz")


def test_latex_of_a_task_has_the_table_of_every_backbone(tmp_path):
    save(tmp_path, "rotation", 0.5)
    save(tmp_path, "mine", 0.5, encoder=encoder("rgb", backbone="web"))
    loaded = leaderboard.load(tmp_path / "made")
    both = loaded.to_latex("voc_cls")
    alone = loaded.to_latex("voc_cls-web")
    assert both.count(r"\begin{tabular}") == 2
    assert both.endswith(alone)
    assert alone.startswith("% voc_cls-web: mAP")
    (tmp_path / "made/voc_cls/rotation/seed0.json").unlink()
    assert leaderboard.load(tmp_path / "made").to_latex("voc_cls") == alone


def printed(folder, width):
    console = Console(width=width, file=io.StringIO())
    console.print(TaskTable(leaderboard.load(folder / "made").tables[0]))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_terminal_never_cuts_a_name(folder, width):
    save(folder, LONG, 0.1, role="untrained", encoder=encoder("above_diagonal", "below_diagonal"))
    save(folder, "worse", 0.0)
    calibrate(folder)
    save(folder, "broken", 0, error="boom", **FAILED)
    out = printed(folder, width)
    assert max(map(len, out.splitlines())) <= width
    row = next(line for line in out.splitlines() if LONG in line)
    assert re.search(r"\d\.\d \[", row), "the score is beside the name"
    assert "broken: failed" in out
    assert "worse: below random_init" in " ".join(out.split())
    assert "…" not in out
    assert ("Gain over random" in out) == (width == 140)


def test_a_terminal_says_once_what_is_true_of_every_pretrained_row(folder):
    odd = {"rotation": [], "worse": [], "near": ["an odd loss"], "nearer": ["an odd loss"]}
    for method, own in odd.items():
        save(folder, method, 0.8, warnings=["not audited", *own])
    out = printed(folder, 140)
    assert out.count("not audited") == 1
    assert "every pretrained row: not audited" in out
    assert "near, nearer: an odd loss" in out


def test_short_names_leave_room_for_the_gap(folder):
    assert "Gap to ImageNet" in printed(folder, 80)


def test_load_results_has_a_row_per_cell(folder, two):
    save(folder, "rotation", 0.8, seed=1)
    frame = load_results(folder)
    assert len(frame) == 7
    assert frame.equals(load_results(str(folder / "made")).assign(path=frame.path))
    row = frame[(frame.method == "rotation") & (frame.seed == 0)].iloc[0]
    record = two.tables[0].row("rotation").records[0]
    assert (row.suite, row.task, row.metric, row.status) == ("made", "voc_cls", "mAP", "ok")
    assert (row.value, row.role, row.num_images) == (record.value, "pretrained", 120)
    assert (row.method_version, row.task_version, row.seconds) == (1, 1, 1.0)
    assert pd.isna(frame[frame.method == "broken"].value.iloc[0])
    wide = frame.pivot_table(index="method", columns="task", values="value")
    assert list(wide.columns) == ["voc_cls", "voc_det"]


def test_load_results_by_class(folder):
    frame = load_results(folder, per_class=True)
    assert len(frame) == 3 * 3
    means = frame.groupby("method").class_value.mean()
    values = frame.groupby("method").value.first()
    pd.testing.assert_series_equal(means, values, check_names=False)


def test_load_results_warns_of_a_bad_record_and_leaves_it_out(folder):
    (folder / "made/voc_cls/rotation/seed0.json").write_text("{")
    (folder / "made/voc_cls/imagenet/seed0.npz").unlink()
    with pytest.warns(UserWarning, match="seed0.json: left out: ") as found:
        frame = load_results(folder)
    assert list(frame.method) == ["random_init"]
    assert len(found) == 2
    assert all(warning.filename == __file__ for warning in found)


def test_load_results_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no records"):
        load_results(tmp_path)
