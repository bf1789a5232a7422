"""The statistics that batch norms get after training."""

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from bench.training.batchnorm import population_statistics


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(2, momentum=0.3), nn.Conv2d(2, 3, 3), BatchNormAct2d(3), nn.BatchNorm2d(3)
    ).train()


def batches():
    """Of unequal size, about a mean far from 0."""
    generator = np.random.default_rng(0)
    shapes = ((4, 2, 9, 7), (1, 2, 5, 5), (3, 2, 8, 12))
    return [
        100 + generator.normal(size=s).astype(np.float32) * (k + 1) for k, s in enumerate(shapes)
    ]


def test_every_value_of_every_batch_counts_alike():
    trained = network()
    trained[3].eval()
    with torch.no_grad(), population_statistics(trained):
        for batch in batches():
            trained(torch.from_numpy(batch))
    values = np.concatenate([batch.transpose(1, 0, 2, 3).reshape(2, -1) for batch in batches()], 1)
    np.testing.assert_allclose(trained[0].running_mean, values.mean(1), rtol=1e-5)
    np.testing.assert_allclose(trained[0].running_var, values.var(1), rtol=1e-4)
    assert trained[0].momentum == 0.3
    assert trained[2].momentum == 0.1
    assert trained[2].running_mean.any()
    assert not trained[3].running_mean.any()  # in evaluation mode
    assert not any(norm._forward_hooks for norm in trained)


def test_running_statistics_go_on_as_before():
    trained, plain = network(), network()
    with torch.no_grad(), population_statistics(trained):
        trained(torch.from_numpy(batches()[0]))
    plain.load_state_dict(trained.state_dict())
    for one in (trained, plain):
        one(torch.from_numpy(batches()[2]))
    torch.testing.assert_close(trained.state_dict(), plain.state_dict())


def test_they_are_those_of_fvcore():
    precise = pytest.importorskip("fvcore.nn.precise_bn", reason="fvcore is not installed")
    ours, theirs = network(), network()
    data = [torch.from_numpy(batch) - 100 for batch in batches()]
    with torch.no_grad(), population_statistics(ours):
        for batch in data:
            ours(batch)
    precise.update_bn_stats(theirs, data, len(data))
    for name, value in theirs.named_buffers():
        if not name.endswith("tracked"):
            torch.testing.assert_close(ours.get_buffer(name), value, rtol=1e-4, atol=1e-5)
