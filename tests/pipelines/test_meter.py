"""What is found once of an operation on the meta device is what each of its calls costs."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vdm.pipelines.meter import MemoryMeter


def run(layers, x):
    for layer in layers:
        x = x + torch.cat((layer(x), x), dim=1).split(len(x[0]), dim=1)[0].relu_()
    return x.flatten(1).square().sum(1, keepdim=True).mul(2)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@torch.no_grad()
def test_costs_of_equal_layers_are_those_of_each(device):
    layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)).to(device)
    x = torch.ones(2, 4, 5, 7, device=device)
    known = [*layers.parameters(), x]
    with FlopCounterMode(display=False) as counter:
        run(layers, x)
    with MemoryMeter(known) as whole:
        out = run(layers, x)
    apart = []
    for count in (1, 2):
        with MemoryMeter(known) as meter:
            run(layers[:count], x)
        apart.append(meter)
    assert whole.flops == counter.get_total_flops()
    one, two = apart
    assert whole.flops - two.flops == two.flops - one.flops > 0
    assert whole.traffic - two.traffic == two.traffic - one.traffic > 0
    assert whole.peak == two.peak
    assert whole.live == out.nbytes
    assert out.shape == (2, 1)


@torch.no_grad()
def test_plans_count_what_real_runs_count():
    found = []
    for device in ("meta", "cpu"):
        layers = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3)).to(device)
        x = torch.ones(2, 4, 5, 7, device=device)
        with MemoryMeter(list(layers.parameters())) as meter:
            run(layers, x[:, :, 1:])
        found.append((meter.flops, meter.traffic, meter.peak))
    assert found[0] == found[1]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@torch.no_grad()
def test_what_is_given_counts_when_it_is_looked_at(device):
    x = torch.ones(3, 5, device=device)
    with MemoryMeter([]) as meter:
        seen = x.T
    assert meter.live == seen.nbytes
    one, other = torch.ones(4, device=device), torch.ones(4, device=device).double()
    with MemoryMeter([]) as meter:
        kept = [one * 2, one * 2, other * 2, one * 2.0, one.add_(1)]
    assert [value.dtype for value in kept] == [one.dtype, one.dtype, other.dtype, *[one.dtype] * 2]
    assert kept[4] is one
    assert meter.live == sum(value.nbytes for value in kept)
