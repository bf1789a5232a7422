"""Variables of the environment that could decide: owned, or refused in one line."""

import os
import subprocess
import sys

import pytest

import bench
from bench.errors import UserError
from bench.runtime import variables

TORCHRUN = {
    **{"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
}

IMPORT = """
import sys
sys.argv = ["bench", "run", "--help"]
import bench.__main__
try:
    bench.__main__.main()
except SystemExit as end:
    assert not end.code, end.code
import torch, bench.commands.execute
torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1).step()
"""


@pytest.mark.parametrize(
    "name",
    ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "TIMM_FUSED_ATTN"],
)
def test_what_makes_a_processor_compute_as_another_is_removed(name):
    given = {name: "default", "OMP_NUM_THREADS": "2"}
    variables.own(given)
    assert given == {"OMP_NUM_THREADS": "2"}


def test_what_mpi_says_of_a_run_with_a_launcher_is_removed():
    given = TORCHRUN | {"OMPI_COMM_WORLD_SIZE": "2", "PMI_SIZE": "1"}
    variables.own(given)
    assert given == TORCHRUN


def test_what_the_suite_decides_is_removed():
    given = {"ACCELERATE_MIXED_PRECISION": "bf16", "NVIDIA_TF32_OVERRIDE": "1", "HOME": "/"}
    given |= {"TORCH_LOGS": "bogus", "TORCH_TRACE": "traces", "SOURCE_DATE_EPOCH": "x"}
    variables.own(given)
    assert given == {"HOME": "/"}


def test_what_libraries_cannot_read_as_a_number_is_removed():
    for value in ("auto", "\u00b2", "0", "-1", "1e9", "100000000", "9" * 5000, ""):
        given = dict.fromkeys(variables.NUMBERS, value)
        variables.own(given)
        assert given == {}, value


def test_no_variable_of_typer_rich_numpy_or_torch_ends_an_import():
    names = (
        *("TYPER_USE_RICH", "_TYPER_STANDARD_TRACEBACK", "NUMPY_MADVISE_HUGEPAGE"),
        *("TORCHDYNAMO_TRANSLATION_VALIDATION_TIMEOUT", "TORCHINDUCTOR_COMPILE_THREADS"),
        *("COMPILE_STROBELIGHT_MAX_STACK_LENGTH", "TORCH_DIST_INIT_BARRIER", *variables.NUMBERS),
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        env=os.environ | dict.fromkeys(names, "\u00b2"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"COLUMNS": "80", "LINES": "24", "TERMINAL_WIDTH": "9999", "_TYPER_COMPLETE_ARGS": "x"},
        TORCHRUN,
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "0,3"},
        {"CUDA_VISIBLE_DEVICES": "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/2"},
    ],
)
def test_what_launchers_and_schedulers_set_stays(given):
    before = dict(given)
    variables.own(given)
    assert given == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"RANK": "1"}, "RANK=1 in the environment without RANK and WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "without RANK and WORLD_SIZE"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 in the environment without"),
        (TORCHRUN | {"RANK": "x"}, "must be whole numbers"),
        (TORCHRUN | {"WORLD_SIZE": "-2"}, "must be whole numbers"),
        (TORCHRUN | {"RANK": "00"}, "must be whole numbers"),
        (TORCHRUN | {"RANK": "2"}, "a rank must be below WORLD_SIZE"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "a rank must be below WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "without LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE=2 in the environment, which MPI sets: start several"),
        ({"CUDA_VISIBLE_DEVICES": "0,0"}, "CUDA_VISIBLE_DEVICES=0,0: names no GPUs"),
        ({"CUDA_VISIBLE_DEVICES": "first"}, "CUDA_VISIBLE_DEVICES=first: names no GPUs"),
    ],
)
def test_what_contradicts_is_one_line(given, message):
    with pytest.raises(UserError, match=message) as error:
        variables.own(dict(given))
    assert "\n" not in str(error.value)


def test_a_python_program_is_asked_the_same(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="without RANK and WORLD_SIZE"):
        bench.evaluate("random_init", "voc_cls", "smoke")
