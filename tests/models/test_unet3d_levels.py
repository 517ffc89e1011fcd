"""Couplings around transformers and behind levels: where they stand, and what they start as."""

import torch
import torch.nn.functional as F

from vdm.layers.embeddings import NumberTable
from vdm.models.unet3d import LevelOptions, UNet3D
from vdm.models.unet3d_blocks import Heads, UNetOptions
from vdm.models.unet3d_levels import LevelInTime, ResBlocksAfterLevel, StackBeforeTransformer
from vdm.models.unet3d_temporal import ConvStack
from vdm.types import Conditioning

B, T, H, W = 2, 5, 4, 6
COUPLINGS = [StackBeforeTransformer(depth=2), ResBlocksAfterLevel()]


def network(temporal=(), **changes):
    torch.manual_seed(0)
    options = UNetOptions(heads=Heads(number=2), num_groups=4, only_context=changes.pop("only", ()))
    return UNet3D(
        3, (8, 12), 1, (0, 1, 1), temporal, text_dim=7, block=options,
        frame_conditioning=False, **changes,
    )  # fmt: skip


def inputs():
    torch.manual_seed(1)
    return torch.randn(B, 3, T, H, W), torch.rand(B), Conditioning(text=torch.randn(B, 4, 7))


def opened(net):
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def test_there_is_a_stack_for_every_transformer_and_a_module_for_every_level():
    net = network(COUPLINGS)
    kinds = [type(module) for module in net.modules()]
    assert kinds.count(ConvStack) == 1 + 1 + 2  # down, middle, up
    assert kinds.count(LevelInTime) == 2 + 1 + 2
    assert not len(net.middle[1].before_transformer)
    assert not net.is_causal


def test_they_start_as_nothing_and_couple_frames_later():
    x, level, cond = inputs()
    own = opened(network()).state_dict()
    net = network(COUPLINGS)
    net.load_state_dict(net.state_dict() | own)
    alone = network()
    alone.load_state_dict(own)
    torch.testing.assert_close(net(x, level, cond), alone(x, level, cond))
    opened(net)
    x.requires_grad_()
    pred = net(x, level, cond)
    (grad,) = torch.autograd.grad(pred[:, :, 0].sum(), x)
    assert grad[:, :, -1].any()


def test_every_parameter_is_trained():
    x, level, cond = inputs()
    net = opened(network(COUPLINGS))
    net(x, level, cond).square().sum().backward()
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_what_follows_a_level_adds_two_residual_blocks_through_a_map():
    place_of = opened(network([ResBlocksAfterLevel((5, 3))]))
    module = place_of.down[0].after[0]
    assert module.in_time.conv1.kernel_size == (5, 1, 1)
    assert module.in_time.conv2.kernel_size == (3, 1, 1)
    assert module.in_time.norm1.eps == module.in_space.norm1.eps == 1e-6
    kept = []
    place_of.middle[0].register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    place_of.up[1].layers[1].register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    place_of(*inputs())
    assert kept[1].shape[1] == 8 + 8  # the skip is from before the module


def test_levels_may_read_the_context_alone():
    """Then a token of a frame does not see the others of its transformer."""
    some, none = network(only=(1,)), network()
    attend = [net.down[1].layers[0].transformer.blocks[0].attends for net in (some, none)]
    assert attend[0] == (None, None)
    assert attend[1][0] is not None
    assert some.middle[0].transformer.blocks[0].attends[0] is not None
    x, level, cond = inputs()
    opened(some)
    changed = cond.replace(text=cond.text + 1)
    assert not torch.allclose(some(x, level, cond), some(x, level, changed))


def test_a_whole_number_has_a_vector_of_its_own():
    table = NumberTable(5, 3)
    values = torch.tensor([4.0, 0.9, 1.0])
    assert torch.equal(table(values), F.embedding(torch.tensor([4, 1, 1]), table.table.weight))
    x, level, cond = inputs()
    options = LevelOptions(scalars="table", table_size=7)
    net = opened(network(scalars=["noise_aug"], level=options))
    assert net.scalar_embeds["noise_aug"].table.num_embeddings == 7
    one, other = (net(x, level, cond.replace(noise_aug=torch.tensor([k, 2.0]))) for k in (1.0, 6.0))
    assert not torch.allclose(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_pixels_beside_latents_are_read():
    torch.manual_seed(0)
    options = UNetOptions(heads=Heads(number=2), num_groups=4)
    net = opened(UNet3D(4, (8,), 1, (0, 0), frame_conditioning="pixels", block=options))
    x, level = torch.randn(B, 4, T, H, W), torch.rand(B)
    assert net.embed.in_channels == 7
    given = torch.randn(B, 3, T, H, W)
    assert not torch.allclose(
        net(x, level, Conditioning(given=given)), net(x, level, Conditioning())
    )
    zero = Conditioning(given=torch.zeros_like(given))
    torch.testing.assert_close(net(x, level, zero), net(x, level, Conditioning()))
