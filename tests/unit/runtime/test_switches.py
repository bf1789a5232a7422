"""Process-wide switches: in a run as in a fresh process, and at the end as before."""

import random
import warnings
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from PIL import ImageFile
from torch.overrides import TorchFunctionMode

from bench.errors import UserError
from bench.runtime import switches
from bench.runtime.device import seed_everything


@contextmanager
def switched(write, value, default):
    write(value)
    try:
        yield
    finally:
        write(default)


def backend(owner, name, value):
    """A flag of torch's backends, set to another value."""
    default = getattr(owner, name)
    return switched(lambda new: setattr(owner, name, new), value, default)


@contextmanager
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SWITCHES = {
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: switched(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "device": lambda: switched(torch.set_default_device, "meta", None),
    "no gradients": lambda: switched(torch.set_grad_enabled, False, True),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "deterministic": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "matmul": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "mkldnn": lambda: backend(torch.backends.mkldnn, "enabled", False),
    "benchmark": lambda: backend(torch.backends.cudnn, "benchmark", True),
    "cudnn": lambda: backend(torch.backends.cudnn, "enabled", False),
    "reduced": lambda: backend(
        torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False
    ),
    "attention": lambda: switched(torch.backends.cuda.enable_flash_sdp, False, True),
    "denormals": lambda: switched(torch.set_flush_denormal, True, False),
    "numpy": lambda: np.errstate(all="raise"),
    "warnings": warnings_are_errors,
    "cut images": lambda: backend(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
}


def state():
    """All that the switches decide, as far as Python can tell."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": torch.backends.cudnn.enabled,
        "reduced": torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
        "attention": torch.backends.cuda.flash_sdp_enabled(),
        "denormals": bool(torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1),
        "numpy": np.geterr(),
        "warnings": "error" in [entry[0] for entry in warnings.filters],
        "cut images": ImageFile.LOAD_TRUNCATED_IMAGES,
        "threads": torch.get_num_threads(),
    }


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("ends", ["well", "by an exception"])
def test_a_switch_is_put_aside_and_restored(name, ends):
    with switches.owned():
        fresh = state()
    with SWITCHES[name]():
        before = state()
        assert before != fresh, "the switch is on"
        with nullcontext() if ends == "well" else pytest.raises(KeyError), switches.owned():
            assert state() == fresh
            torch.set_default_dtype(torch.float16)
            torch.set_num_threads(3)
            torch.backends.cudnn.benchmark = True
            if ends != "well":
                raise KeyError
        assert state() == before


def test_precisions_by_operation_are_put_aside_and_restored():
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("this torch has one switch for all of them")
    with (
        backend(backends, "fp32_precision", "tf32"),
        backend(backends.mkldnn.conv, "fp32_precision", "bf16"),
    ):
        with switches.owned():
            own = backends.fp32_precision, backends.mkldnn.conv.fp32_precision
            assert own == ("none", "none")
        given = backends.fp32_precision, backends.mkldnn.conv.fp32_precision
        assert given == ("tf32", "bf16")


def draws():
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_random_draws_depend_on_the_seed_alone_and_the_callers_go_on():
    seed_everything(7)
    first = draws()
    expected = draws()
    seed_everything(7)
    draws()
    own = []
    for _ in range(2):
        with switches.owned():
            seed_everything(7)
            own.append(draws())
    assert own == [first, first]
    assert draws() == expected


class Mode(TorchFunctionMode):
    pass


@contextmanager
def hook():
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("active", "message"),
    [
        (Mode, r"^a mode of torch is active \(Mode\), .*; leave it$"),
        (lambda: torch.device("meta"), r"^a mode of torch is active \(DeviceContext\)"),
        (hook, "^torch has a global forward hook of modules; remove it by its handle$"),
        (torch.autograd.graph.save_on_cpu, r"hooks of torch\.autograd\.graph .*; leave them$"),
    ],
    ids=["mode", "device", "hook", "saved tensors"],
)
def test_what_cannot_be_put_aside_is_one_line(active, message):
    before = state()
    with active(), pytest.raises(UserError, match=message) as error, switches.owned():
        pass
    assert "\n" not in str(error.value)
    assert state() == before


def test_flags_that_nobody_may_set_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.backends, "flags_frozen", lambda: True)
    with (
        pytest.raises(UserError, match=r"^torch\.backends\.disable_global_flags"),
        switches.owned(),
    ):
        pass
