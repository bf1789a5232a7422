"""Records and predictions of any content, checksum and all: left out by name, the rest unharmed."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from made_up import arrays_of, save

from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import audit, storage
from bench.runtime.fingerprint import file_digest

RECORD = "made/voc_cls/moco/seed0.json"
CURVE = {"steps": [1], "losses": {"loss": [1.0]}}


def rewrite(path, change, predictions=None):
    """Change the JSON of a record, and give it the checksum of what it has then."""
    data = json.loads(path.read_text())
    if predictions is not None:
        path.with_suffix(".npz").write_bytes(predictions)
        data["predictions"]["sha256"] = file_digest(path.with_suffix(".npz"))
    change(data)
    data["checksum"] = storage._checksum(data)
    path.write_text(json.dumps(data))


def put(*keys, value):
    def change(data):
        *tables, last = keys
        for key in tables:
            data = data[key]
        data[last] = value

    return change


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.fixture
def spoilt(tmp_path, cache):
    """The path of one of two records, and what is then said of it while the other is unharmed."""
    rest = save(tmp_path, "rotation", 0.8)
    save(tmp_path, "moco", 1.2)

    def reason(scored=False):
        records, problems = storage.read_valid(tmp_path / "made")
        if scored:
            problems = leaderboard.load(tmp_path / "made", cache).problems
        else:
            assert list(records.values()) == [rest]
        (problem,) = problems
        assert problem.path == tmp_path / RECORD
        assert "\n" not in str(problem)
        return problem.reason

    return tmp_path / RECORD, reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("value", value=float("nan")), "'value' ('nan')"),
        (put("value", value=1e9), "'value'"),
        (put("per_class", "ape", value=float("inf")), "'per_class.ape'"),
        (put("per_stage", value=[float("-inf")]), "'per_stage.0'"),
        (put("selected_stage", value=9), "selected_stage is none of per_stage"),
        (put("selected_stage", value=-1), "'selected_stage'"),
        (put("diagnostics", "optimism", value=float("nan")), "'diagnostics.optimism'"),
        (put("hyperparameters", "selected", value={"cost": float("inf")}), "no finite number"),
        (put("hyperparameters", "tried", value={"cost": [10**400]}), "above 2^53"),
        (put("hyperparameters", "selected", value=nested(99)), "deeper than 32 levels"),
        (put("hyperparameters", "num_settings", value=-1), "num_settings"),
        (put("recipe", "learning_rate", value=float("inf")), "'recipe'"),
        (put("task_settings", "costs", value=[float("nan")]), "'task_settings'"),
        (put("environment", "memory", value=float("nan")), "'environment'"),
        (put("environment", "processes", value=10**6), "environment.processes"),
        (put("environment", value={f"k{n}": "v" for n in range(1001)}), "environment"),
        (put("environment", "processes", value="many"), "environment.processes"),
        (put("environment", "commit", value=5), "environment.commit"),
        (put("environment", "device", value=["cpu"]), "'device' must be text"),
        (put("pretraining", "logged", value={"loss": float("nan")}), "pretraining"),
        (put("pretraining", "views_seen", value=10**30), "pretraining"),
        (put("pretraining", "seconds", value=-1.0), "negative cost"),
        (put("pretraining", "loss_curve", value=CURVE | {"steps": [0]}), "loss_curve.steps"),
        (put("timings", value={"evaluate": float("inf")}), "'timings.evaluate'"),
        (put("num_images", "voc_test", value=10**30), "num_images"),
        (put("encoder", "parameters", value=-5), "parameters"),
        (put("method_version", value=2**70), "method_version"),
        (put("seed", value=10**30), "'seed'"),
        (put("method", value="../../../../etc"), "'method'"),
        (put("method", value="a" * 5000), "'method'"),
        (put("task", value="voc\x00cls"), "'task'"),
        (put("task", value=".."), "'task'"),
        (put("predictions", "file", value="/etc/passwd"), "'predictions.file'"),
        (put("predictions", "file", value="../imagenet/seed0.npz"), "'predictions.file'"),
        (put("predictions", "file", value=""), "'predictions.file'"),
        (put("samples", value="/dev/zero"), "'samples'"),
        (put("predictions_image", value="../../x.png"), "'predictions_image'"),
        (put("a\nb\x1b[2J", value=1), r"'a b\x1b[2J'"),
        (put("suite_settings", "pretraining", "views", value=10**30), "suite_settings"),
        (put("suite_settings", "pretraining", "learning_rate", value=-1.0), "learning_rate"),
        (put("suite_settings", "recipes", value={"moco": nested(99)}), "suite_settings"),
    ],
)
def test_a_value_out_of_its_range_is_named(spoilt, change, message):
    path, reason = spoilt
    rewrite(path, change)
    assert message in reason()


def npz(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array, shape=None, kind=None, pickled=False):
    """An npy file, with a header that may say something else."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=pickled)
    content = buffer.getvalue()
    if shape or kind:
        header = {"descr": kind or array.dtype.str, "fortran_order": False, "shape": shape}
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, header)
        content = buffer.getvalue() + array.tobytes()
    return content


