"""A network that steers another: what it sees, and that it starts as nothing."""

import pytest
import torch

from vdm.models.sparse_control import ControlledUNet, SparseControl
from vdm.models.unet3d import UNet3D
from vdm.models.unet3d_blocks import Heads, UNetOptions
from vdm.models.unet3d_temporal import TemporalTransformer
from vdm.types import Conditioning

OPTIONS = UNetOptions(heads=Heads(number=2), num_groups=4)
SHAPE = {"widths": (8, 12), "depth": 1, "attention": (1, 0, 1), "text_dim": 6}
MOTION = (TemporalTransformer(needs_attention=False),)


def make(sees="latents", scale=1.0):
    torch.manual_seed(0)
    channels = 4 if sees == "latents" else 3
    more = {"temporal": MOTION, "pixel_widths": (5, 7), "block": OPTIONS}
    control = SparseControl(4, sees, channels, **SHAPE, **more)
    unet = UNet3D(4, **SHAPE, temporal=MOTION, frame_conditioning=False, block=OPTIONS)
    return ControlledUNet(unet, control, scale)


def awake(net):
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval()


def inputs(side=1, channels=4):
    x, t = torch.randn(2, 4, 3, 6, 10), torch.tensor([500.0, 3.0])
    mask = torch.zeros(2, 1, 3, 6 * side, 10 * side)
    mask[:, :, 1] = 1
    given = mask * torch.randn(2, channels, 3, 6 * side, 10 * side)
    return x, t, {"text": torch.randn(2, 5, 6), "given": given, "given_mask": mask}


def test_a_new_one_changes_nothing():
    net = make()
    for parameter in net.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x, t, fields = inputs()
    alone = net.unet(x, t, Conditioning(text=fields["text"]))
    assert torch.equal(net(x, t, Conditioning(**fields)), alone)


@pytest.mark.parametrize(("sees", "side", "channels"), [("latents", 1, 4), ("pixels", 2, 3)])
def test_given_frames_and_the_scale_make_a_difference(sees, side, channels):
    net = awake(make(sees))
    x, t, fields = inputs(side, channels)
    usual = net(x, t, Conditioning(**fields))
    assert usual.shape == x.shape
    none = net(x, t, Conditioning(text=fields["text"]))
    zeros = {name: torch.zeros_like(fields[name]) for name in ("given", "given_mask")}
    assert torch.equal(none, net(x, t, Conditioning(text=fields["text"], **zeros)))
    for changed in (none, net(x, t, Conditioning(**fields | {"given_mask": zeros["given_mask"]}))):
        assert not torch.allclose(usual, changed, atol=1e-3)
    net.scale = 0.0
    assert torch.equal(
        net(x, t, Conditioning(**fields)), net.unet(x, t, Conditioning(text=fields["text"]))
    )


def test_what_it_adds_does_not_depend_on_the_noisy_latents():
    net = awake(make())
    x, t, fields = inputs()
    one, other = (net.control(y, t, Conditioning(**fields)) for y in (x, -x))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_gradients_reach_every_parameter():
    net = awake(make("pixels"))
    x, t, fields = inputs(2, 3)
    net(x, t, Conditioning(**fields)).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == ["control.embed.weight"]  # it sees zeros


def test_other_sights_and_fields_are_refused():
    with pytest.raises((ValueError, TypeError), match="sounds"):
        SparseControl(4, "sounds", 4, **SHAPE, temporal=MOTION, block=OPTIONS)
    x, t, fields = inputs()
    with pytest.raises(ValueError, match="ControlledUNet does not read fps"):
        make()(x, t, Conditioning(**fields, fps=torch.ones(2)))
