"""Networks for frames of any size, told how many pixels they have."""

import pytest
import torch

from vdm.models.dit_presets import STDiT3Size, stdit3
from vdm.types import Conditioning

SIZE = STDiT3Size(3, 8, 1, 4, 14, 9)


@pytest.fixture(scope="module")
def network():
    net = stdit3(SIZE).eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    return net


def told(pixels=((80.0, 96.0), (40.0, 48.0))):
    text = torch.randn(2, 9, 14, generator=torch.Generator().manual_seed(1))
    rates = torch.tensor([24.0, 8.0])
    return Conditioning(text=text, fps=rates, size=torch.tensor(pixels))


def predict(network, height, width, cond=None, num_frames=3):
    x = torch.randn(2, 4, num_frames, 6, 8, generator=torch.Generator().manual_seed(2))
    steps = torch.tensor([900.0, 30.0])
    return network(x[..., :height, :width].clone(), steps, told() if cond is None else cond)


def test_what_does_not_fill_patches_is_filled_with_zeros(network):
    x = torch.randn(2, 4, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    filled, steps = torch.zeros(2, 4, 3, 6, 8), torch.tensor([900.0, 30.0])
    filled[..., :5, :7] = x
    whole = network(filled, steps, told())
    assert torch.equal(network(x, steps, told()), whole[..., :5, :7])
    assert network.multiples == (1, 1, 1)
    assert network.patch_size == (1, 2, 2)


def test_places_depend_on_the_size_of_each_sample(network):
    one, other = predict(network, 6, 8), predict(network, 6, 8, told(((80.0, 96.0),) * 2))
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-4)
    turned = predict(network, 6, 8, told(((96.0, 80.0), (48.0, 40.0))))
    torch.testing.assert_close(turned, one)  # by the number of pixels alone
    with pytest.raises(ValueError, match="needs size"):
        predict(network, 6, 8, told().replace(size=None))


def test_frames_are_told_apart_by_rotations_alone(network):
    rule = network.options.positions
    table = rule.rotary((5, 3, 4), 8, torch.device("cpu"))
    assert table.cos.shape == (5, 1, 1, 4)
    assert float(table.cos[2, 0, 0, 1]) == pytest.approx(0.9800666)  # cos(2 / 10), by hand
    places = rule.added_for(torch.tensor([[256.0, 256.0]]), (5, 2, 8), 8)
    # By hand: four by four tokens as well, of which 256 pixels have every second place.
    assert float(places[0, 0, 0, 3, 0]) == pytest.approx(0.1411200)  # sin(3 * 4 / 8 / 0.5)
    assert float(places[0, 0, 1, 0, 4]) == pytest.approx(-0.7568025)  # sin(1 * 4 / 2 / 0.5)
    assert rule.added((5, 3, 4), 8, torch.device("cpu")) is None


def test_every_weight_matters(network):
    network.requires_grad_(True)
    try:
        predict(network, 5, 7).square().sum().backward()
        still = {name for name, p in network.named_parameters() if not p.grad.abs().sum()}
    finally:
        network.requires_grad_(False)
    assert still == set()
