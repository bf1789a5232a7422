"""The claims of README: its tables are those of the results that ship, and its code runs."""

import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

import bench as ssl_gap
from bench import plugins
from bench.config import loader
from bench.reporting import leaderboard
from bench.reporting.format import estimate
from bench.reporting.terminal import TaskTable
from bench.results import storage

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
REFERENCE = ROOT / "results/reference"
BLOCKS = [token for token in MarkdownIt().parse(README) if token.type == "fence"]


def block(marker):
    """The one block of code with a marker."""
    (found,) = [token.content for token in BLOCKS if marker in token.content]
    return found


def table(heading):
    """The rows of the one table whose first cell is a heading."""
    start = README.index(f"| {heading} |")
    lines = README[start:].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def rows_of(suite):
    (task,) = [t for t in leaderboard.load(REFERENCE / suite).tables if t.task == "voc_cls"]
    return [row for row in task.rows if not row.records[0].method_digest]


def test_the_results_are_those_of_the_leaderboard():
    rows = {row.method: row for row in rows_of("tiny")}
    trained = [m for m, row in rows.items() if row.role == "pretrained"]
    best = next(m for m in trained if m != "supervised")
    expected = ["imagenet", "supervised", best, trained[-1], "random_init"]
    shown = table("method")
    assert [method.strip("`") for method, _, _ in shown] == expected
    for method, value, gap in shown:
        row = rows[method.strip("`")]
        assert value == estimate(row.value)
        assert gap == ("-" if method == "`imagenet`" else estimate(row.gap))


def test_the_finding_of_the_figure_is_in_the_results():
    rows = [row for row in rows_of("tiny") if row.role == "pretrained"]
    assert all(row.gain.value > 0 for row in rows), "scored above random_init"
    gaps = [row.gap.value for row in rows if row.method != "supervised"]
    points = re.search(r"stay (\d+) points or more behind", README)
    assert int(points[1]) == int(min(gaps))
    assert f"Gap to ImageNet of {len(rows_of('tiny'))} networks" in README


def test_the_quickstart_prints_the_table_that_is_shown(tmp_path):
    for method in ("rotation", "random_init", "imagenet"):
        (tmp_path / "mini/voc_cls" / method).mkdir(parents=True)
        for name in ("seed0.json", "seed0.npz"):
            place = f"mini/voc_cls/{method}/{name}"
            shutil.copy(REFERENCE / place, tmp_path / place)
    (task,) = leaderboard.load(tmp_path / "mini").tables
    console = Console(width=80)
    with console.capture() as capture:
        console.print(TaskTable(task))
    lines = [line.rstrip() for line in capture.get().splitlines()[1:]]
    assert block("Rank").strip("\n") == "\n".join(lines).strip("\n")


def test_the_tables_name_what_ships():
    linked = set(re.findall(r"\((methods|tasks)/(\w+)\.py\)", README))
    assert linked == {(kind, n) for kind in ("methods", "tasks") for n in plugins.names(kind)}
    for suite, *_ in table("suite"):
        loader.load(suite.strip("`"))


@pytest.mark.usefixtures("own_plugins")
def test_the_method_of_readme_runs(bench_run, tmp_path):
    path = tmp_path / "flip.py"
    path.write_text(block("class Flip"))
    done = bench_run(f"{path},random_init")
    assert done.status == 0, done.err
    record = storage.read(tmp_path / "out/smoke/voc_cls/flip/seed0.json")
    assert record.error is None


@pytest.mark.slow
@pytest.mark.usefixtures("own_plugins")
def test_the_method_of_readme_meets_the_contract(bench, tmp_path):
    path = tmp_path / "flip.py"
    path.write_text(block("class Flip"))
    done = bench("test", path)
    assert (done.status, "FAILED" in done.out) == (0, False)


def test_the_dataframe_of_readme_is_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    (call,) = re.findall(r"`(bench\.load_results\(.*?\))`", README)
    frame = eval(call, {"bench": ssl_gap})
    pivot = frame.pivot_table(index="method", columns="task", values="value")
    assert pivot.loc["imagenet", "voc_cls"] == pytest.approx(81.0, abs=0.05)
