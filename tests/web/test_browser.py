"""The page in headless Chromium."""

import itertools
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from made_page import PAGE, QUALITIES, made

from bench.reporting import csv, leaderboard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("page")
    made(where)
    return where


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not chromium():
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        # Root may not use Chromium's sandbox; the one page that it opens is ours.
        options = {"executable_path": chromium(), "args": ["--no-sandbox"]}
        with running.chromium.launch(**options) as opened:
            yield opened


class Visit:
    """The page in a window, with all that it asked for and complained of."""

    def __init__(self, browser, path, query="", **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.url = path.as_uri() + query
        self.page.goto(self.url)

    def column(self, table, place):
        """The texts of a column of the n-th table, shown rows only."""
        rows = self.page.locator("table.leaderboard").nth(table).locator("tbody tr:visible")
        return rows.evaluate_all("(rows, n) => rows.map((r) => r.cells[n].innerText)", place)

    def names(self, table):
        """The identifiers of the n-th table's shown rows."""
        rows = self.page.locator("table.leaderboard").nth(table).locator("tbody tr:visible")
        return rows.evaluate_all("(rows) => rows.map((r) => r.dataset.method)")


@pytest.fixture
def visit(browser, folder):
    opened = []

    def go(path=folder / PAGE, **options):
        opened.append(Visit(browser, path, **options))
        return opened[-1]

    yield go
    for each in opened:
        each.context.close()
        assert each.complaints == [], "the page complained on the console"
        assert all(url.startswith("file:") for url in each.requests)


def first(texts):
    return [text.split()[0] for text in texts]


def test_headers_sort_both_ways_and_missing_values_stay_last(visit):
    page = visit()
    table = page.page.locator("table.leaderboard").nth(0)
    header = table.locator("thead th").nth(2)
    for expected, order in (("descending", -1), ("ascending", 1)):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == expected
        values = first(page.column(0, 2))
        assert values[-1] == "\N{EN DASH}"
        numbers = [float(value) for value in values[:-1]]
        assert numbers == sorted(numbers, key=lambda v: order * v)
        assert len(numbers) == len(QUALITIES)
    names = table.locator("thead th").nth(1)
    names.locator("button").click()
    assert names.get_attribute("aria-sort") == "ascending"
    assert header.get_attribute("aria-sort") is None
    assert page.names(0) == sorted([*QUALITIES, "broken"])
    gap = table.get_by_role("button", name="Gap to ImageNet", exact=True)
    for _ in range(2):
        gap.click()
        gaps = first(page.column(0, 3))
        assert gaps[-2:] == 2 * ["\N{EN DASH}"], "imagenet has none and the failed row has none"


def test_filters_by_identifier_and_display_name(visit):
    page = visit()
    for part in ("ROTA", "rotation"):
        page.page.fill("#find", part)
        for table in range(3):  # two tasks, then the overview
            assert page.names(table) == ["rotation"]
        assert page.page.inner_text("#count") == "1 of 5 methods"
    page.page.fill("#find", "random init")
    assert page.names(0) == ["random_init"]
    page.page.fill("#find", "nothing")
    assert page.page.locator(".none:visible").count() == 2
    page.page.fill("#find", "")
    assert len(page.names(0)) == 5


def test_losses_are_drawn_in_their_panels_and_filtered(visit):
    page = visit().page
    assert page.locator(".curve:visible").count() == 3
    sizes = page.locator(".curve").evaluate_all(
        """(panels) => panels.map((panel) => {
        const [svg, line] = ["svg", "polyline"].map((n) => panel.querySelector(n));
        const [inner, outer] = [line, svg].map((e) => e.getBoundingClientRect());
        return [outer.height, inner.width / outer.width, inner.left - outer.left];
        })"""
    )
    for height, share, left in sizes:
        assert height > 60
        assert 0.97 < share <= 1.02 and left > -2
    page.locator(".curve").first.hover()
    assert "from 1.4 to 0.281 in 1,600 steps" in page.inner_text("#tip")
    page.fill("#find", "jig")
    assert page.locator(".curve:visible").count() == 2


def test_more_columns_on_demand(visit):
    page = visit()
    table = page.page.locator("table.leaderboard").nth(1)
    assert not table.get_by_text("tried").is_visible()
    page.page.check("#more")
    assert table.get_by_text("tried").is_visible()
    assert table.get_by_text("learning rate 0.1").first.is_visible()


def test_a_row_opens_its_details_and_images_come_when_asked_for(visit, folder):
    page = visit()
    page.page.locator("#voc_det button.open").nth(1).click()
    dialog = page.page.locator("dialog[open]")
    text = dialog.inner_text()
    assert all(word in text for word in ("rotation", "ape", "learning rate", "JSON"))
    assert page.requests == [page.url], "opening the page and a row asks for nothing"
    dialog.get_by_text("Predictions beside ground truth").click()
    image = dialog.locator("img")
    image.wait_for()
    page.page.wait_for_function("document.querySelector('dialog[open] img').naturalWidth > 0")
    shown = (folder / "made/voc_det/rotation/predictions.png").as_uri()
    assert page.requests == [page.url, shown]
    page.page.keyboard.press("Escape")
    assert page.page.locator("dialog[open]").count() == 0


def test_pointing_shows_intervals(visit):
    page = visit()
    for place in ("#voc_cls td[data-tip]", "figure.gap [data-tip]"):
        page.page.locator(place).first.hover()
        assert re.search(r"[\d.]+.*([\d.]+ to|\[[\d.]+, )", page.page.inner_text("#tip"))
    page.page.mouse.move(0, 0)
    assert not page.page.is_visible("#tip")


def test_themes_follow_the_system_until_one_is_chosen(visit):
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = visit(color_scheme="light").page.evaluate(background)
    page = visit(color_scheme="dark").page
    dark = page.evaluate(background)
    assert light != dark
    page.click("#theme")
    assert page.evaluate(background) == light
    page.reload()
    assert page.evaluate(background) == light
    page.click("#theme")
    assert page.evaluate(background) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_no_page_sideways(visit, scheme):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True).page
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    hints = page.locator(".leaderboard").locator("xpath=../preceding-sibling::p[@class='sideways']")
    assert all(hint.is_visible() for hint in hints.all()[:2]), "a table that scrolls says so"
    page.check("#more")
    page.click("summary")
    assert page.evaluate(wide) == 0
    page.select_option("#compare select >> nth=0", "rotation")
    page.select_option("#compare select >> nth=1", "random_init")
    assert page.evaluate(wide) == 0
    page.locator("button.open").first.tap()
    assert page.evaluate(wide) == 0
    inside = "(d => d.scrollWidth - d.clientWidth)(document.querySelector('dialog[open]'))"
    assert page.evaluate(inside) == 0
    cut = """[...document.querySelectorAll('dialog[open] *, header *, .bar *')].filter((e) => {
        const box = e.getBoundingClientRect();
        return box.width && !e.closest('.scroll') && box.right > innerWidth + 1;
    }).map((e) => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(cut) == []


def test_a_keyboard_reaches_everything_and_sees_where_it_is(visit):
    page = visit().page
    wanted = page.evaluate(
        """[...document.querySelectorAll('a, button, input, select, summary, [tabindex="0"]')]
        .filter((e) => e.checkVisibility()).length"""
    )
    seen = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        state = page.evaluate(
            """(() => { const e = document.activeElement;
            const ring = (e.closest('.chip') ?? e);
            return [e.outerHTML.slice(0, 90), getComputedStyle(ring).outlineStyle]; })()"""
        )
        assert state[1] != "none", f"no visible focus: {state[0]}"
        seen.append(page.evaluate("document.activeElement.getBoundingClientRect().width > 0"))
    assert all(seen)
    page.keyboard.press("Tab")
    ends = page.evaluate("document.activeElement === document.body")
    assert ends, "what can be reached was reached, once each"
    sorter = page.locator("table.leaderboard").nth(0).locator("thead button").nth(1)
    sorter.focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").count() == 1
    page.locator("button.open").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    assert "open" in page.evaluate("document.activeElement.className"), "focus comes back"


def test_the_skip_link_shows_and_skips(visit):
    page = visit().page
    page.keyboard.press("Tab")
    link = page.locator(".skip")
    assert link.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "tables"


# Text and what lies behind it, as painted: colors of the nearest opaque background.
COLORS = """(where) => {
  const rgb = (c) => [...c.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const over = (top, low) => top.slice(0, 3).map((v, i) => v * top[3] + low[i] * (1 - top[3]));
  const behind = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) {
      layers.push(rgb(getComputedStyle(e).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((low, top) => over(top, low), [255, 255, 255]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.querySelector(where), NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility({visibilityProperty: true})) continue;
    if (e.closest('.classes svg') && e.closest('text')?.style.fill.match(/rgb/)) continue;
    const style = getComputedStyle(e);
    const ground = behind(e);
    const ink = e.closest('text') ? style.fill : style.color;
    found.push([walk.currentNode.data.trim().slice(0, 40), over(rgb(ink), ground), ground,
                parseFloat(style.fontSize), Number(style.fontWeight)]);
  }
  return found;
}"""


def contrast(one, two):
    """WCAG 2.2, relative luminance and contrast ratio."""

    def luminance(color):
        c = np.asarray(color[:3]) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_says():
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_enough(visit, scheme):
    page = visit(color_scheme=scheme).page
    page.check("#more")
    page.click("summary")
    page.evaluate("pick('rotation')")
    page.select_option("#compare select >> nth=0", "rotation")
    page.select_option("#compare select >> nth=1", "random_init")
    found = page.evaluate(COLORS, "body")
    page.locator("tr[data-method=broken] button.open").click()
    found += page.evaluate(COLORS, "dialog[open]")
    page.keyboard.press("Escape")
    page.locator("table.leaderboard tbody tr").first.hover()
    found += page.evaluate(COLORS, "table.leaderboard")
    page.locator("#voc_cls td[data-tip]").first.hover()
    found += page.evaluate(COLORS, "#tip")
    assert len(found) > 200
    poor = [
        (text, round(contrast(ink, ground), 2))
        for text, ink, ground, *_ in found
        if contrast(ink, ground) < 4.5
    ]
    assert poor == []


def test_the_first_figure_and_its_sentence_are_seen_without_scrolling(visit):
    page = visit(viewport={"width": 1280, "height": 800}).page
    for part in (".plot.gap svg", ".plot.gap .lead"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 800
        assert box["width"] > 100


def test_six_columns_fit_a_laptop(visit):
    page = visit(viewport={"width": 1280, "height": 800}).page
    widths = """[...document.querySelectorAll('table.leaderboard')].map((table) => {
        const shown = [...table.rows[0].cells].filter((cell) => cell.checkVisibility());
        const box = table.parentElement;
        return [shown.map((cell) => cell.innerText), box.scrollWidth - box.clientWidth];
    })"""
    (ranked, over), (plain, other), _ = page.evaluate(widths)
    assert (over, other) == (0, 0)
    assert [name.split()[0] for name in ranked] == [
        *("Rank", "Method", "mAP", "Gap", "Gain", "Warnings")
    ]
    assert [name.split()[0] for name in plain] == ["Method", "mAP", "Gap", "Gain"]
    assert page.locator(".sideways:visible").count() == 0
    page.check("#more")
    assert page.locator(".sideways:visible").count() == 2, "with more columns they scroll"


MARKED = "[...document.querySelectorAll('tr[aria-current]')].map((row) => row.dataset.method)"


def test_a_link_opens_a_task_and_marks_a_method(visit):
    page = visit().page
    top = "document.getElementById('voc_det').getBoundingClientRect().top"
    page.click("nav a[href='#voc_det']")
    assert 0 <= page.evaluate(top) < 150
    page.locator("#voc_cls tr[data-method=rotation] .score").click()
    assert page.url.endswith("leaderboard.html?method=rotation#voc_det")
    assert page.evaluate(MARKED) == ["rotation"] * 3
    page = visit(query="?method=rotation#voc_det").page
    assert page.evaluate(MARKED) == ["rotation"] * 3
    row = page.locator("#voc_det tr[data-method=rotation]")
    page.wait_for_function("scrollY > 0")
    box = row.bounding_box()
    assert 0 < box["y"] < page.viewport_size["height"], "the row of the task is in view"
    assert visit(query="?method=nobody#nowhere").page.evaluate(MARKED) == []


def texts(page, where):
    return page.locator(where).evaluate_all("(parts) => parts.map((part) => part.innerText)")


def test_two_rows_are_compared_in_every_task_that_has_both(visit, folder):
    pairs = leaderboard.load(folder / "made").pairs_dataframe()
    page = visit().page
    assert not page.is_visible("#compare table")
    page.select_option("#compare select >> nth=0", "jig_saw")
    page.select_option("#compare select >> nth=1", "rotation")
    assert page.url.endswith("?compare=jig_saw,rotation")
    pair = pairs.query("method == 'jig_saw' and other == 'rotation'").set_index("task")
    for _ in range(2):  # as selected, and as a link
        rows = texts(page, "#compare tbody tr")
        assert [row.split()[0] for row in rows] == ["voc_cls", "voc_det"]
        for row, task in zip(rows, pair.index, strict=True):
            value, low, high = pair.loc[task, ["difference", "low", "high"]]
            difference = f"{value:z.1f} [{low:z.1f}, {high:z.1f}]".replace("-", "\N{MINUS SIGN}")
            assert difference in row
        assert rows[0].split("\t")[-1] == f"{100 * pair.loc['voc_cls', 'p_better']:.0f}%"
        assert rows[1].split("\t")[-1] == "\N{EN DASH}", "nothing is known of its training runs"
        page.reload()
    page.select_option("#compare select >> nth=1", "broken")
    assert "No task has both." in page.inner_text("#compare")
    assert not visit(query="?compare=nobody,rotation").page.is_visible("#compare table")


def test_a_row_leads_to_its_comparison_by_keyboard(visit):
    page = visit().page
    page.locator("#voc_cls tr[data-method=rotation] button.open").focus()
    page.keyboard.press("Space")
    page.locator("dialog[open] .with").focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.type("random")
    assert "compare=rotation,random_init" in page.url
    assert "\nvoc_det\t" in page.inner_text("#compare table")


def test_tables_and_figures_are_copied(visit, folder):
    opened = visit(permissions=["clipboard-read", "clipboard-write"])
    page = opened.page
    found = leaderboard.load(folder / "made")
    table = next(table for table in found.tables if table.name == "voc_det")

    def copied(form):
        page.locator(f"#voc_det .take[data-takes={form}]").first.click()
        page.wait_for_function("said.textContent.startsWith('Copied')")
        return page.evaluate("navigator.clipboard.readText()")

    assert copied("csv") == csv.render([table])
    assert copied("latex") == found.to_latex("voc_det")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        drawing = copied("svg")
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in drawing and "#1c1f23" in drawing, "the light theme's ink"


def test_a_page_that_may_not_copy_says_so(visit):
    page = visit().page
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator(".take").first.click()
    assert page.inner_text("#said") == "The browser does not let this page copy."


def test_paper_has_tables_and_no_controls(visit):
    page = visit().page
    page.select_option("#compare select >> nth=0", "rotation")
    page.select_option("#compare select >> nth=1", "jig_saw")
    page.emulate_media(media="print", color_scheme="dark")
    shown = page.evaluate(
        """[...document.querySelectorAll('input, select, nav, .take, #theme, .sideways')]
        .filter((e) => e.checkVisibility()).length"""
    )
    assert shown == 0
    assert page.is_visible("#voc_cls table") and page.is_visible("#compare table")
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert background == "rgb(247, 246, 243)", "paper is light"
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_in_a_heat_map_stand_out_from_their_cells(visit, scheme):
    page = visit(color_scheme=scheme).page
    cells = page.evaluate(
        """[...document.querySelectorAll('.classes svg')].map((svg) => {
        const fill = (e) => getComputedStyle(e).fill.match(/[\\d.]+/g).map(Number);
        const boxes = [...svg.querySelectorAll('[id*=QuadMesh] path')];
        const texts = [...svg.querySelectorAll('text')].filter((t) => t.style.fill.match(/rgb/));
        return texts.map((t) => {
            const at = t.getBoundingClientRect();
            const [x, y] = [at.x + at.width / 2, at.y + at.height / 2];
            const under = boxes.filter((b) => { const r = b.getBoundingClientRect();
                return r.left < x && x < r.right && r.top < y && y < r.bottom; });
            return [t.textContent, fill(t), under.map(fill)];
        });})"""
    )
    assert len(cells) == 2
    for text, ink, under in itertools.chain.from_iterable(cells):
        assert len(under) == 1, f"{text} lies in {len(under)} cells"
        assert contrast(ink, under[0]) >= 4.5, text
