"""What holds for the network in which text and video are one sequence."""

import pytest
import torch

from vdm.layers.position_rules import AddedSinCos, CountedRotary, FittedRotary
from vdm.models.joint_blocks import JointOptions
from vdm.models.joint_dit import JointDiT
from vdm.models.regions import compile_regions
from vdm.types import Conditioning
from vdm.utils.config import build, describe

B, C, T, H, W, N, TEXT = 2, 3, 4, 6, 8, 5, 10
SMALL = {"dim": 48, "depth": 2, "num_heads": 3, "text_dim": TEXT, "cond_dim": 20}


def network(**arguments):
    """A tiny network whose branches are all open."""
    torch.manual_seed(0)
    net = JointDiT(C, **SMALL | arguments).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


@pytest.fixture
def x():
    return torch.randn(B, C, T, H, W)


@pytest.fixture
def c_noise():
    return 1000 * torch.rand(B)


@pytest.fixture
def cond():
    return Conditioning(text=torch.randn(B, N, TEXT))


def test_a_new_network_predicts_zero_and_can_learn(x, c_noise, cond):
    net = JointDiT(C, **SMALL, given="latents", offset_dim=8, learned=(N, T, H // 2, W // 2))
    cond = cond.replace(given=torch.randn_like(x))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    assert not net(x, c_noise, cond).any()
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, c_noise, cond) - x).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_new_blocks_are_the_identity(x, c_noise, cond):
    net = JointDiT(C, **SMALL)
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, given, out: seen.append((given[:2], out)))
    net(x, c_noise, cond)
    assert len(seen) == 2
    for before, after in seen:
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_everything_that_it_is_told_makes_a_difference(x, c_noise, cond):
    net = network(given="latents")
    cond = cond.replace(given=torch.randn_like(x))
    base = net(x, c_noise, cond)
    assert not torch.allclose(net(x, c_noise + 50, cond), base)
    for name, value in cond.present().items():
        changed = net(x, c_noise, cond.replace(**{name: value + 1}))
        assert not torch.allclose(changed, base), name
    told = torch.zeros_like(x)  # of whom nothing is given
    nothing = net(x, c_noise, cond.replace(given=None))
    assert torch.equal(nothing, net(x, c_noise, cond.replace(given=told)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"positions": AddedSinCos()},
        {"positions": FittedRotary(3, 4)},
        {"positions": CountedRotary()},
        {"learned": (N, T, H // 2, W // 2)},
    ],
    ids=["added", "fitted", "counted", "learned"],
)
def test_places_are_told_apart(x, c_noise, cond, arguments):
    net = network(**arguments)
    for axis in (2, 3, 4):
        turned = net(x.roll(2, axis), c_noise, cond)
        assert not torch.allclose(turned, net(x, c_noise, cond).roll(2, axis), atol=1e-4)


def test_samples_do_not_see_each_other(x, c_noise, cond):
    net = network()
    alone = [net(x[k : k + 1], c_noise[k : k + 1], cond.select([k])) for k in range(B)]
    torch.testing.assert_close(net(x, c_noise, cond), torch.cat(alone))


def test_gradient_checkpointing_changes_no_gradient(x, c_noise, cond):
    grads = []
    for recompute in (False, True):
        net = network(options=JointOptions(gradient_checkpointing=recompute)).train()
        net(x, c_noise, cond).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_its_blocks_are_compiled_alike(x, c_noise, cond, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    net = network()
    compile_regions(net)
    assert compiled == list(net.blocks)


def test_it_is_built_again_from_its_description():
    net = network(positions=FittedRotary(3, 4), learned=(N, 1, 2, 3), offset_dim=8)
    assert describe(build(describe(net))) == describe(net)


@pytest.mark.parametrize(
    ("arguments", "size", "text", "message"),
    [
        ({}, (C, T, 5, W), N, "got height=5, expected a multiple of 2"),
        ({}, (C + 1, T, H, W), N, f"got {C + 1} channels, expected {C}"),
        ({"learned": (N, T, 2, 4)}, (C, T, H, W), N, "got frames of 3 x 4 tokens, expected 2 x 4"),
        ({"learned": (N, T, 3, 4)}, (C, T, H, W), 2, "got a text of 2 tokens, expected 5"),
    ],
)
def test_what_does_not_fit_is_named(arguments, size, text, message, c_noise):
    cond = Conditioning(text=torch.randn(B, text, TEXT))
    with pytest.raises(ValueError, match=message):
        network(**arguments)(torch.randn(B, *size), c_noise, cond)


def test_patches_have_three_sides():
    with pytest.raises(ValueError, match=r"got patch_size=\(2, 2\), expected \(t, h, w\)"):
        JointDiT(C, **SMALL, patch_size=(2, 2))
