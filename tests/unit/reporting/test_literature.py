"""The literature's numbers: their schema, what is refused, and that they are apart."""

import csv
from pathlib import Path

import pytest

from bench import plugins
from bench.config import loader
from bench.config.settings import task_settings
from bench.errors import UserError
from bench.reporting import literature

SHIPPED = Path(__file__).parents[3] / "results/literature"
GOOD = {
    "method": "RotNet",
    "task": "VOC07 detection",
    "metric": "mAP",
    "value": "54.40",
    "backbone": "AlexNet",
    "pretraining": "ImageNet",
    "protocol": "Fast R-CNN",
    "source": "a paper",
    "url": "https://example.org/paper",
    "status": "verified",
    "note": "",
}


def save(folder, *rows, name="made.csv"):
    path = folder / name
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_what_ships_is_of_the_schema_and_its_page_is_current():
    found = literature.read_all(SHIPPED)
    assert {*found} == {"alexnet_linear", "resnet50", "resnet50_lowshot", "rotnet_voc", "vit"}
    assert not literature.stale(SHIPPED)
    for name in ("resnet50", "rotnet_voc"):
        assert {"verified", "unverified"} <= {n.status for n in found[name]}
        assert (SHIPPED / f"{name}.svg").is_file()


def test_two_values_of_one_source_differ_in_their_notes():
    for numbers in literature.read_all(SHIPPED).values():
        told = {(n.source, n.row, n.backbone, n.column, n.status, n.note) for n in numbers}
        assert len(told) == len(numbers)


def test_segmentation_of_another_network_is_never_comparable():
    columns = literature.read_names(SHIPPED).columns
    (moco, other) = [c for c in columns if c.task == "voc_seg"]
    assert (moco.protocols, moco.differs) == (("MoCo",), "")
    assert "DenseCL" in other.protocols and "stride 8" in other.differs


def test_the_names_that_ship_are_of_this_project_and_of_the_tables():
    names = literature.read_names(SHIPPED)
    numbers = [number for each in literature.read_all(SHIPPED).values() for number in each]
    assert {*names.methods} <= {*plugins.names("methods")}
    assert {name for each in names.methods.values() for name in each} <= {n.method for n in numbers}
    assert {*names.backbones.values()} <= {n.backbone for n in numbers}
    for column in names.columns:
        assert column.task in plugins.names("tasks")
        for protocol in column.protocols:
            key = (column.published, protocol, column.metric)
            assert key in {n.column for n in numbers}, key


def test_a_row_of_the_papers_setting_is_comparable():
    """What `voc` declares is what the columns ask for."""
    names = literature.read_names(SHIPPED)
    suite = loader.load("voc")
    for column in names.columns:
        settings = task_settings(suite, column.task).model_dump(mode="json")
        assert column.settings.items() <= settings.items(), column


def test_numbers_are_on_the_page_as_printed_with_status_and_source(tmp_path):
    doubt = GOOD | {"method": "BiGAN", "status": "conflicting"}
    save(
        tmp_path,
        GOOD,
        GOOD | {"method": "Jigsaw", "value": "53.2", "status": "unverified"},
        doubt | {"value": "52.3"},
        doubt | {"value": "52.5", "source": "a README", "note": "of the paper"},
        GOOD | {"method": "Jigsaw", "pretraining": "ImageNet-22k", "value": "60"},
    )
    page = literature.markdown(literature.read_all(tmp_path))
    assert "| RotNet | 54.40 [1] |" in page
    assert "| Jigsaw | 53.2? [1] |" in page
    assert "| BiGAN | 52.3! [1], 52.5! [2] |" in page
    assert "| Jigsaw (ImageNet-22k) | 60 [1] |" in page
    assert "- BiGAN, VOC07 detection, Fast R-CNN (mAP), 52.5: of the paper." in page
    assert "- [2] [a README](https://example.org/paper)" in page
    assert "never ranked with measured rows" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "a lot"}, r"line 2: key 'value' \('a lot'\)"),
        ({"value": "540"}, r"line 2: key 'value' \('540'\)"),
        ({"status": "sure"}, r"line 2: key 'status' \('sure'\)"),
        ({"url": "paper.pdf"}, r"line 2: key 'url' \('paper\.pdf'\)"),
        ({"method": ""}, r"line 2: key 'method' \(''\)"),
        ({"status": "conflicting"}, "is called conflicting, but has one value; give both"),
    ],
)
def test_a_bad_row_is_refused(tmp_path, change, message):
    save(tmp_path, GOOD | change)
    with pytest.raises(UserError, match=message):
        literature.read_all(tmp_path)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="contains no CSV files"):
        literature.read_all(tmp_path)
    with pytest.raises(UserError, match="line 3: duplicate row"):
        literature.read(save(tmp_path, GOOD, GOOD))
    with pytest.raises(UserError, match="the first line must be method,task,metric,value"):
        literature.read(save(tmp_path, GOOD | {"stars": "5"}))
    path = save(tmp_path, GOOD)
    path.write_text(path.read_text() + "a,b\n")
    with pytest.raises(UserError, match="line 3: has 2 cells, must have 11"):
        literature.read(path)


def test_the_command_renders_and_sees_a_stale_page(bench, tmp_path):
    methods = [f"method {n}" for n in range(literature.FEWEST)]
    save(tmp_path, *(GOOD | {"method": method} for method in methods))
    assert bench("literature", "--out", tmp_path, "--check").status == 2
    assert bench("literature", "--out", tmp_path).status == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {*first} == {"made.csv", "made.svg", "made.png", "LITERATURE.md"}
    assert bench("literature", "--out", tmp_path).status == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert bench("literature", "--out", tmp_path, "--check").status == 0
    (tmp_path / "made.svg").unlink()
    assert bench("literature", "--out", tmp_path, "--check").status == 2
    (tmp_path / "made.svg").write_bytes(first["made.svg"])
    save(tmp_path, GOOD)
    done = bench("literature", "--out", tmp_path, "--check")
    assert (done.status, "LITERATURE.md is stale" in done.error) == (2, True)


def test_control_characters_are_refused(tmp_path):
    for key in ("method", "note", "url"):
        path = save(tmp_path, GOOD | {key: f"{GOOD[key]}\u202e"})
        with pytest.raises(UserError, match=f"'{key}'.*has a control character"):
            literature.read(path)
