"""What holds for the network of double-stream and single-stream blocks."""

import pytest
import torch

from vdm.layers.position_rules import SharedOutRotary
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.models.joint_blocks import JointOptions
from vdm.types import Conditioning
from vdm.utils.config import build, describe

B, C, T, H, W, N, TEXT, POOLED = 2, 3, 4, 6, 8, 5, 10, 7
SMALL = {"dim": 36, "depth": (2, 2), "num_heads": 3, "text_dim": TEXT, "pooled_dim": POOLED}
SMALL |= {"positions": SharedOutRotary((2, 4, 6))}
KINDS = {
    "refined": {"refiner_depth": 1},
    "plain": {"refiner_depth": None, "embeds_guidance": False},
    "joined": {"given": True},
    "added": {"given": "added"},
    "first": {"given": "first_frame"},
}


def network(**arguments):
    """A tiny network whose branches are all open."""
    torch.manual_seed(0)
    net = DualStreamDiT(C, **SMALL | arguments).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


@pytest.fixture
def x():
    return torch.randn(B, C, T, H, W)


@pytest.fixture
def c_noise():
    return 1000 * torch.rand(B)


def told(kind, x):
    """Everything that a kind of network can be told."""
    net = DualStreamDiT(C, **SMALL | KINDS[kind])
    mask = (torch.arange(N) < torch.tensor([[N], [2]])).float()
    every = {
        "text": torch.randn(B, N, TEXT),
        "text_mask": mask,
        "pooled_text": torch.randn(B, POOLED),
        "guidance": torch.tensor([6.0, 1.5]),
        "given": torch.randn_like(x),
        "given_mask": (torch.rand(B, 1, T, H, W) > 0.5).float(),
    }
    return Conditioning(**{name: value for name, value in every.items() if name in net.reads})


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_network_predicts_zero_and_can_learn(kind, x, c_noise):
    net, cond = DualStreamDiT(C, **SMALL | KINDS[kind]), told(kind, x)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    assert not net(x, c_noise, cond).any()
    for _ in range(6):
        optimizer.zero_grad()
        (net(x, c_noise, cond) - x).square().mean().backward()
        optimizer.step()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_new_blocks_are_the_identity(x, c_noise):
    net, seen = DualStreamDiT(C, **SMALL), []
    for block in [*net.double_blocks, *net.single_blocks, *net.text_embed.blocks]:
        block.register_forward_hook(lambda module, given, out: seen.append((given, out)))
    net(x, c_noise, told("refined", x))
    assert len(seen) == 6
    for before, after in seen:
        outs = after if isinstance(after, tuple) else (after,)
        assert all(torch.equal(*pair) for pair in zip(before[: len(outs)], outs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_field_that_is_read_changes_the_output(kind, x, c_noise):
    net, cond = network(**KINDS[kind]), told(kind, x)
    out = net(x, c_noise, cond)
    for name in net.reads:
        value = getattr(cond, name)
        other = 1 - value if name.endswith("mask") else value + 1
        assert not torch.equal(net(x, c_noise, cond.replace(**{name: other})), out), name


@torch.no_grad()
def test_padding_of_texts_is_not_seen(x, c_noise):
    net, cond = network(), told("refined", x)
    out = net(x, c_noise, cond)
    loud = cond.text + 9 * (1 - cond.text_mask[..., None])
    torch.testing.assert_close(net(x, c_noise, cond.replace(text=loud)), out)
    alone = cond.select([1]).replace(text=cond.text[1:, :2], text_mask=None)
    torch.testing.assert_close(net(x[1:], c_noise[1:], alone), out[1:])


@torch.no_grad()
def test_what_stands_for_the_first_frame_is_free_of_noise(x, c_noise):
    net, cond = network(**KINDS["first"]), told("first", x)
    out = net(x, c_noise, cond)
    noisy = torch.cat((torch.randn_like(x[:, :, :1]), x[:, :, 1:]), dim=2)
    assert torch.equal(net(noisy, c_noise, cond), out)
    later = torch.cat((cond.given[:, :, :1], torch.randn_like(x[:, :, 1:])), dim=2)
    assert torch.equal(net(x, c_noise, cond.replace(given=later)), out)


@torch.no_grad()
def test_nothing_given_is_a_mask_of_zeros(x, c_noise):
    net, cond = network(**KINDS["added"]), told("added", x)
    zeros = cond.replace(given=torch.zeros_like(x), given_mask=torch.zeros(B, 1, T, H, W))
    none = cond.replace(given=None, given_mask=None)
    assert torch.equal(net(x, c_noise, none), net(x, c_noise, zeros))
    with pytest.raises(ValueError, match="got one of given and given_mask"):
        net(x, c_noise, cond.replace(given=None))


def test_recomputed_activations_give_the_same_gradients(x, c_noise):
    cond, found = told("refined", x), []
    for recompute in (False, True):
        net = network(options=JointOptions(gradient_checkpointing=recompute)).train()
        net(x, c_noise, cond).sum().backward()
        found.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_network_is_described_and_built_again():
    net = network(given="added", patch_size=(2, 1, 2))
    again = build(describe(net))
    assert describe(again) == describe(net)
    again.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": (2, 2)}, "expected .t, h, w."),
        ({"depth": (2,)}, "expected .double, single."),
        ({"positions": SharedOutRotary((2, 4, 4))}, "for head_dim=12, expected that sum"),
        ({"options": JointOptions(feedforward="geglu")}, "expected 'gelu_tanh'"),
        ({"given": "first_frame", "patch_size": (2, 2, 2)}, "got patches of 2 frames"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DualStreamDiT(C, **SMALL | change)
    with pytest.raises(ValueError, match=r"got axes=\(1, 2, 4\), expected three even numbers"):
        SharedOutRotary((1, 2, 4))
