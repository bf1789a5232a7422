import io
import time

import pytest
from rich.console import Console

from bench.runtime import progress
from bench.runtime.progress import Overall, Reporter, about


@pytest.fixture
def clock(monkeypatch):
    """A clock that only a test moves: `clock(seconds)`."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr("bench.runtime.progress.PLAIN_SECONDS", 0.0)
    monkeypatch.setattr("bench.runtime.progress.LEAST_SECONDS", 0.0)
    reporter = Reporter()
    reporter.cell = "rotation seed 0: "
    with reporter.stage("pretraining", 100) as bar:
        bar.skip(50)
        time.sleep(0.01)
        bar.note("loss 1.234")
        bar.advance(25)
    lines = capsys.readouterr().err.splitlines()
    assert "75/100 img" in lines[-1]
    assert "s left" in lines[-2]
    assert "loss 1.234" in lines[-1]
    assert all(line.startswith("rotation seed 0: pretraining: ") for line in lines)


def test_plain_lines_come_at_most_once_a_minute_within_a_cell(capsys, clock):
    reporter = Reporter()
    with reporter.cells({"a": 300.0, "b": 300.0}, 1):
        for cell in "ab":
            reporter.start_cell(cell)
            for stage in ("pretraining", "features", "probing"):
                with reporter.stage(stage, 99) as bar:
                    for _ in range(99):
                        clock(1.0)
                        bar.advance(1)
            reporter.finish_cell(cell)
            reporter.say_finished("a row")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * (4 + 1), "at 60, 120, 180 and 240 of 297 s, and the row"
    assert [line for line in lines if line.startswith("a row")] == [
        "a row; 1 of 2 cells, about 5 min left for all",
        "a row; 2 of 2 cells",
    ]
    assert lines[0] == (
        "cell 1 of 2, about 9 min left for all; pretraining: 60/99 img, 1 img/s, 39 s left"
    )


def test_the_pace_of_finished_cells_scales_the_time_left(clock):
    overall = Overall(dict.fromkeys("abc", 100.0), 1)
    assert overall.left(0.0) == 300.0
    overall.start("a")
    clock(200.0)
    overall.finish("a", failed=False)
    overall.start("b")
    pace = 230 / 130  # 30 s count as measured before
    assert overall.left(0.0) == pytest.approx(200 * pace)
    clock(1000.0)
    overall.finish("b", failed=True)
    assert overall.left(0.0) == pytest.approx(100 * pace), "a failed cell says nothing"


def test_a_cell_that_takes_longer_than_estimated_counts_at_once(clock):
    overall = Overall(dict.fromkeys("ab", 100.0), 1)
    overall.start("a")
    clock(400.0)
    assert overall.left(stage=50.0) == pytest.approx(50.0 + 100 * 430 / 130)


def test_cells_side_by_side_share_the_time_left(clock):
    overall = Overall(dict.fromkeys("abcd", 100.0), 2)
    overall.start("a")
    overall.start("b")
    clock(40.0)
    assert overall.left(0.0) == pytest.approx((60.0 + 60.0 + 200.0) / 2)
    assert overall.text(0.0).startswith("cells 1-2 of 4, about 3 min")
    overall.finish("b", failed=True)
    assert overall.text(0.0).startswith("cell 2 of 4")
    overall.finish("a", failed=True)
    overall.start("c")
    assert overall.left(stage=150.0) == pytest.approx(150.0), "the last one decides"


def test_the_cells_of_one_encoder_wait_for_one_another():
    overall = Overall(dict.fromkeys("abc", 100.0), 2, ["ab", "c"])
    assert overall.left(0.0) == pytest.approx(200.0), "not 300 / 2"


def test_without_an_estimate_there_is_no_time(clock):
    overall = Overall({"a": None, "b": 100.0}, 1)
    assert overall.left(0.0) is None
    assert overall.text(0.0) == "cell 1 of 2"
    overall.finish("a", failed=False)
    assert overall.text(0.0) == "cell 2 of 2, about 2 min left for all"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "10 s"), (44, "40 s"), (330, "6 min"), (9000, "2.5 h")]
)
def test_rough_times(seconds, text):
    assert about(seconds) == text


def test_a_terminal_shows_the_bar_of_all_cells_above_that_of_the_stage():
    reporter = Reporter()
    out = io.StringIO()
    reporter.console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with reporter.cells({str(index): 60.0 for index in range(17)}, 1):
        reporter.finish_cell("0")
        reporter.finish_cell("1")
        reporter.cell = "bigan seed 0: "
        with reporter.stage("pretraining", 12_800) as bar:
            bar.note("generator 0.69 discriminator 1.38")
            bar.advance(6_400)
            reporter.display.refresh()
            shown = out.getvalue()
    lines = shown.splitlines()
    above = max(i for i, line in enumerate(lines) if "cell 3 of 17, about" in line)
    assert "min left for all" in lines[above]
    assert "bigan seed 0: pretraining" in lines[above + 1]
    assert "6400/12800" in lines[above + 1]
    assert "generator 0.69 discriminator 1.38" in lines[above + 2]
