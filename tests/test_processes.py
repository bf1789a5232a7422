"""Two processes under torchrun do what one does."""

import subprocess
import sys

import pytest

STATISTICS = """
import copy, sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from timm.layers import BatchNormAct2d
from bench import processes
from bench.norms import synchronise

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), BatchNormAct2d(8)
    ).double()

processes.join()
torch.manual_seed(1)
batch = torch.randn(8, 3, 9, 9).double() * 3 + 1
whole = network()
whole(batch).square().mean().backward()
shared = network()
synchronise(shared)
parallel = DistributedDataParallel(shared)
mine = batch.chunk(2)[distributed.get_rank()]
parallel(mine).square().mean().backward()
for (name, one), (_, other) in zip(whole.named_parameters(), shared.named_parameters()):
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-7, msg=name)
for (name, one), (_, other) in zip(whole.named_buffers(), shared.named_buffers()):
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7, msg=name)
with torch.no_grad():
    torch.testing.assert_close(shared.eval()(batch), whole.eval()(batch), rtol=1e-5, atol=1e-7)
"""


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return done


@pytest.mark.slow
def test_statistics_are_those_of_all_processes(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(STATISTICS)
    torchrun(script)
