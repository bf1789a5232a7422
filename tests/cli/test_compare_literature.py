"""`bench compare ROW literature`: published numbers beside a row, and when they do not compare."""

import pytest
from made_up import SUITE, encoder, save

from bench.commands import compare
from bench.config.schema import Synthetic
from bench.errors import UserError
from bench.reporting import leaderboard, literature
from bench.statistics.intervals import ConfidenceInterval

HEAD = "method,task,metric,value,backbone,pretraining,protocol,source,url,status,note"
NUMBERS = """
RotNet,VOC07 probe,mAP,50.5,Net,ImageNet,SVM,a paper,https://example.org/a,unverified,
RotNet,VOC07 probe,mAP,51.25,Net,ImageNet,SVM,a repository,https://example.org/b,verified,a rerun
RotNet,VOC07 probe,mAP,40,Other,ImageNet,SVM,a paper,https://example.org/a,verified,
RotNet,VOC07 probe,mAP,60,Net,ImageNet,fine-tuned,a paper,https://example.org/a,verified,
Jigsaw,VOC07 probe,mAP,45,Net,ImageNet,SVM,a paper,https://example.org/a,verified,
RotNet,VOC07 few,mAP,20,Net,ImageNet,k = 1,a paper,https://example.org/a,verified,
"""
NAMES = """
[methods]
rotation = ["RotNet"]

[backbones]
net = "Net"

[[columns]]
task = "voc_cls"
published = "VOC07 probe"
metric = "mAP"
protocols = ["SVM"]
images = [300, 120]
settings = { dataset = "voc" }

[[columns]]
task = "voc_cls"
score = "mAP_k1"
published = "VOC07 few"
metric = "mAP"
protocols = ["k = 1"]
images = [300, 120]
differs = "no augmentation, published: crops"
"""
SIZES = {"voc_train": 300, "voc_test": 120}


@pytest.fixture
def tables(tmp_path):
    place = tmp_path / "tables"
    place.mkdir()
    (place / "made.csv").write_text(HEAD + NUMBERS)
    (place / literature.NAMES).write_text(NAMES)
    return place


def test_a_score_is_beside_the_numbers_of_its_method_and_protocol(tmp_path, tables):
    for seed in (0, 1):
        save(tmp_path, "rotation", 0.8 + seed / 10, seed, num_images=SIZES)
    found = compare.published("rotation", tmp_path, tables)
    assert [each.number.value for each in found] == ["50.5", "51.25", "40", "20"]
    shown = leaderboard.load(tmp_path / "made").tables[0].rows[0].value
    first = found[0]
    assert first.score == shown
    assert first.reasons == ()
    moved = ConfidenceInterval(shown.low - 50.5, shown.high - 50.5)
    assert first.difference.value == pytest.approx(shown.value - 50.5)
    assert first.difference.interval == pytest.approx(moved)
    assert found[2].reasons == ("backbone net, published: Other",)
    assert found[2].difference is None
    assert found[3].score is None, "the record has no such diagnostic"
    assert found[3].reasons == ("no augmentation, published: crops",)


def test_a_diagnostic_has_no_interval(tmp_path, tables):
    for seed, value in enumerate((10.0, 30.0)):
        save(tmp_path, "rotation", 0.8, seed, num_images=SIZES, diagnostics={"mAP_k1": value})
    found = compare.published("rotation", tmp_path, tables)[-1]
    assert (found.score.value, found.score.interval) == (20.0, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_images": SIZES | {"voc_train": 80}}, "trained on 80 images, published: 300"),
        ({"num_images": SIZES | {"voc_test": 9}}, "tested on 9 images, published: 120"),
        ({"task_settings": {"dataset": "x"}}, "dataset = x, published: voc"),
        ({"encoder": encoder("rgb", backbone="vit")}, "backbone vit, published: Net"),
    ],
)
def test_another_protocol_is_shown_with_the_reason_and_no_difference(
    tmp_path, tables, changes, reason
):
    save(tmp_path, "rotation", 0.8, **{"num_images": SIZES, **changes})
    first = compare.published("rotation", tmp_path, tables)[0]
    assert first.reasons == (reason,)
    assert (first.score is not None, first.difference) == (True, None)


def test_rendered_images_are_never_comparable(tmp_path, tables):
    synthetic = Synthetic(seed=0, size=16, pretraining=1, validation=1, train=300, test=120)
    suite = SUITE.model_copy(update={"synthetic": synthetic})
    save(tmp_path, "rotation", 0.8, num_images=SIZES, suite_settings=suite)
    assert compare.published("rotation", tmp_path, tables)[0].reasons == (
        "its images are rendered",
    )


def test_the_command_shows_source_status_and_one_line_a_task(bench, tmp_path, tables, monkeypatch):
    save(tmp_path, "rotation", 0.8, num_images=SIZES | {"voc_train": 80})
    monkeypatch.setattr("bench.cli.results.TABLES", tables)
    monkeypatch.setenv("COLUMNS", "200")
    done = bench("compare", "rotation", "literature", "--out", tmp_path)
    assert done.status == 0
    assert "A = rotation, B = literature" in done.out
    assert "verified, a repository, a rerun" in done.out
    assert "unverified, a paper" in done.out
    (line,) = [line for line in done.out.splitlines() if "not comparable" in line]
    assert line.startswith(
        "voc_cls, not comparable: trained on 80 images, published: 300; backbone"
    )
    assert "no ranking" in done.out


def test_nothing_published_and_bad_names_are_one_line(tmp_path, tables, folder):
    with pytest.raises(UserError, match=r"^imagenet: .* has no number of it in voc_cls; see names"):
        compare.published("imagenet", folder, tables)
    (tables / literature.NAMES).write_text(NAMES.replace("published =", "publish ="))
    with pytest.raises(UserError, match=r"names\.toml: .*publish"):
        compare.published("rotation", folder, tables)
    (tables / literature.NAMES).unlink()
    with pytest.raises(UserError, match=r"names\.toml"):
        compare.published("rotation", folder, tables)
