"""Convolutions around a transformer change what it can draw, and nothing that it promises."""

import pytest
import torch

from vdm.layers.factorization import Spatial, Temporal
from vdm.models.conv_shell import ShellOptions
from vdm.models.dit import VideoDiT
from vdm.types import Conditioning
from vdm.utils.config import build, describe

B, C, T, H, W, N, TEXT = 2, 3, 4, 8, 12, 7, 10
SHELL = ShellOptions(width=8, before=1, after=2, num_groups=4)


def network(**arguments):
    """A tiny network whose branches are all open."""
    torch.manual_seed(0)
    common = {"dim": 36, "depth": 2, "num_heads": 3, "patch_size": (1, 4, 4), "shell": SHELL}
    net = VideoDiT(C, **common | arguments).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def test_a_new_network_predicts_zero_and_all_of_it_can_learn():
    x, c_noise = torch.randn(B, C, T, H, W), 1000 * torch.rand(B)
    net = VideoDiT(C, 36, 2, 3, (1, 2, 2), text_dim=TEXT, shell=SHELL)
    cond = Conditioning(text=torch.randn(B, N, TEXT))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    assert not net(x, c_noise, cond).any()
    for _ in range(5):
        optimizer.zero_grad()
        (net(x, c_noise, cond) - x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_what_is_moved_by_less_than_a_patch_is_drawn_moved_as_well():
    """Where the transformer says nothing, the way in and out does not know of patches."""
    net = network()
    torch.nn.init.zeros_(net.final.linear.weight)
    torch.nn.init.zeros_(net.final.linear.bias)
    for norm in (m for m in net.modules() if type(m).__name__ == "PerFrameGroupNorm"):
        norm.eps = 1e6  # statistics of a frame see its borders
    x = torch.zeros(1, C, 1, 24, 24)
    x[..., 10:13, 9:12] = torch.randn(C, 1, 3, 3)
    first = net(x, torch.zeros(1), Conditioning())
    second = net(x.roll((2, 1), (3, 4)), torch.zeros(1), Conditioning())
    reach = slice(8, 16)
    assert first[..., reach, reach].std() > 1e-6
    torch.testing.assert_close(
        second[..., 10:18, 9:17], first[..., reach, reach], rtol=1e-3, atol=1e-6
    )


def test_given_frames_and_noise_levels_of_frames_reach_the_convolutions():
    net = network()
    torch.nn.init.zeros_(net.final.linear.weight)  # the transformer says the same of everything
    x, given = torch.randn(2, B, C, T, H, W)
    mask = torch.ones(B, 1, T, 1, 1)
    times = torch.full((B, T), 300.0)
    plain = net(x, times, Conditioning())
    told = net(x, times, Conditioning(given=given, given_mask=mask.expand(B, 1, T, H, W)))
    assert (told - plain).abs().max() > 1e-4
    times = times.clone()
    times[:, 2] = 900.0
    other = net(x, times, Conditioning())
    assert (other - plain)[:, :, 2].abs().max() > 1e-4


def test_chunk_by_chunk_equals_the_whole():
    net = network(factorization=[Spatial(), Temporal(is_causal=True)])
    x, c_noise = torch.randn(B, C, T, H, W), 1000 * torch.rand(B)
    whole = net(x, c_noise, Conditioning())
    first, cache = net.step(x[:, :, :3], c_noise, Conditioning())
    second, _ = net.step(x[:, :, 3:], c_noise, Conditioning(), cache)
    torch.testing.assert_close(torch.cat((first, second), 2), whole, rtol=1e-4, atol=1e-5)


def test_it_is_described_and_built_again():
    net = network()
    again = build(describe(net))
    assert again.shell.embed.weight.shape == (8, 2 * C + 1, 3, 3)
    again.load_state_dict(net.state_dict())
    x, c_noise = torch.randn(B, C, T, H, W), 1000 * torch.rand(B)
    assert torch.equal(again.eval()(x, c_noise, Conditioning()), net(x, c_noise, Conditioning()))


def test_patches_of_several_frames_are_refused():
    with pytest.raises(ValueError, match="patches of 2 frames, expected 1"):
        VideoDiT(C, 36, 1, 3, (2, 2, 2), shell=SHELL)
