"""Figures from made-up records: what their bars are, and where the doubt comes from."""

import re

import pytest
from made_up import TUNED, TUNING, calibrate, encoder, save

from bench.encoders.pretraining import LearningRates, TrainingTrace
from bench.reporting import leaderboard, plots
from bench.reporting.format import deviation


def table_of(folder, place=0):
    board = leaderboard.load(folder / "made")
    assert board.problems == ()
    return board.tables[place]


def captions(table):
    return {plot.name: plot.caption for plot in plots.plots(table)}


def lines(svg, color):
    """The widths of horizontal lines of a color, in points, and how long they are."""
    pattern = r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2 \n" clip-path[^>]*style="([^"]*)"'
    found = []
    for left, _, right, style in re.findall(pattern, svg):
        if f"stroke: {color}" in style.lower():
            width = float(re.search(r"stroke-width: ([\d.]+)", style)[1])
            found.append((width, float(right) - float(left)))
    return found


def test_where_training_runs_are_unknown_bars_are_of_test_images_alone(folder):
    table = table_of(folder)
    assert "The intervals are over test images only." in captions(table)["gap"]
    assert "doubt" not in captions(table)
    bars = lines(plots.gap(table)["gap_voc_cls.svg"].decode(), plots.BLUE.lower())
    assert [width for width, _ in bars] == [plots.WIDE], "one row was trained here"


def test_the_bar_of_test_images_is_within_that_of_all_that_varies(folder):
    calibrate(folder, moves=(0, 3, -3))
    table = table_of(folder)
    assert "Thick bars: test images alone" in captions(table)["gap"]
    bars = lines(plots.gap(table)["gap_voc_cls.svg"].decode(), plots.BLUE.lower())
    assert [width for width, _ in bars] == [plots.NARROW, plots.WIDE]
    gap = table.row("rotation").gap
    inner = (gap.images.high - gap.images.low) / (gap.high - gap.low)
    assert bars[1][1] / bars[0][1] == pytest.approx(inner, rel=1e-3)


def test_a_plot_against_a_cost_says_what_its_bars_are(folder):
    for method in ("near", "far"):
        save(folder, method, 0.7)
    assert "over test images only" in captions(table_of(folder))["views"]
    for seed in (1, 2):
        save(folder, "near", 0.5 + seed / 3, seed=seed)
    mixed = captions(table_of(folder))["views"]
    assert "Thick bars" in mixed and "Without a thin bar" in mixed
    calibrate(folder)
    known = captions(table_of(folder))["time"]
    assert "Thick bars" in known and "Without a thin bar" not in known


def test_where_the_doubt_comes_from(folder):
    calibrate(folder, moves=(0, 3, -3))
    table = table_of(folder)
    (svg,) = plots.doubt(table).values()
    text = svg.decode()
    for row in table.rows:
        about = f"sd {deviation(row.sd)}"
        about += f", {row.training}" if row.shares["training"] else ""
        assert f"<title>{row.method}: {about}</title>" in text
        assert f">{about}</text>" in text
    assert [row.training for row in table.rows] == ["", "pretraining", "first weights"]
    for words in ("test images", "training runs", "variance of mAP"):
        assert words in text
    assert plots.draw(table)["doubt_voc_cls.svg"] == svg


def test_one_row_whose_runs_vary_has_no_figure_of_doubt(tmp_path):
    for method, quality in {"imagenet": 2.0, "rotation": 0.8}.items():
        save(tmp_path, method, quality)
    calibrate(tmp_path)
    table = table_of(tmp_path)
    assert sum(row.shares["training"] > 0 for row in table.rows) == 1
    assert "doubt" not in captions(table)


def test_fine_tuned_rows_name_fine_tuning(folder):
    rates = LearningRates(first=0.1, last=0.1, maximum=0.1, sha256="a" * 64)
    facts = TUNED | {"training": TrainingTrace([1], [[0.5, 0.1]], rates, 10, {"loss": [1.0]})}
    for method, quality in {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}.items():
        save(folder, method, quality, task="voc_tuned", task_settings=TUNING, **facts)
    for seed in (1, 2):
        changes = {"seed": seed, "task": "voc_tuned", "task_settings": TUNING}
        save(folder, "rotation", 0.6 + seed / 5, **changes, **facts)
    table = table_of(folder, 1)
    assert [row.training for row in table.rows] == [
        "fine-tuning",
        "pretraining and fine-tuning",
        "first weights and fine-tuning",
    ]
    assert all(row.shares["training"] > 0 for row in table.rows), "of one kind"
    text = plots.doubt(table)["doubt_voc_tuned.svg"].decode()
    assert "pretraining and fine-tuning" in text


def test_no_long_name_is_cut_over_a_panel(folder):
    name = "random_init-above_diagonal-below_diagonal"
    save(folder, name, 0.1, role="untrained", encoder=encoder("above_diagonal", "below_diagonal"))
    text = plots.stages(table_of(folder))["stages_voc_cls.svg"].decode()
    lines = re.findall(r">(random_init-above_diagonal-|below_diagonal|rotation)<", text)
    assert [*dict.fromkeys(lines)] == ["rotation", "random_init-above_diagonal-", "below_diagonal"]
