"""The page as a file; `test_browser.py` looks at it in a browser."""

import re
import shutil

import pytest
from made_page import PAGE, made
from made_up import FAILED, save

from bench import plugins
from bench.reporting import leaderboard, publish


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


def test_only_a_task_with_stages_has_a_stage_plot(folder):
    names = {path.stem for path in (folder / "made").glob("*.svg")}
    both = {f"{n}_{t}" for n in ("gap", "classes") for t in ("voc_cls", "voc_det")}
    assert names == both | {"stages_voc_cls"}
    text = (folder / "made/LEADERBOARD.md").read_text()
    for name in names:
        assert f"]({name}.svg)" in text


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
    assert "the best method here" not in text
    assert "Gap to ImageNet" not in text.split('class="reading"')[0]
    assert ">rotation</button>" in text


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
