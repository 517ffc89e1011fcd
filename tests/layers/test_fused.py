import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vdm.layers import fused
from vdm.layers.fused import linear_gelu


@pytest.fixture
def layer():
    return nn.Linear(24, 40)


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(fused, "MIN_FUSED", 1)


@pytest.fixture
def kernel_calls(monkeypatch):
    calls, kernel = [], torch.ops.mkldnn._linear_pointwise

    def counted(*args):
        calls.append(args)
        return kernel(*args)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return calls


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_kernel_is_the_map_and_the_gelu(kernel_calls, bias, scale):
    layer = nn.Linear(24, 40, bias=bias)
    x = scale * torch.randn(3, 7, 24)
    with torch.no_grad():
        result = linear_gelu(layer, x[:, 1:6], "tanh")  # rows that are not next to each other
        exact = F.gelu(layer.double()(x[:, 1:6].double()), approximate="tanh")
    assert len(kernel_calls) == int(torch.backends.mkldnn.is_available())
    torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gradients_are_those_of_two_operations(layer, kernel_calls, approximate):
    x = torch.randn(5, 24, requires_grad=True)
    found = torch.autograd.grad(linear_gelu(layer, x, approximate).square().sum(), x)
    wanted = torch.autograd.grad(F.gelu(layer(x), approximate=approximate).square().sum(), x)
    torch.testing.assert_close(found, wanted)
    assert not kernel_calls


def test_what_stands_in_for_the_layer_is_called(layer, kernel_calls):
    x = torch.randn(5, 24)
    layer.register_forward_hook(lambda module, inputs, result: result + 1)
    with torch.no_grad():
        torch.testing.assert_close(
            linear_gelu(layer, x, "tanh"), F.gelu(layer(x), approximate="tanh")
        )

        class Adapted(nn.Linear):
            def forward(self, x):
                return super().forward(x) - 2

        adapted = Adapted(24, 40)
        torch.testing.assert_close(
            linear_gelu(adapted, x, "tanh"), F.gelu(adapted(x), approximate="tanh")
        )
    assert not kernel_calls


def test_other_precisions_have_two_operations(layer, kernel_calls):
    x = torch.randn(5, 24)
    with torch.no_grad():
        assert linear_gelu(layer.double(), x.double(), "tanh").dtype == torch.float64
        with torch.autocast("cpu", torch.bfloat16):
            assert linear_gelu(layer.float(), x, "tanh").dtype == torch.bfloat16
    assert not kernel_calls


def test_tokens_are_computed_alone(layer):
    x = torch.randn(2, 9, 24)
    with torch.no_grad():
        whole = linear_gelu(layer, x, "tanh")
        torch.testing.assert_close(linear_gelu(layer, x[1:, 3:5], "tanh"), whole[1:, 3:5])
        assert linear_gelu(layer, x[:0], "tanh").shape == (0, 9, 40)
