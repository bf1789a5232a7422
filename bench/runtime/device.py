"""Devices, precision and seeds: what the machine adds to a number."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import torch
from torch import nn

from bench.errors import SHOWN, UserError
from bench.runtime.pool import check_daemon, end_with_parent
from bench.runtime.workers import cores

if sys.platform != "win32":
    import resource


def select_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes a GPU where there is one.

    Raises:
        UserError: there is none of that name, or it cannot compute.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # accelerate trains on the current one
        works = (torch.ones(2, device=device) + 1).tolist() == [2, 2]
    except Exception:  # whatever a device's library raises, or that it is not installed
        works = False
    if not works:
        short = name[:SHOWN]
        usable = "cpu, cuda, cuda:1 or auto" if torch.cuda.is_available() else "cpu or auto"
        raise UserError(f"--device {short}: cannot be used here; use {usable}")
    return device


def mixed_precision(device: torch.device, model: nn.Module) -> str:
    """The faster training precision on this device, in accelerate's words (`no`, `bf16`, `fp16`).

    On a GPU half precision always pays. On a processor with bfloat16 instructions it doubles the
    speed of dense convolutions and halves that of depthwise ones, so a backbone with depthwise
    convolutions stays in float32 there (figures in docs/speed.md).
    """
    if device.type == "cuda":
        return "bf16" if fast_bfloat16(device) else "fp16"
    depthwise = any(
        isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1
        for part in model.modules()
    )
    return "bf16" if fast_bfloat16(device) and not depthwise else "no"


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def seed_everything(seed: int) -> None:
    """Seed torch and make its convolutions repeatable; every random draw comes from torch.

    Those of somebody's code that come from Python or numpy do not depend on the caller either.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # which torch.manual_seed asks in turn, with a stack trace for each
        torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far in MiB: on the GPU, or by this process on a processor.

    0 on Windows without a GPU.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    if sys.platform == "win32":
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def share_cores(workers: int, threads: int) -> None:
    """Compute on some threads in this process, one of several that share the machine.

    One thread a process is fastest where there are several encoders to train: two threads train a
    small network hardly faster than one (figures in docs/design.md).

    Args:
        workers: processes that share the cores.
        threads: of this one.
    """
    torch.set_num_threads(threads)
    global _workers
    _workers = workers


_workers = 1  # processes that share the machine's cores


def loader_workers() -> int:
    """Loader processes: one for each core of this process but the first.

    The processes that torchrun started on this machine share its cores, and so do workers.

    Raises:
        UserError: this process may start none.
    """
    check_daemon()
    sharing = _workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, cores() // sharing - 1)


def prepare_loader_worker(worker: int) -> None:
    """Let a loader's worker end with its parent, however that ends."""
    end_with_parent()


def yield_cores(worker: int) -> None:
    """Let training go first: a loader worker that takes a core stalls all of its threads."""
    prepare_loader_worker(worker)
    if hasattr(os, "nice"):
        os.nice(10)
