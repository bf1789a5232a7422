"""The environment: what decides is owned, what contradicts is refused, the rest does not matter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.harness import REFUSED, attempt, check, examples, executed, one_line
from hypothesis import given, note
from hypothesis import strategies as st

from bench.runtime import distributed, variables
from bench.runtime.environment import _revision

TORCHRUN = {
    **{"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
}
ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
NO_NUMBERS = (
    "",
    " ",
    "x",
    "-1",
    "+1",
    "1.0",
    "1e1",
    "0x1",
    "²",
    "\u0661",
    "1\n",
    "00",
    "01",
    " 1",
    "9" * 30,
)
DECIDING = (
    *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP", "ACCELERATE_DYNAMO_BACKEND"),
    *("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_USE_CPU", "FSDP_SHARDING_STRATEGY"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "DNNL_DEFAULT_FPMATH_MODE"),
    "ONEDNN_DEFAULT_FPMATH_MODE",
)
INDIFFERENT = ("HOME", "LANG", "GIT_DIR", "MPLBACKEND", "SSL_GAP_CACHE", "RANKS", "MY_RANK", "x")
ANY = st.sampled_from(["", "0", "1", "-1", "bf16", "no", "é", "x" * 5000, "a\nb", "\udcff"])


def owned(given_):
    """What is left of the variables."""
    left = dict(given_)
    variables.own(left)
    return left


@examples(150)
@given(data=st.data())
def test_variables_of_launchers(data):
    """Those of one process alone or of torchrun are taken; a part of them or no numbers are not."""
    whole = data.draw(st.sampled_from([TORCHRUN, ALONE]))
    kind = data.draw(st.sampled_from(["whole", "part", "number", "order"]))
    given_ = dict(whole)
    label = "harmless"
    if kind == "part":
        absent = data.draw(st.sets(st.sampled_from(sorted(given_)), min_size=1))
        given_ = {name: value for name, value in given_.items() if name not in absent}
        left = given_.keys() & {"RANK", "WORLD_SIZE", "LOCAL_RANK"}
        needed = whole.keys() if whole is TORCHRUN else {"RANK", "WORLD_SIZE"}
        label = "harmless" if not left or needed <= given_.keys() else "harmful"
    if kind == "number":
        name = data.draw(st.sampled_from(["RANK", "WORLD_SIZE", "LOCAL_RANK"]))
        given_[name] = data.draw(st.sampled_from(NO_NUMBERS))
        label = "harmful"
    if kind == "order":
        given_["RANK"] = data.draw(st.sampled_from([given_["WORLD_SIZE"], "7", "999999"]))
        label = "harmful"
    note(str(given_))
    check(label, attempt("variable", lambda: owned(given_)), given_)


@examples(150)
@given(data=st.data())
def test_variables_of_others(data):
    """Those that would decide are gone; those that do not matter stay."""
    mine = data.draw(st.dictionaries(st.sampled_from(INDIFFERENT), ANY, max_size=4))
    theirs = data.draw(st.dictionaries(st.sampled_from(DECIDING), ANY, max_size=4))
    check("harmless", attempt("variable", lambda: owned(mine | theirs)), mine)


@examples(60)
@given(data=st.data())
def test_names_of_gpus(data):
    good = ["", " ", "0", "0,1", "1, 0", "-1", "NoDevFiles", "GPU-8932f937-d72c", "MIG-GPU-x/1/2"]
    bad = [
        "x",
        "0,0",
        "0;1",
        "0,,1",
        "0,",
        ",",
        "gpu0",
        "cuda:0",
        "0-3",
        "all",
        "none",
        "0\n1",
        "0,-1",
    ]
    harmless = data.draw(st.booleans())
    given_ = {"CUDA_VISIBLE_DEVICES": data.draw(st.sampled_from(good if harmless else bad))}
    result = attempt("variable", lambda: owned(given_))
    check("harmless" if harmless else "harmful", result, given_)


@examples(60)
@given(data=st.data())
def test_one_process_is_the_main_one(data):
    """Whatever is taken for one process or for several names the main one."""
    value = st.sampled_from(["0", "1", "2", "00", "01", "x", ""])
    names = st.sampled_from([*sorted(TORCHRUN)[:1], "RANK", "WORLD_SIZE", "LOCAL_RANK"])
    given_ = TORCHRUN | data.draw(st.dictionaries(names, value))
    result = attempt("variable", lambda: owned(given_))
    if result is REFUSED:
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, text in result.items():
            patch.setenv(name, text)
        assert distributed.is_main() == (int(result["RANK"]) == 0)
        assert distributed.world_size() == int(result["WORLD_SIZE"])


@pytest.mark.parametrize(
    "name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CEILING_DIRECTORIES"]
)
@pytest.mark.parametrize("value", ["", "/nonexistent", "/", "\udcff"])
def test_variables_of_git(monkeypatch, name, value):
    folder = Path(variables.__file__).parents[1]
    expected = _revision(folder)
    monkeypatch.setenv(name, value)
    check("harmless", attempt_with_git(folder), expected)


def attempt_with_git(folder):
    """The revision that records name; git is a process of its own."""
    executed["variable"] += 1
    return _revision(folder)


# In a process of its own, as a shell starts it: (variables, status).
STARTS = [
    ({"RANK": "1"}, 2),
    ({"WORLD_SIZE": "2"}, 2),
    ({"RANK": "00", "WORLD_SIZE": "1"}, 2),
    ({"CUDA_VISIBLE_DEVICES": "first"}, 2),
    ({"ACCELERATE_MIXED_PRECISION": "fp8", "MPLBACKEND": "module://nosuch"}, 0),
    ({"MPLBACKEND": "nosuch", "MATPLOTLIBRC": "/nonexistent"}, 0),
    ({"SSL_GAP_WORKERS": "many"}, 2),
    ({"SSL_GAP_WORKERS": "-1"}, 2),
    ({"COLUMNS": "0", "TERM": "dumb", "NO_COLOR": "1"}, 0),
    ({"COLUMNS": "x", "LINES": "-5", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, 0),
    ({"COLUMNS": "\u00b2", "TERMINAL_WIDTH": "auto", "NUMPY_MADVISE_HUGEPAGE": "x"}, 0),
    ({"SSL_GAP_CACHE": "/proc/nosuch"}, 0),
]


@pytest.mark.parametrize(("given_", "status"), STARTS, ids=lambda v: str(v)[:40])
def test_a_command_in_an_environment(given_, status, tmp_path):
    executed["variable"] += 1
    arguments = ["run", "--methods", "random_init", "--tasks", "voc_cls", "--suite", "smoke"]
    arguments += ["--dry-run", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env={"SSL_GAP_CACHE": str(tmp_path / "cache"), **os.environ, **given_},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    if status:
        assert one_line(done.stderr.strip().splitlines()[-1])
    else:
        assert done.stdout
    assert not (tmp_path / "out").exists()
