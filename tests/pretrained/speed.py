"""Published networks beside their references at a size that a benchmark can afford.

Widths are a fifth of the published ones and in the same proportion; frames and latents are those of
a small clip. Every parameter is drawn at random, and both sides have the same.
"""

import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import diffusers
import torch
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from einops import rearrange, repeat
from torch import Tensor, nn

from tests.models.unet3d_oracles import reference
from vdm.pipelines.plan import MemoryMeter
from vdm.pretrained import load_autoencoder, load_network
from vdm.types import Conditioning

WIDTHS = (64, 128, 256, 256)
SIZE = (24, 40)
IDLE = 0.95
"""Share of the time on the wall from which on the cores count as ours alone."""


class Side(NamedTuple):
    """One implementation at work.

    Args:
        module: Holds the weights.
        run: Computes the result ``b c t h w``.
    """

    module: nn.Module
    run: Callable[[], Tensor]


class Pair(NamedTuple):
    """Both implementations of the same function of the same weights and input."""

    ours: Side
    theirs: Side


def load(theirs: nn.Module, loader: Callable[[str], nn.Module], dtype: torch.dtype) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = loader(folder)
    nn.Module.to(theirs, dtype)
    return ours.to(dtype)


def svd(dtype=torch.float32, size=SIZE, frames=14):
    heads = [width // 64 for width in WIDTHS]
    kind = diffusers.UNetSpatioTemporalConditionModel
    config = {"num_attention_heads": heads, "cross_attention_dim": 1024, "num_frames": frames}
    theirs = reference(kind, 0.7, block_out_channels=WIDTHS, **config)
    ours = load(theirs, load_network, dtype)
    x, given = torch.randn(2, 1, 4, frames, *size)
    image, level = torch.randn(1, 1, 1024), torch.tensor([1.63])
    ids = torch.tensor([[6, 127, 0.02]])
    both = rearrange(torch.cat((x, given), dim=1), "b c t h w -> b t c h w").contiguous().to(dtype)
    numbers = dict(zip(("fps", "motion_bucket", "noise_aug"), ids.unbind(1), strict=True))
    cond = Conditioning(image=image, given=given, **numbers).to(dtype)
    x, image = x.to(dtype), image.to(dtype)
    return Pair(
        Side(ours, lambda: ours(x, level, cond)),
        Side(theirs, lambda: theirs(both, level, image, ids).sample.transpose(1, 2)),
    )


def modelscope(dtype=torch.float32, size=SIZE, frames=16):
    config = {"attention_head_dim": 32, "cross_attention_dim": 1024}
    theirs = reference(diffusers.UNet3DConditionModel, 0.7, block_out_channels=WIDTHS, **config)
    return _from_text(theirs, 1024, dtype, (frames, *size))


def animatediff(dtype=torch.float32, size=SIZE, frames=16):
    config = {"num_attention_heads": 2, "motion_num_attention_heads": 2}
    config |= {"cross_attention_dim": 768, "use_motion_mid_block": True}
    theirs = reference(UNetMotionModel, 0.7, block_out_channels=WIDTHS, **config)
    return _from_text(theirs, 768, dtype, (frames, *size), repeats=frames)


def _from_text(theirs, dim, dtype, size, repeats=1):
    ours = load(theirs, load_network, dtype)
    x, text = torch.randn(1, 4, *size, dtype=dtype), torch.randn(1, 77, dim, dtype=dtype)
    step, each = torch.tensor([981.0]), repeat(text, "b n d -> (b t) n d", t=repeats)
    cond = Conditioning(text=text)
    return Pair(
        Side(ours, lambda: ours(x, step, cond)),
        Side(theirs, lambda: theirs(x, step, each).sample),
    )


def decoder(dtype=torch.float32, size=(16, 28), frames=14):
    widths = [width // 2 for width in WIDTHS]
    levels = {"down_block_types": ["DownEncoderBlock2D"] * 4, "layers_per_block": 2}
    kind = diffusers.AutoencoderKLTemporalDecoder
    theirs = reference(kind, 0.7, block_out_channels=widths, **levels)
    ours = load(theirs, load_autoencoder, dtype)
    raw = torch.randn(1, 4, frames, *size, dtype=dtype)
    flat = rearrange(raw, "b c t h w -> (b t) c h w").contiguous()

    def decode() -> Tensor:
        video = theirs.decode(flat, num_frames=frames).sample
        return rearrange(video, "(b t) c h w -> b c t h w", t=frames)

    return Pair(Side(ours, lambda: ours.decode_raw(raw)), Side(theirs, decode))


Case = Callable[..., Pair]
CASES: dict[str, Case] = {
    "SVD U-Net": svd,
    "ModelScope U-Net": modelscope,
    "AnimateDiff U-Net": animatediff,
    "SVD temporal decoder": decoder,
}


class Times(NamedTuple):
    """How long ours takes in units of theirs, by two clocks.

    Args:
        wall: By the clock on the wall.
        cpu: By the time that cores worked for this process, whatever else they did.
        share: Share of the time on the wall that its main thread had a core to itself.
    """

    wall: float
    cpu: float
    share: float

    @property
    def clock(self) -> str:
        """Which clock tells more: that on the wall, unless others had the cores, too."""
        return "wall" if self.share >= IDLE else "cpu"

    @property
    def ratio(self) -> float:
        """By that clock."""
        return self.wall if self.clock == "wall" else self.cpu


@torch.no_grad()
def measure_times(pair: Pair, rounds: int) -> Times:
    """Medians over rounds in which both run, one after the other.

    What else the machine does then slows both alike.
    """
    for side in pair:
        side.run()
    found = []
    for number in range(rounds):
        order = pair if number % 2 else reversed(pair)
        spent = {side is pair.ours: _spent(side) for side in order}
        wall, cpu, _ = (mine / other for mine, other in zip(spent[True], spent[False], strict=True))
        share = sum(each[2] for each in spent.values()) / sum(each[0] for each in spent.values())
        found.append((wall, cpu, share))
    return Times(*(median(values) for values in zip(*found, strict=True)))


def _spent(side: Side) -> list[float]:
    """Seconds of a run on the wall, of all threads, and of this one."""
    clocks = (time.perf_counter, time.process_time, time.thread_time)
    before = [clock() for clock in clocks]
    side.run()
    return [clock() - start for clock, start in zip(clocks, before, strict=True)]


@torch.no_grad()
def peak_bytes(side: Side) -> int:
    """Most bytes of tensors alive at once during a call, weights aside."""
    with MemoryMeter([*side.module.parameters(), *side.module.buffers()]) as meter:
        side.run()
    return meter.peak
