"""Process-wide switches of torch, numpy and Python that could decide a number: owned, or refused.

A program may have set some before it calls this package, and a plug-in's file when it is imported.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFile
from torch.nn.modules import module as modules
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as dispatch_modes

from bench.errors import UserError

KERNELS = ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")  # of attention on a GPU
PIXELS = 2**30 // 4 // 3  # Pillow's own limit of an image
HOOKS = tuple(
    f"_global_{kind}_hooks"
    for kind in (
        *("forward", "forward_pre", "backward", "backward_pre"),
        *("parameter_registration", "buffer_registration", "module_registration"),
    )
)
DENORMAL = 1e-310  # a float64 that is 0 where such are flushed


@dataclass(frozen=True)
class Switch:
    """A process-wide setting, and the value that it has in a run.

    Attributes:
        read: returns its value.
        write: sets it.
        value: in a run; None leaves it as it is.
    """

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    value: Any = None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Give it its value, and then the one of before; an equal one is never written."""
        before = self.read()
        if self.value is not None and before != self.value:
            self.write(self.value)
        try:
            yield
        finally:
            if self.read() != before:
                self.write(before)


def _attribute(owner: Any, name: str, value: Any) -> Switch:
    return Switch(lambda: getattr(owner, name), lambda new: setattr(owner, name, new), value)


def _precisions() -> Iterator[Switch]:
    """The precision of float32 products, from the general switch to that of each operation."""
    backends: Any = torch.backends
    if hasattr(backends, "fp32_precision"):
        yield _attribute(backends, "fp32_precision", "none")
        for operation in (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn):
            yield _attribute(operation, "fp32_precision", "none")
        yield _attribute(backends.cuda.matmul, "fp32_precision", "none")
        for operation in (backends.cudnn.conv, backends.cudnn.rnn):
            yield _attribute(operation, "fp32_precision", "tf32")
    else:
        yield _attribute(backends.cuda.matmul, "allow_tf32", False)
        yield _attribute(backends.cudnn, "allow_tf32", True)
    yield Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")


def _backends() -> Iterator[Switch]:
    """The libraries that compute, and how."""
    backends: Any = torch.backends
    for owner, name, value in (
        (backends.mkldnn, "enabled", True),
        (backends.mkldnn, "deterministic", False),
        (backends.cudnn, "enabled", True),
        (backends.cudnn, "benchmark", False),
        (backends.cudnn, "benchmark_limit", None),
        (backends.cudnn, "deterministic", None),
        (backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", True),
        (backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
        (backends.cuda.matmul, "allow_fp16_accumulation", False),
    ):
        if hasattr(owner, name):
            yield _attribute(owner, name, value)
    yield Switch(backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled, True)
    for kernel in KERNELS:
        enabled = getattr(backends.cuda, f"{kernel}_enabled", None)
        if enabled:
            yield Switch(enabled, getattr(backends.cuda, f"enable_{kernel}"), True)


def _algorithms() -> Iterator[Switch]:
    """Types, algorithms and threads."""

    def read() -> tuple[bool, bool]:
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), warn_only

    def write(state: tuple[bool, bool]) -> None:
        torch.use_deterministic_algorithms(state[0], warn_only=state[1])

    yield Switch(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
    yield Switch(read, write, (False, False))
    yield Switch(_flushes_denormals, torch.set_flush_denormal, False)
    yield Switch(torch.get_num_threads, torch.set_num_threads)


def _flushes_denormals() -> bool:
    return not bool(torch.tensor(DENORMAL, dtype=torch.float64) * 1)


def _images() -> Iterator[Switch]:
    """Which files Pillow reads as images: one that is cut short is none."""
    yield _attribute(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    yield _attribute(Image, "MAX_IMAGE_PIXELS", PIXELS)


@contextmanager
def owned() -> Iterator[None]:
    """Compute as a fresh process does, whatever was switched; the end is as the beginning was.

    Raises:
        UserError: something is active that cannot be put aside: a mode or a hook of torch.
    """
    _refuse_hooks()
    with ExitStack() as stack:
        stack.enter_context(_no_default_device())
        _refuse_modes()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.enter_context(_no_warning_is_an_error())
        stack.enter_context(_kept_random_states())
        for switches in (_algorithms, _precisions, _backends, _images):
            for switch in switches():
                stack.enter_context(switch.owned())
        yield


@contextmanager
def _no_default_device() -> Iterator[None]:
    """Make tensors on the processor, unless code says otherwise."""
    before = _default_devices()
    if before:
        torch.set_default_device(None)
    try:
        yield
    finally:
        if _default_devices() != before:
            torch.set_default_device(before[-1] if before else None)


def _default_devices() -> list[torch.device]:
    return [mode.device for mode in function_modes() if isinstance(mode, DeviceContext)]


@contextmanager
def _no_warning_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings():
        filters: Any = warnings.filters
        filters[:] = [entry for entry in filters if entry[0] != "error"]
        yield


@contextmanager
def _kept_random_states() -> Iterator[None]:
    """Let the caller's random draws go on where they were."""
    python = random.getstate()
    numpy = np.random.get_state()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng([*gpus]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _refuse_modes() -> None:
    active = [type(mode).__name__ for mode in (*function_modes(), *dispatch_modes())]
    if active:
        raise UserError(
            f"a mode of torch is active ({active[-1]}), which changes what it computes; leave it"
        )


def _refuse_hooks() -> None:
    for name in HOOKS:
        if getattr(modules, name, None):
            kind = name.removeprefix("_global_").removesuffix("_hooks").replace("_", "-")
            raise UserError(f"torch has a global {kind} hook of modules; remove it by its handle")
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(""):
            pass
    except RuntimeError:
        raise UserError(
            "hooks of torch.autograd.graph are active on saved tensors; leave them"
        ) from None
    if torch.backends.flags_frozen():
        raise UserError(
            "torch.backends.disable_global_flags() was called, and a run sets such options; start "
            "Python without it"
        )
