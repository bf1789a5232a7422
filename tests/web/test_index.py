"""The page over several suites, as a file and in headless Chromium."""

import csv
import html
import re
import shutil

import pytest
from made_up import SUITE, TUNED, TUNING, calibrate, save
from support import forge

from bench.config.schema import Synthetic
from bench.reporting import index, leaderboard, publish
from bench.results import storage

EVIL = "<b>x&"
MANY = 16  # methods: more than the figure has rows
SCENES = Synthetic(seed=0, size=32, pretraining=40, validation=9, train=50, test=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite of real images with many methods, and one of rendered images before it by name."""
    out = tmp_path_factory.mktemp("index")
    ends = {"imagenet": 2.0, "random_init": 0.2}
    for method, quality in ends.items():
        save(out, method, quality)
    shutil.copytree(out / "made", out / "a")
    rendered = {"suite": "a", "suite_settings": SUITE.model_copy(update={"synthetic": SCENES})}
    for path in storage.files(out / "a"):
        forge(path, **rendered)
    for number in range(MANY):
        name = EVIL if number == 3 else f"a_method_of_a_long_name_{number}"
        save(out, name, 1.3 - 0.05 * number)
    calibrate(out)
    for method, quality in (ends | {EVIL: 0.5}).items():
        save(out, method, quality, task="voc_det", task_settings=TUNING, **TUNED)
    return out


@pytest.fixture(scope="module")
def loaded(folder):
    found = [leaderboard.load(folder / name) for name in ("a", "made")]
    index.write(found, folder)
    return found


@pytest.fixture(scope="module")
def text(folder, loaded):
    return (folder / index.PAGE).read_text()


def plain(part):
    """The text of a part of a page, a space for every tag."""
    return " ".join(re.sub(r"<[^>]+>", " ", part.replace("<wbr>", "")).split())


def test_equal_records_give_an_equal_page(text, loaded):
    assert text.encode() == index.html(loaded[::-1])


def test_suites_of_real_images_come_first(text):
    assert re.findall(r'<section class="suite" id="(\w+)">', text) == ["made", "a"]


def test_every_suite_has_its_sentence_its_numbers_and_its_page(text):
    made, other = text.split('<section class="suite"')[1:]
    assert 'href="made/leaderboard.html"' in made and 'href="a/leaderboard.html"' in other
    assert f"Made up. {MANY + 2} methods, 2 tasks, {MANY + 5} records." in plain(made)
    assert "Made up. 2 methods, 1 task, 2 records." in plain(other)
    assert "18 ways to pretrain an encoder, 2 tasks, 2 suites." in plain(text)


def test_the_best_of_every_task_is_that_of_the_csv(loaded, text):
    content = publish.texts(loaded[1])["leaderboard.csv"].decode()
    rows = list(csv.DictReader(content.splitlines()))
    made = text.split('<section class="suite"')[1].split("<tbody>")[2]
    for task, line in zip(("voc_cls", "voc_det"), made.split("<tr>")[1:], strict=True):
        own = [r for r in rows if r["task"] == task]
        best = max(
            (r for r in own if r["method"] not in ("imagenet", "random_init")),
            key=lambda r: float(r["value"]),
        )
        gap, low, high = (f"{float(best[key]):.1f}" for key in ("gap", "gap_low", "gap_high"))
        star = "*" if task == "voc_det" else ""
        method = html.escape(best["method"])
        assert plain(line.split("</tr>")[0]) == (
            f"{task} {method} {gap} [{low}, {high}]{star} {len(own)}"
        )


def test_a_figure_has_the_best_rows_both_ends_and_how_many_more(text):
    figure = text.split('<figure class="gaps">')[1].split("</figure>")[0]
    rows = re.findall(r'<tr class="(\w+)"><th scope="row">(.*?)</th>', figure)
    assert len(rows) == index.MOST_ROWS
    assert rows[0] == ("reference", "imagenet")
    assert rows[-1] == ("untrained", "random_<wbr>init")
    assert {role for role, _ in rows[1:-1]} == {"pretrained"}
    assert f"{MANY + 2 - index.MOST_ROWS} more rows on the suite's page" in plain(figure)
    places = [float(x) for x in re.findall(r'class="dot" style="left:([\d.]+)%', figure)]
    assert len(places) == len(rows) and places == sorted(places)


def test_what_a_record_says_is_escaped(text):
    assert "&lt;b&gt;x&amp;" in text and EVIL not in text
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")


def test_a_stale_page_is_noticed(bench, folder, tmp_path):
    shutil.copytree(folder / "a", tmp_path / "a")
    said = bench("leaderboard", "--out", tmp_path).out.splitlines()
    assert said == [str(tmp_path / "a/LEADERBOARD.md"), str(tmp_path / "index.html")]
    assert bench("leaderboard", "--out", tmp_path, "--check").status == 0
    (tmp_path / index.PAGE).unlink()
    assert bench("leaderboard", "--out", tmp_path, "--check").status == 0, "as after a run"
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in storage.files(tmp_path / "b"):
        forge(path, suite="b")
    assert bench("leaderboard", "--out", tmp_path, "--check").status == 2
    bench("leaderboard", "--out", tmp_path)
    assert "2 suites" in (tmp_path / index.PAGE).read_text()
    (tmp_path / index.PAGE).write_text("a")
    shown = bench("leaderboard", "--out", tmp_path, "--check")
    assert shown.status == 2
    assert shown.error.endswith(f"stale: index.html; run bench leaderboard --out {tmp_path}")


def test_without_imagenet_there_is_no_figure(tmp_path):
    save(tmp_path, "rotation", 0.8)
    text = index.html([leaderboard.load(tmp_path / "made")]).decode()
    assert '<figure class="gaps">' not in text
    assert plain(text.split("<tbody>")[1].split("</tr>")[0]) == "voc_cls rotation \N{EN DASH} 1"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        # Root may not use Chromium's sandbox; the one page that it opens is ours.
        options = {"executable_path": found, "args": ["--no-sandbox"]}
        with running.chromium.launch(**options) as opened:
            yield opened


@pytest.fixture
def visit(browser, folder, text):
    complaints, requests, contexts = [], [], []

    def go(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((folder / index.PAGE).as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    assert {*requests} == {(folder / index.PAGE).as_uri()}


def test_the_first_figure_is_seen_without_scrolling(visit):
    page = visit(viewport={"width": 1280, "height": 800})
    box = page.locator("figure").first.bounding_box()
    assert box["y"] + box["height"] <= 800
    assert box["x"] + box["width"] <= 1280


@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_no_width_scrolls_the_page_sideways(visit, width):
    page = visit(viewport={"width": width, "height": 844})
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0


def test_marks_are_where_their_numbers_say(visit):
    page = visit(viewport={"width": 1280, "height": 800})
    places = (
        page.locator("figure")
        .first.locator("tbody tr")
        .evaluate_all(
            """(rows) => rows.map((row) => {
        const [dot, axis] = [".dot", ".axis"].map((n) => row.querySelector(n));
        const [inner, outer] = [dot, axis].map((e) => e.getBoundingClientRect());
        return [(inner.x + inner.width / 2 - outer.x) / outer.width,
                parseFloat(row.cells[2].innerText)];
        })"""
        )
    )
    ends = page.locator("figure").first.locator("thead .axis").inner_text().split()
    low, high = (float(end.replace("\N{MINUS SIGN}", "-")) for end in ends)
    for place, gap in places[1:]:
        assert place == pytest.approx((gap - low) / (high - low), abs=0.005)


def test_the_theme_is_kept(visit):
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = visit(color_scheme="light").evaluate(background)
    page = visit(color_scheme="dark")
    assert page.evaluate(background) != light
    page.click("#theme")
    page.reload()
    assert page.evaluate(background) == light
