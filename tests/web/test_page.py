"""The page as a file; `test_browser.py` looks at it in a browser."""

import json
import re
import shutil
from itertools import product

import pytest
from made_page import LOSSES, PAGE, STEPS, made
from made_up import FAILED, encoder, save

from bench import plugins
from bench.encoders.pretraining import LossCurve, Pretraining
from bench.reporting import csv, leaderboard, publish, text, web


def copy(folder, where):
    return shutil.copytree(folder, where, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("page")
    made(where)
    return where


def test_equal_records_give_equal_files(folder, tmp_path):
    made(tmp_path)
    names = [path.name for path in (folder / "made").iterdir() if path.is_file()]
    assert {"leaderboard.html", "stages_voc_cls.svg", "classes_voc_det.svg"} <= {*names}
    for name in names:
        assert (tmp_path / "made" / name).read_bytes() == (folder / "made" / name).read_bytes()


def test_no_number_of_the_page_has_digits_that_depend_on_the_processor(folder):
    long = re.findall(r'data-key="(-?\d+\.\d+)"', (folder / PAGE).read_text())
    assert len(long) > 20
    assert max(len(number.replace(".", "").lstrip("-0")) for number in long) <= 9


def test_only_a_task_with_stages_has_a_stage_plot(folder):
    names = {path.stem for path in (folder / "made").glob("*.svg")}
    both = {f"{n}_{t}" for n in ("gap", "classes") for t in ("voc_cls", "voc_det")}
    assert names == both | {"stages_voc_cls", "doubt_voc_cls"}
    text = (folder / "made/LEADERBOARD.md").read_text()
    for name in names:
        assert f"]({name}.svg)" in text


def row_of(path, method, task):
    """The cells' sentences, the strip and the details of a row, as HTML."""
    section = re.search(rf'<section id="{task}">.*?</section>', path.read_text(), re.DOTALL)
    line = re.search(rf'<tr data-method="{method}".*?</tr>', section[0], re.DOTALL)[0]
    opens = re.search(r'data-opens="(.*?)"', line)[1]
    details = re.search(rf'<dialog id="{opens}".*?</dialog>', section[0], re.DOTALL)[0]
    return re.findall(r'<td class="n[^>]*data-tip="(.*?)"', line), line, details


def test_a_sentence_says_what_its_interval_is_over(folder):
    known, *_ = row_of(folder / PAGE, "rotation", "voc_cls")
    both = r"95% CI over test images and training runs \S+ to \S+, over test images only \S+ to \S+"
    assert len(known) == 5
    assert all(re.search(rf"{both}\. 1 seed", tip) for tip in known)
    assert known[0].startswith("rotation, mAP: ")
    unknown, *_ = row_of(folder / PAGE, "rotation", "voc_det")
    assert len(unknown) == 5
    for tip in unknown:
        assert re.search(r"95% CI over test images only \S+ to \S+\. 1 seed", tip)


def test_the_bar_of_test_images_is_within_that_of_all(folder):
    for task, narrower in (("voc_cls", True), ("voc_det", False)):
        _, line, _ = row_of(folder / PAGE, "rotation", task)
        ends = r'style="left:([\d.]+)%;right:calc\(100% - ([\d.]+)%\)"></i>'
        (outer,) = re.findall("<i " + ends, line)
        (inner,) = re.findall('<i class="images" ' + ends, line)
        left, right = (float(a) - float(b) for a, b in zip(inner, outer, strict=True))
        assert (left > 0 > right) if narrower else (left == right == 0)


def test_details_say_how_runs_are_known_and_what_would_settle_it(folder):
    *_, details = row_of(folder / PAGE, "rotation", "voc_cls")
    assert "Training runs: by its seeds in the suite&#39;s calibration" in details
    assert "What would settle it" in details
    assert "<li>From the next row, jig_saw: at this difference, " in details
    *_, details = row_of(folder / PAGE, "rotation", "voc_det")
    assert "Training runs: unknown." in details
    assert "What would settle it" not in details
    *_, details = row_of(folder / PAGE, "imagenet", "voc_cls")
    assert "Training runs: none, its weights are fixed." in details


def test_what_records_say_is_escaped(folder):
    text = (folder / PAGE).read_text()
    assert "<img" not in text
    assert 'href="evil.html' not in text
    assert "RuntimeError: &lt;img src=x onerror=alert(1)&gt;&amp;" in text


URL = r"(?:https?:)?//[\w./-]+\.\w[\w./-]*"


def test_the_page_names_nothing_elsewhere(folder):
    text = (folder / PAGE).read_text()
    named = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    for kind in ("methods", "tasks"):  # papers, as text
        for name in plugins.names(kind):
            named |= {*re.findall(URL, plugins.describe(kind, name).constants["reference"])}
    assert {found.rstrip(".") for found in re.findall(URL, text)} <= named
    links = {*re.findall(r'(?:href|src)="([^"#][^"]*)"', text)}
    assert "voc_det/rotation/predictions.png" in links
    for link in links:
        assert (folder / "made" / link).is_file(), link


def test_a_image_that_is_not_there_is_not_named(folder, tmp_path):
    copy(folder, tmp_path)
    (tmp_path / "made/voc_cls/rotation/samples.png").unlink()
    publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
    assert "samples.png" not in (tmp_path / PAGE).read_text()


@pytest.mark.parametrize("name", ["leaderboard.html", "stages_voc_cls.svg"])
@pytest.mark.parametrize("how", ["missing", "changed", "emptied"])
def test_check_sees_a_stale_page_or_plot(folder, tmp_path, bench, name, how):
    copy(folder, tmp_path)
    assert bench("leaderboard", "--out", tmp_path, "--check").status == 0
    path = tmp_path / "made" / name
    content = path.read_text()
    path.unlink()
    if how != "missing":
        path.write_text(content + "<!-- -->" if how == "changed" else "")
    done = bench("leaderboard", "--out", tmp_path, "--check")
    assert done.status == 2
    assert (name if how != "changed" else "leaderboard.html") in done.error


def test_one_method_alone_makes_a_page(tmp_path):
    save(tmp_path, "rotation", 0.8)
    publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
    text = (tmp_path / PAGE).read_text()
    assert "pretrained otherwise" not in text
    assert "Gap to ImageNet" not in text.split('class="reading"')[0]
    assert "<code>rotation</code></button>" in text


def test_failures_alone_make_a_page(tmp_path):
    save(tmp_path, "broken", 0, error="boom", **FAILED)
    publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
    assert '<span class="warning">failed</span>' in (tmp_path / PAGE).read_text()


def test_the_page_names_the_records_that_were_left_out(tmp_path):
    save(tmp_path, "rotation", 0.8)
    path = tmp_path / "made/voc_cls/rotation/seed1.json"
    path.write_text("<b>no record</b>")
    publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
    text = (tmp_path / PAGE).read_text()
    assert "1 record is left out of the tables" in text
    assert "voc_cls/rotation/seed1.json" in text
    assert "<b>no record" not in text


def test_numbers_have_a_true_minus_sign_and_never_a_negative_zero(folder):
    text = (folder / PAGE).read_text()
    cells = re.findall(r'<td class="n[^>]*>(.*?)</td>', text)
    assert any("\N{MINUS SIGN}" in cell for cell in cells)
    for cell in cells:
        assert not re.search(r"(?<![\w.])-\d", cell)
        assert not re.search(r"\N{MINUS SIGN}0(\.0)?(?![\d.])", cell)


def curves(path):
    """Of every panel: method, loss, its sentence, and the points of its lines."""
    panels = re.findall(r'<figure class="curve".*?</figure>', path.read_text(), re.DOTALL)
    for panel in panels:
        method, tip = re.search(r'data-method="(.*?)" data-tip="(.*?)"', panel).groups()
        loss = re.search(r"<span>(.*?)</span></figcaption>", panel)[1]
        lines = re.findall(r'points="(.*?)"', panel)
        points = [[tuple(map(int, p.split(","))) for p in line.split()] for line in lines]
        yield method, loss, tip, points


def test_every_loss_of_every_trained_method_is_drawn_once(folder):
    drawn = list(curves(folder / PAGE))
    assert [(method, loss) for method, loss, *_ in drawn] == [
        ("rotation", "loss"),
        ("jig_saw", "generator"),
        ("jig_saw", "discriminator"),
    ], "two tasks of one encoder"
    assert all(len(lines) == 1 and len(lines[0]) == 200 for *_, lines in drawn)
    _, _, tip, [line] = drawn[0]
    assert (line[0], line[-1]) == ((2, 0), (400, 160)), "falls from the top to the bottom"
    assert [y for _, y in line] == sorted(y for _, y in line)
    assert tip == "rotation, loss: from 1.4 to 0.281 in 1,600 steps."
    assert {y for _, y in drawn[2][3][0]} == {0}, "one that never changes is a straight line"


def test_each_seed_has_a_line(tmp_path):
    for seed in (0, 1):
        falls = LossCurve([5, 10], {"loss": [2.0 + seed, 1.0 + seed]})
        save(tmp_path, "rotation", 0.8, seed=seed, pretraining=Pretraining(loss_curve=falls))
    publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
    [(*_, tip, lines)] = curves(tmp_path / PAGE)
    assert tip == "rotation, loss: from 2.5 to 1.5 in 10 steps, mean of 2 seeds."
    assert lines == [[(200, 80), (400, 160)], [(200, 0), (400, 80)]]


def test_nothing_is_drawn_of_records_without_curves(tmp_path):
    save(tmp_path, "rotation", 0.8)
    empty = Pretraining(loss_curve=LossCurve([], {"loss": []}))
    save(tmp_path, "jig_saw", 0.7, pretraining=empty, encoder=encoder("rgb"))
    publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
    assert "Training losses" not in (tmp_path / PAGE).read_text()


def test_losses_of_many_methods_are_light(tmp_path):
    sizes = []
    for curve in (None, LossCurve(STEPS, LOSSES["jig_saw"])):
        for method in range(17):
            save(tmp_path, f"m{method}", 0.5, pretraining=Pretraining(loss_curve=curve))
        publish.write(leaderboard.load(tmp_path / "made"), tmp_path / "made")
        sizes.append((tmp_path / PAGE).stat().st_size)
    assert 0 < sizes[1] - sizes[0] < 100_000


def test_the_page_carries_every_pair_and_each_table_as_csv_and_latex(folder):
    text = (folder / PAGE).read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    found = leaderboard.load(folder / "made")
    assert list(data) == [table.name for table in found.tables]
    for table in found.tables:
        part = data[table.name]
        names = [name for name, _ in part["rows"]]
        assert names == [row.method for row in table.rows if row.scored]
        for (i, one), (j, other) in product(enumerate(names), repeat=2):
            value = part["pairs"][i][j][0].split(" ")[0].replace("\N{MINUS SIGN}", "-")
            pair = table.pairs.get((one, other))
            assert value == (f"{pair.difference.value:z.1f}" if pair else "")
        assert part["csv"] == csv.render([table])
        assert part["latex"] == found.to_latex(table.name)


def test_images_have_legends(folder):
    *_, details = row_of(folder / PAGE, "rotation", "voc_det")
    legend = plugins.describe("tasks", "voc_det").legend
    assert (
        legend
        == "Pairs of the first test images. Left: detections of score 0.5 or more; right: objects."
    )
    assert f'<p class="legend">{legend}</p>' in details
    text = (folder / "made/LEADERBOARD.md").read_text()
    shown = "[rotation](voc_det/rotation/predictions.png)"
    assert f"- Predictions beside ground truth, {shown}. {legend}" in text


def test_every_shipped_plug_in_that_draws_says_what():
    for kind, starts in (("methods", "Rows: "), ("tasks", "Pairs of the first test images. ")):
        legends = [plugins.describe(kind, name).legend for name in plugins.names(kind)]
        assert len([text for text in legends if text]) > 2
        assert all(text.startswith(starts) for text in legends if text)


def test_names_are_shown_beside_identifiers(folder, tmp_path):
    line = re.search(
        r'<tr data-method="random_init".*?</tr>', (folder / PAGE).read_text(), re.DOTALL
    )
    assert "Random init <code>random_<wbr>init</code>" in line[0]
    titles = {
        "split_brain": "Split-brain autoencoder",
        "random_init-L": "Random init (L only)",
        "random_init-above_diagonal-below_diagonal": "Random init (above diagonal, below diagonal)",
        "random_init@resnet18": "Random init (resnet18)",
    }
    for method in titles:
        save(tmp_path, method, 0.5)
    save(tmp_path, "of_nobody", 0.4)
    found = leaderboard.load(tmp_path / "made")
    assert text.titles(found) == titles, "a method that is not installed has its identifier alone"
    for name in plugins.names("methods"):
        assert 2 < len(plugins.describe("methods", name).title) < 40


def test_a_warning_of_every_pretrained_row_is_said_once(tmp_path):
    common = "not audited: this test split was not searched"
    for method in ("one", "two", "three"):
        own = ["an odd loss"] if method == "two" else []
        save(tmp_path, method, 0.8, warnings=[common, *own])
    save(tmp_path, "imagenet", 2.0)
    found = leaderboard.load(tmp_path / "made")
    publish.write(found, tmp_path / "made")
    page = (tmp_path / PAGE).read_text()
    section = re.search(r'<section id="voc_cls">.*?</table>', page, re.DOTALL)[0]
    for shown in (section, (tmp_path / "made/LEADERBOARD.md").read_text()):
        assert shown.count(common) == 1
        assert shown.count("an odd loss") == 1
        assert shown.index(common) < shown.index("an odd loss")
    warnings = found.to_dataframe().set_index("method")["warnings"]
    assert warnings["one"] == common, "files have every warning of every row"
    [table] = found.tables
    assert table.own_warnings(table.row("one")) == []
    assert table.own_warnings(table.row("two")) == ["an odd loss"]


STYLE = web.ASSETS / "style.css"
# Ink on what it is painted on; 3 is enough for what is not text (WCAG 2.2, 1.4.3 and 1.4.11).
PAIRS = [
    *((ink, paper, 4.5) for ink in ("ink", "muted", "link", "warn") for paper in ("paper", "card")),
    *((ink, paper, 4.5) for ink in ("ink", "muted", "link", "warn") for paper in ("wash", "pick")),
    ("paper", "ink", 4.5),
    *((mark, paper, 3) for mark in ("blue", "orange") for paper in ("paper", "card", "pick")),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "paper", "least"), PAIRS)
def test_colors_have_contrast_enough_in_both_themes(theme, ink, paper, least):
    found = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", STYLE.read_text())
    colors = {name: values[theme] for name, *values in found}

    def luminance(color):
        levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(luminance(colors[name]) for name in (ink, paper))
    assert (high + 0.05) / (low + 0.05) >= least
