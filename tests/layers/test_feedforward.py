import inspect

import pytest
import torch
import torch.nn.functional as F

from vdm.layers.feedforward import GatedMLP, make_feedforward

KINDS = ["gelu", "gelu_tanh", "swiglu", "geglu"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_every_kind_keeps_the_shape_and_treats_tokens_alone(kind, bias):
    net = make_feedforward(kind, 12, ratio=2.0, bias=bias)
    assert any("bias" in name for name, _ in net.named_parameters()) == bias
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(net(x)[:, 3:4], net(x[:, 3:4]))


def test_kinds_cost_the_same():
    sizes = {
        kind: sum(p.numel() for p in make_feedforward(kind, 96).parameters()) for kind in KINDS
    }
    assert max(sizes.values()) < 1.02 * min(sizes.values())


def test_gelu_is_exact_or_its_tanh_approximation():
    x = torch.randn(3, 8)
    for kind, approximate in (("gelu", "none"), ("gelu_tanh", "tanh")):
        net = make_feedforward(kind, 8)
        torch.testing.assert_close(net(x), net.fc2(F.gelu(net.fc1(x), approximate=approximate)))


def test_gates_multiply_the_values():
    x = torch.randn(3, 8)
    for activation, function in (("silu", F.silu), ("gelu", F.gelu)):
        net = GatedMLP(8, 5, activation)
        torch.testing.assert_close(net(x), net.fc2(net.value(x) * function(net.gate(x))))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="got feed-forward 'relu', expected gelu"):
        inspect.unwrap(make_feedforward)("relu", 8)
