"""Depthwise layers on processors without AVX-512: outputs as before, gradients as torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.encoders import depthwise
from bench.encoders.backbone import make_backbone
from bench.encoders.depthwise import DepthwiseConv2d, train_fast, weight_gradient


@pytest.fixture(autouse=True)
def without_kernel(monkeypatch):
    monkeypatch.setattr(depthwise, "WITHOUT_KERNEL", True)


@pytest.fixture
def taken(monkeypatch):
    """The shapes of the maps whose weights got their gradient here."""
    shapes = []

    def spy(maps, *others):
        shapes.append(tuple(maps.shape))
        return weight_gradient(maps, *others)

    monkeypatch.setattr(depthwise, "weight_gradient", spy)
    return shapes


def layer(channels=8, kernel=5, padding=2):
    torch.manual_seed(0)
    made = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False)
    train_fast(made)
    return made


def gradients(output, *inputs):
    return torch.autograd.grad(
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum(), inputs
    )


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kernel", "padding", "size"),
    [
        *((5, 2, (2, 2)), (5, 2, (6, 6)), (5, 2, (1, 1)), (3, 1, (3, 5)), (3, 0, (6, 3))),
        *(((3, 5), (1, 2), (4, 7)), (5, 4, (2, 3)), (1, 0, (2, 2)), (7, 3, (1, 4))),
    ],
)
def test_output_and_gradients_are_those_of_torch(kernel, padding, size, memory, taken):
    made = layer(kernel=kernel, padding=padding)
    maps = torch.randn(3, 8, *size).to(memory_format=memory).requires_grad_()
    found = made(maps)
    expected = F.conv2d(maps, made.weight, padding=padding, groups=8)
    assert torch.equal(found, expected)
    own, of_torch = (gradients(each, maps, made.weight) for each in (found, expected))
    assert taken == [(3, 8, *size)]
    for a, b in zip(own, of_torch, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "size"),
    [
        *((5, 4, 2, (2, 2)), (5, 4, 2, (9, 12)), (3, 2, 2, (7, 7)), (3, 0, 3, (7, 9))),
        *(((3, 5), (1, 6), (2, 3), (8, 5)), (3, 1, (2, 1), (8, 7))),
    ],
)
def test_a_layer_that_is_dilated_later(kernel, padding, dilation, size, taken):
    """As FCN heads do to the last stages: however large its maps are."""
    made = layer(kernel=kernel, padding=padding)
    made.dilation = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    maps = torch.randn(3, 8, *size, requires_grad=True)
    found = made(maps)
    expected = F.conv2d(maps, made.weight, None, 1, padding, dilation, 8)
    assert torch.equal(found, expected)
    own, of_torch = (gradients(each, maps, made.weight) for each in (found, expected))
    assert taken == [(3, 8, *size)]
    for a, b in zip(own, of_torch, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2])
def test_its_gradient_has_a_gradient(dilation):
    """For penalties on gradients."""
    maps = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def apply(maps, weight):
        return depthwise._Depthwise.apply(maps, weight, (1, 1), (dilation, dilation))

    assert torch.autograd.gradcheck(apply, (maps, weight))
    assert torch.autograd.gradgradcheck(apply, (maps, weight))


def test_a_frozen_layer_and_frozen_maps():
    made = layer()
    maps = torch.randn(1, 8, 2, 2)
    (of_weight,) = gradients(made(maps), made.weight)
    (expected,) = gradients(F.conv2d(maps, made.weight, padding=2, groups=8), made.weight)
    torch.testing.assert_close(of_weight, expected)
    made.requires_grad_(False)
    (of_maps,) = gradients(made(maps.requires_grad_()), maps)
    (expected,) = gradients(F.conv2d(maps, made.weight, padding=2, groups=8), maps)
    torch.testing.assert_close(of_maps, expected)


def test_what_torch_does_well_is_left_to_it(taken, monkeypatch):
    made = layer()
    large = torch.randn(1, 8, 7, 6)
    gradients(made(large), made.weight)
    with torch.autocast("cpu", torch.bfloat16):
        gradients(made(large[..., :2, :2]).float(), made.weight)
    gradients(made.double()(large[..., :2, :2].double()), made.weight)
    monkeypatch.setattr(depthwise, "WITHOUT_KERNEL", False)
    gradients(made.float()(large[..., :2, :2]), made.weight)
    assert taken == []


@pytest.mark.parametrize("change", [{"stride": (2, 2)}, {"padding": (5, 2)}])
def test_a_layer_with_a_stride_or_more_padding_than_its_kernel_reaches(change, taken):
    made = layer()
    for name, value in change.items():
        setattr(made, name, value)
    maps = torch.randn(1, 8, 2, 2)
    expected = F.conv2d(maps, made.weight, None, made.stride, made.padding, groups=8)
    assert torch.equal(made(maps), expected)
    assert taken == []


def test_a_layer_with_a_bias_is_left_to_torch(taken):
    made = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    train_fast(made)
    maps = torch.randn(1, 4, 2, 2)
    found = made(maps)
    assert torch.equal(found, F.conv2d(maps, made.weight, made.bias, padding=1, groups=4))
    gradients(found, made.weight, made.bias)
    assert taken == []


def test_a_backbone_keeps_its_layers_and_names():
    network = make_backbone("tf_efficientnet_lite0")
    changed = [m for m in network.modules() if isinstance(m, DepthwiseConv2d)]
    assert len(changed) == 12  # of 16; timm pads the four with a stride itself
    assert all(m.groups == m.in_channels for m in changed)
    assert not any(isinstance(m, DepthwiseConv2d) for m in make_backbone("resnet18").modules())


def test_a_backbone_learns_from_small_maps(taken):
    network = make_backbone("tf_efficientnet_lite0", share=2).train()
    sum(stage.mean() for stage in network(torch.randn(2, 3, 40, 40))).backward()
    assert {shape[-1] for shape in taken} == {2, 3, 5}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
