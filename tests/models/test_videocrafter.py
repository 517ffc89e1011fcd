"""VideoCrafter's networks against what diffusers' parts make of the same weights."""

import pytest
import torch

from tests.models.unet3d_oracles import relative_error
from tests.models.videocrafter_oracles import KINDS, Reference
from vdm.layers.factorization import Joint, Temporal
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.models.unet3d_temporal import TemporalAttention, TemporalTransformer
from vdm.types import Conditioning

SIZE = presets.Size(Heads(dim=8), widths=(32, 64), depth=1, attention=(1, 0, 1), context_dim=16)
MAKE = {
    "videocrafter2": presets.videocrafter2,
    "videocrafter1_512": presets.videocrafter1,
    "videocrafter1_1024": lambda *size: presets.videocrafter1(*size, scalars=["fps"]),
    "videocrafter1_image": presets.videocrafter1_image,
}


def told(kind, batch=2):
    numbers = {"fps": torch.tensor([8.0, 28.0])} if "fps" in KINDS[kind] else {}
    return numbers | ({"image": torch.randn(batch, 4, 16)} if "image" in KINDS[kind] else {})


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_networks_agree(kind):
    theirs = Reference(kind, 0.05)  # so small that eps counts
    ours = MAKE[kind](SIZE).eval()
    ours.load_state_dict(theirs.our_state(ours.state_dict()), strict=True)
    x, steps, text = torch.randn(2, 4, 5, 7, 10), torch.tensor([981.0, 41.0]), torch.randn(2, 7, 16)
    more = told(kind)
    expected = theirs(x, steps, text, **more)
    assert relative_error(ours(x, steps, Conditioning(text=text, **more)), expected) <= 1e-5
    for name, value in more.items():
        other = Conditioning(**{"text": text, **more, name: value + 1})
        assert relative_error(ours(x, steps, other), expected) > 1e-4, name


def test_a_picture_is_needed_where_one_is_read():
    network = presets.videocrafter1_image(SIZE)
    cond = Conditioning(text=torch.randn(1, 7, 16), fps=torch.ones(1))
    with pytest.raises(ValueError, match="UNet3D needs image"):
        network(torch.randn(1, 4, 2, 8, 8), torch.ones(1), cond)


@pytest.mark.parametrize("coupling", [TemporalTransformer, TemporalAttention])
def test_relative_positions_are_those_of_frames(coupling):
    with pytest.raises(ValueError, match=r"got relative positions with Joint.*, expected Temporal"):
        coupling(factorization=Joint(), positions="relative")
    assert coupling(factorization=Temporal(), positions="relative").positions == "relative"
