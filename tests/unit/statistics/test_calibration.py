"""`[uncertainty]`: made from records, written, read, and used only where it holds."""

import tomllib

import pytest
from made_up import encoder, save

from bench.encoders.pretraining import LearningRates, TrainingTrace
from bench.errors import UserError
from bench.statistics import calibration

SUITE = "a" * 64  # of the records that `save` makes
TRACE = TrainingTrace([0], [], LearningRates(1.0, 1.0, 1.0, "a" * 64), 64, {})
ROTATION = (26.2, 26.0, 27.1)


@pytest.fixture
def record(tmp_path):
    """A record by method, seed and value."""

    def make(method, seed, value, **changes):
        entry = save(tmp_path / "records", method, 0.8, seed)
        return entry.model_copy(update={"value": value, **changes})

    return make


@pytest.fixture
def records(record):
    rows = {"rotation": ROTATION, "random_init": (24.0, 25.0), "jigsaw": (30.0,)}
    return [
        record(method, seed, value)
        for method, values in rows.items()
        for seed, value in enumerate(values)
    ]


@pytest.fixture
def made(records):
    return calibration.calibrate(records, {("voc_cls", "rotation"): 0.25})


def test_rows_have_a_kind_by_their_role_and_by_what_the_task_trains(record):
    assert calibration.kind_of(record("rotation", 0, 30.0)) == "pretrained"
    assert calibration.kind_of(record("random_init", 0, 30.0)) == "untrained"
    assert calibration.kind_of(record("imagenet", 0, 30.0)) == "reference"
    for method in ("rotation", "random_init", "imagenet"):
        assert calibration.kind_of(record(method, 0, 30.0, training=TRACE)) == "fine-tuned"


def test_a_calibration_has_the_seeds_of_every_row_of_several(made):
    assert made.suite_sha256 == SUITE
    rows = made.tasks["voc_cls"].rows
    assert set(rows) == {"rotation", "random_init"}
    assert rows["rotation"].values == ROTATION
    assert (rows["rotation"].kind, rows["rotation"].interaction) == ("pretrained", 0.25)
    assert (rows["random_init"].kind, rows["random_init"].interaction) == ("untrained", None)


def test_seeds_are_in_order_whatever_that_of_the_records(records):
    backwards = calibration.calibrate(records[::-1], {})
    assert backwards.tasks["voc_cls"].rows["rotation"].values == ROTATION


def test_a_gap_in_the_seeds_ends_a_row(record):
    entries = [record("rotation", seed, 20.0 + seed) for seed in (0, 1, 3)]
    assert calibration.calibrate(entries, {}).tasks["voc_cls"].rows["rotation"].values == (20, 21)


def test_text_gives_what_it_was_written_from(made):
    text = calibration.to_toml(made)
    assert calibration.parse(tomllib.loads(text), "file") == made


def test_a_section_is_put_at_the_end_in_place_of_an_older_one(made, records):
    suite = 'name = "made"\n\n[tasks.voc_cls]\ncosts = [1]\n'
    old = calibration.to_toml(calibration.calibrate(records[:3], {}))
    new = calibration.to_toml(made)
    text = calibration.put(calibration.put(suite, old), new)
    assert text == calibration.put(suite, new) == f"{suite}\n{new}"
    assert calibration.put("", new) == new
    assert calibration.put(new, new) == new
    tables = tomllib.loads(text)
    assert calibration.parse(tables, "file") == made
    assert tables["name"] == "made"


def test_whatever_else_a_file_has_stays_where_a_section_is_replaced(made, records):
    old = calibration.to_toml(calibration.calibrate(records[:3], {}))
    comment = "# seeds are few: see [uncertainty] at the end\n"
    suite = (
        f'name = "made"\n{comment}seeds = 3\n\n{old}\n# of the probe\n[tasks.voc_cls]\nsize = 96\n'
    )
    text = calibration.put(suite, calibration.to_toml(made))
    tables = tomllib.loads(text)
    assert calibration.parse(tables, "file") == made
    del tables["uncertainty"]
    assert tables == {"name": "made", "seeds": 3, "tasks": {"voc_cls": {"size": 96}}}
    assert comment in text and "# of the probe" in text


def test_a_row_of_another_backbone_is_not_told_of(made, record):
    other = encoder("rgb", backbone="resnet18")
    assert calibration.task(made, record("rotation", 0, 30.0, encoder=other)) is None


def test_the_file_beside_the_records_is_read_for_its_suite_alone(made, tmp_path):
    (tmp_path / calibration.FILE).write_text(calibration.to_toml(made))
    assert calibration.read(tmp_path, "made", SUITE) == made
    assert calibration.read(tmp_path, "made", "b" * 64) is None
    assert calibration.read(tmp_path / "elsewhere", "made", SUITE) is None


def test_the_file_beside_the_records_comes_before_that_of_the_suite(
    made, records, tmp_path, monkeypatch
):
    shipped = calibration.calibrate(records[:3], {})
    tables = tomllib.loads(calibration.to_toml(shipped))
    monkeypatch.setattr(calibration.loader, "names", lambda: ["made"])
    monkeypatch.setattr(calibration.loader, "read_tables", lambda name: tables)
    assert calibration.read(tmp_path, "made", SUITE) == shipped
    (tmp_path / calibration.FILE).write_text(calibration.to_toml(made))
    assert calibration.read(tmp_path, "made", SUITE) == made


def test_a_task_of_another_version_or_other_settings_is_not_used(made, record):
    part = made.tasks["voc_cls"]
    assert calibration.task(made, record("rotation", 0, 30.0)) == part
    assert calibration.task(None, record("rotation", 0, 30.0)) is None
    for changes in (
        {"task": "voc_det"},
        {"task_version": 2},
        {"task_settings": {"dataset": "voc", "costs": [0.1]}},
    ):
        assert calibration.task(made, record("rotation", 0, 30.0, **changes)) is None


def test_a_row_of_another_version_or_recipe_does_not_hold(made, record):
    row = made.tasks["voc_cls"].rows["rotation"]
    assert calibration.holds(row, record("rotation", 0, 30.0))
    assert not calibration.holds(row, record("rotation", 0, 30.0, method_version=2))
    assert not calibration.holds(row, record("rotation", 0, 30.0, recipe={"views": 200}))


def test_tables_without_a_section_have_no_calibration():
    assert calibration.parse({"name": "made"}, "file") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[uncertainty", "not TOML"),
        ("uncertainty = 3", "dictionary"),
        ("[uncertainty]\ntasks = {}", "suite_sha256"),
        ('[uncertainty]\nsuite_sha256 = "a"\ntasks = {}\nother = 1', "other"),
        ('[uncertainty]\nsuite_sha256 = "a"\ntasks = {x = {version = "one"}}', "tasks.x.version"),
        (b"\xff", "not TOML"),
    ],
)
def test_a_bad_file_is_one_line_with_the_command_that_makes_it(content, words, tmp_path):
    file = tmp_path / calibration.FILE
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        calibration.read(tmp_path, "made", SUITE)
    message = str(error.value)
    assert str(file) in message and words in message and "bench calibrate" in message
    assert "\n" not in message


def test_a_folder_in_place_of_the_file_is_passed_over(tmp_path):
    (tmp_path / calibration.FILE).mkdir()
    assert calibration.read(tmp_path, "made", SUITE) is None
