"""Environment variables that could decide a number or the end of a run: owned, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # torchrun sets all of them
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # and these
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # accelerate heeds them
DECIDING = (
    *("ACCELERATE_", "FSDP_"),  # the suite says what they would
    *("TIMM_", "TORCH_FORCE_"),  # other layers, other loading
    *("TORCH_LOGS", "TORCH_TRACE"),  # what torch cannot parse ends its import; traces are written
    *("TORCH_BLAS_PREFER_", "TORCH_LINALG_PREFER_", "TORCH_CUDNN_V8_API_", "PYTORCH_TUNABLEOP_"),
    *("TORCHDYNAMO_", "TORCHINDUCTOR_", "AOTINDUCTOR_", "COMPILE_STROBELIGHT_", "TORCH_COMPILE_"),
    *("TORCH_DISABLE_NATIVE_", "TORCH_NATIVE_", "TORCH_DIST_INIT_BARRIER", "NUMPY_MADVISE_"),
    *(
        "TYPER_",
        "_TYPER_STANDARD_",
        "_TYPER_FORCE_",
    ),  # not those of shell completion
)
PRECISION = (
    *("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
# Records name the processor: it must not compute as another one does.
PROCESSOR = (
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"),
    *("DNNL_CPU_ISA_HINTS", "ONEDNN_CPU_ISA_HINTS", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
)
# rich, typer and huggingface_hub read them as numbers, and end at others, or at huge ones never.
NUMBERS = (
    *("COLUMNS", "LINES", "JUPYTER_COLUMNS", "JUPYTER_LINES", "TERMINAL_WIDTH"),
    *("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"),
)
SMALL = re.compile(r"[1-9][0-9]{0,3}")
# numpy and matplotlib read it as the time; what is no number ends their import.
TIME = ("SOURCE_DATE_EPOCH",)
NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")  # as text: the main process is the one of RANK "0"
GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


def own(variables: MutableMapping[str, str]) -> None:
    """Remove the variables that suite and command line decide, and refuse what contradicts.

    Args:
        variables: `os.environ`, before torch and accelerate are imported.

    Raises:
        UserError: the variables of a launcher contradict one another, or name no GPU; or the
            current folder is gone.
    """
    check_folder()
    remove_deciding(variables)
    _check_launcher(variables)
    _check_mpi(variables)
    _check_gpus(variables.get("CUDA_VISIBLE_DEVICES", ""))


@contextmanager
def owned(variables: MutableMapping[str, str]) -> Iterator[None]:
    """Do as `own` does, and give the variables back at the end.

    Raises:
        UserError: as `own` does.
    """
    before = dict(variables)
    try:
        own(variables)
        yield
    finally:
        for name, value in before.items():
            variables.setdefault(name, value)


def check_folder() -> None:
    """Refuse to work in a folder that was deleted: torch cannot even be imported there.

    Raises:
        UserError: it was.
    """
    try:
        Path.cwd()
    except OSError:
        raise UserError("the current folder was deleted; change to another one (cd)") from None


def remove_deciding(variables: MutableMapping[str, str]) -> None:
    """Remove the variables that suite, command line and machine decide.

    Args:
        variables: `os.environ`, before numpy is imported, which reads some of them.
    """
    for name in list(variables):
        if name.startswith(DECIDING) or name in (*PRECISION, *PROCESSOR, *TIME):
            del variables[name]
    for name in NUMBERS:
        if not SMALL.fullmatch(variables.get(name, "1")):
            del variables[name]


def _check_launcher(variables: MutableMapping[str, str]) -> None:
    """Refuse a rank without a launcher: such a process would compute all and keep nothing."""
    given = {name: variables[name] for name in LAUNCHER if name in variables}
    if not given:
        return
    text = " ".join(f"{name}={value}" for name, value in given.items())
    hint = "start it with torchrun, or unset them"
    if not {"RANK", "WORLD_SIZE"} <= given.keys():
        raise UserError(f"{text} in the environment without RANK and WORLD_SIZE: {hint}")
    if not all(NUMBER.fullmatch(value) for value in given.values()):
        raise UserError(f"{text} in the environment: must be whole numbers; {hint}")
    size = int(given["WORLD_SIZE"])
    if not max(int(given["RANK"]), int(given.get("LOCAL_RANK", 0))) < size:
        raise UserError(f"{text} in the environment: a rank must be below WORLD_SIZE; {hint}")
    absent = [name for name in ("LOCAL_RANK", *MEETING) if not variables.get(name)]
    if size > 1 and absent:
        raise UserError(f"{text} in the environment without {', '.join(absent)}: {hint}")


def _check_mpi(variables: MutableMapping[str, str]) -> None:
    """Refuse several processes that know nothing of each other; remove what MPI says of one run."""
    for name in MPI_SIZES:
        size = variables.pop(name, "1")
        if size != "1" and "WORLD_SIZE" not in variables:
            hint = "start several processes with torchrun, or unset it"
            raise UserError(f"{name}={size} in the environment, which MPI sets: {hint}")


def _check_gpus(value: str) -> None:
    names = [name.strip() for name in value.split(",")] if value.strip() else []
    if names[:1] in (["-1"], ["NoDevFiles"]):
        return  # none, in the words of CUDA and of schedulers
    if len(set(names)) < len(names) or not all(GPU.fullmatch(name) for name in names):
        raise UserError(f"CUDA_VISIBLE_DEVICES={value}: names no GPUs; write 0,1 or unset it")