def packed(**changes):
    arrays = {name: npy(array) for name, array in arrays_of("moco", 1.2).items()}
    return npz(**arrays | changes)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (b"no zip", "BadZipFile"),
        (b"", "BadZipFile"),
        (npy(np.arange(3)), "BadZipFile"),
        (packed(ids=npy(np.array([{}, {}]), pickled=True)), "no array of plain values"),
        (packed(scores=npy(np.zeros(3), (10**12,))), "another size than its header says"),
        (packed(scores=npy(np.zeros(3), (2,))), "another size than its header says"),
        (packed(scores=npy(np.zeros(3), (-3, -1))), "no array of plain values"),
        (packed(ids=npy(np.zeros(0), (10**12,), "<U0")), "no array of plain values"),
        (packed(ids=npy(np.zeros(300_000, "<U1"))), "more than 200,000 images"),
        (packed(ids=npy(np.array("one"))), "cannot be scored"),
        (packed(scores=b"\x93NUMPY\x09\x00"), "unknown version"),
        (packed(scores=b""), "cannot be scored"),
        (packed(scores=npy(np.full((120, 3), np.nan))), "cannot be scored"),
        (packed(truth=npy(np.zeros((3, 3)))), "cannot be scored"),
    ],
)
def test_predictions_of_any_content_are_left_out(spoilt, predictions, message):
    path, reason = spoilt
    rewrite(path, lambda data: None, predictions)
    assert message in reason(scored=True)


def test_predictions_that_unpack_to_much_are_left_out(spoilt, monkeypatch):
    path, reason = spoilt
    monkeypatch.setattr(storage, "LARGEST_ARRAYS", 2**20)
    rewrite(path, lambda data: None, packed(scores=npy(np.zeros((2**18, 1)))))
    assert "arrays of more than 1,048,576 bytes" in reason(scored=True)


def test_predictions_are_read_with_one_line_where_a_row_is_compared(spoilt):
    path, _ = spoilt
    rewrite(path, lambda data: None, b"no zip")
    with pytest.raises(UserError, match=r"seed0\.npz: cannot be read \(BadZipFile"):
        storage.read_predictions(path, storage.read(path))


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("replace", [a_pipe, a_device, a_folder])
def test_only_regular_files_are_read(spoilt, replace):
    path, reason = spoilt
    content = path.read_bytes()
    replace(path)
    assert reason() == "is not a regular file"
    path.rmdir() if replace is a_folder else path.unlink()
    path.write_bytes(content)
    replace(path.with_suffix(".npz"))
    assert "seed0.npz: is not a regular file" in reason(scored=True)


def test_a_record_is_not_read_if_it_is_huge(spoilt):
    path, reason = spoilt
    with path.open("r+b") as stream:
        stream.truncate(2**40)
    assert "more than 16,777,216" in reason()


@pytest.mark.parametrize("first", ["9" * 5000, "[" * 5000 + "]" * 5000])
def test_a_key_twice_is_left_out(spoilt, first):
    path, reason = spoilt
    content = path.read_text()
    path.write_text(content.replace('"seed": 0', f'"seed": {first}, "seed": 0'))
    assert reason()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"[" * 10**5, b'{"suite": ' + b"9" * 10**5, b'{"suite":NaN}']
)
def test_content_that_is_no_record(spoilt, content):
    path, reason = spoilt
    path.write_bytes(content)
    assert reason().startswith("not a record")
    path.with_name(audit.FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"audit\.json: not an audit"):
        audit.read(path.parent)


@pytest.mark.timeout(20)
def test_an_audit_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / audit.FILE)
    with pytest.raises(UserError, match="is not a regular file"):
        audit.read(tmp_path)


def test_a_seed_of_another_number_of_stages_is_left_out(tmp_path):
    for seed in range(3):
        save(tmp_path, "moco", 1.2, seed=seed)
    odd = tmp_path / "made/voc_cls/moco/seed0.json"
    rewrite(odd, put("per_stage", value=[1.0, 2.0, 3.0]))
    loaded = leaderboard.load(tmp_path / "made")
    assert [problem.path for problem in loaded.problems] == [odd]
    assert "has 3 stages, but other seeds of its row have 2" in str(loaded.problems[0])
    assert len(loaded.tables[0].rows[0].records) == 2
