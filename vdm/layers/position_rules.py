"""How a transformer tells its tokens where they are: vectors that are added, and rotations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from vdm.layers.embeddings import sinusoid
from vdm.layers.positions import (
    Axes,
    Pairing,
    RotaryTable,
    default_axes_dims,
    keep_tables,
    rotary_table,
    sincos,
    sincos_grid,
)

Rates = Float[Tensor, " b"]
"""Frames per second of every clip."""


class Positions:
    """A rule that gives every token of a grid (t, h, w) its place; this one gives none."""

    reads_fps = False
    """Whether places depend on the frame rate."""
    reads_size = False
    """Whether places depend on how many pixels a clip has."""
    reads_starts = False
    """Whether frames may stand elsewhere than one behind the other."""
    turns_space = True
    """Whether rotations tell the tokens of a frame apart."""

    def added(
        self, grid: Axes, dim: int, device: torch.device, block: int = 0
    ) -> Float[Tensor, "#t #h #w dim"] | None:
        """What is added to tokens of width ``dim`` ahead of a block; None for nothing."""
        return None

    def added_for(
        self, size: Float[Tensor, "b 2"], grid: Axes, dim: int
    ) -> Float[Tensor, "b 1 h w dim"] | None:
        """The same ahead of the first block, where it depends on height and width in pixels."""
        return None

    def rotary(
        self, grid: Axes, head_dim: int, device: torch.device, fps: Rates | None = None
    ) -> RotaryTable | None:
        """The rotations ``(t, h, w, pairs)`` of heads of width ``head_dim``; None for none."""
        return None


@dataclass(frozen=True)
class AddedSinCos(Positions):
    """Sines and cosines, added: a quarter of the channels for time, halves of the rest for w, h.

    Args:
        space_scale: What places are divided by, so that a finer grid covers the same range.
        time_scale: What frames are divided by.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072, the released 2B model; the axes of a frame
        are in the order of He et al. 2022, arXiv:2111.06377, whose code puts the width first.
    """

    space_scale: float = 1.875
    time_scale: float = 1.0

    def added(
        self, grid: Axes, dim: int, device: torch.device, block: int = 0
    ) -> Float[Tensor, "#t #h #w dim"] | None:
        """The table, ahead of the first block."""
        return None if block else self.table(grid, dim, device)

    def table(self, grid: Axes, dim: int, device: torch.device) -> Float[Tensor, "t h w dim"]:
        """Made once for each shape.

        Raises:
            ValueError: If the channels cannot be shared out.
        """
        if dim % 16:
            raise ValueError(f"got dim={dim}, expected a multiple of 16; nearest: {_near(dim, 16)}")
        return _added_sincos(self, grid, dim, device)


@dataclass(frozen=True)
class SpaceThenTime(Positions):
    """Sines and cosines, added: of places ahead of the first block, of frames ahead of the second.

    A frame of any size covers the range of those in training: its last row and column stand where
    theirs would.

    Args:
        side: Tokens along a side of the frames in training.
        scale: What places are divided by besides.

    Source:
        Ma et al. 2024, "Latte", arXiv:2401.03048, its released model; places as in Chen et al.
        2023, "PixArt-alpha", arXiv:2310.00426.
    """

    side: int
    scale: float = 1.0

    def added(
        self, grid: Axes, dim: int, device: torch.device, block: int = 0
    ) -> Float[Tensor, "#t #h #w dim"] | None:
        """Made once for each shape.

        Raises:
            ValueError: If the channels cannot be shared out.
        """
        if dim % 4:
            raise ValueError(f"got dim={dim}, expected a multiple of 4; nearest: {_near(dim, 4)}")
        if block == 0:
            units = (self.scale * grid[1] / self.side, self.scale * grid[2] / self.side)
            return _space(units, grid, dim, device)
        return _time(1.0, grid, dim, device) if block == 1 and grid[0] > 1 else None


@dataclass(frozen=True)
class SpaceAndTime(Positions):
    """Sines and cosines, added: of places ahead of the first block, of frames within it.

    Args:
        space_scale: What places are divided by, so that a coarser grid covers the same range.
        time_scale: What frames are divided by.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, the released model of version 1.0.
    """

    space_scale: float = 1.0
    time_scale: float = 1.0

    def added(
        self, grid: Axes, dim: int, device: torch.device, block: int = 0
    ) -> Float[Tensor, "#t #h #w dim"] | None:
        """Of places, made once for each shape.

        Raises:
            ValueError: If the channels cannot be shared out.
        """
        if block:
            return None
        if dim % 4:
            raise ValueError(f"got dim={dim}, expected a multiple of 4; nearest: {_near(dim, 4)}")
        return _space((self.space_scale,) * 2, grid, dim, device)

    def within(self, grid: Axes, dim: int, device: torch.device) -> Float[Tensor, "t 1 1 dim"]:
        """Of frames: what the first block adds to what attends over time."""
        return _time(self.time_scale, grid, dim, device)


@dataclass(frozen=True)
class SizedSpaceTurnedTime(Positions):
    """Sines and cosines of places, added ahead of the first block; rotations for frames alone.

    Places are those in a square frame of as many tokens, in units that grow with the picture.

    Args:
        side: Side of a square in pixels whose places are counted one by one.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, the released model of version 1.2.
    """

    side: int = 512

    reads_size = True
    turns_space = False

    def added_for(
        self, size: Float[Tensor, "b 2"], grid: Axes, dim: int
    ) -> Float[Tensor, "b 1 h w dim"]:
        """Of places; on the device of the sizes, whose values are not looked at.

        Raises:
            ValueError: If the channels cannot be shared out.
        """
        if dim % 4:
            raise ValueError(f"got dim={dim}, expected a multiple of 4; nearest: {_near(dim, 4)}")
        _, h, w = grid
        square, unit = round((h * w) ** 0.5), size.float().prod(1).sqrt() / self.side
        high, wide = (
            sinusoid(
                torch.arange(count, device=size.device) * (square / count) / unit[:, None],
                dim // 2,
                cos_first=False,
            )
            for count in (h, w)
        )
        parts = (repeat(wide, "b w d -> b 1 h w d", h=h), repeat(high, "b h d -> b 1 h w d", w=w))
        return torch.cat(parts, dim=-1)

    def rotary(
        self, grid: Axes, head_dim: int, device: torch.device, fps: Rates | None = None
    ) -> RotaryTable:
        """Of frames, ``(t, 1, 1, pairs)``.

        Raises:
            ValueError: If heads have an odd number of channels.
        """
        return _turned_frames(grid[0], head_dim, device)


class Rotary(Positions, ABC):
    """Rotations: a quarter of the channels for time, then halves of the rest for h and w."""

    theta: float = 10_000.0
    """Ratio of the longest to the shortest wavelength."""
    pairing: Pairing = "interleaved"
    """Which channels are rotated together."""

    def axes_dims(self, head_dim: int) -> Axes:
        """Channels of a head for (t, h, w).

        Raises:
            ValueError: If they cannot be shared out.
        """
        if head_dim % 16:
            raise ValueError(
                f"got head_dim={head_dim}, expected a multiple of 16; "
                f"nearest: {_near(head_dim, 16)}"
            )
        return (head_dim // 4, 3 * head_dim // 8, 3 * head_dim // 8)

    @abstractmethod
    def coordinates(self, grid: Axes) -> Sequence[Float[Tensor, " _"]]:
        """Where tokens stand along each axis, in float64."""

    def rotary(
        self, grid: Axes, head_dim: int, device: torch.device, fps: Rates | None = None
    ) -> RotaryTable:
        """Made once for each shape.

        Raises:
            ValueError: If the channels cannot be shared out.
        """
        return _rotary(self, grid, head_dim, device)


@dataclass(frozen=True)
class CountedRotary(Rotary):
    """Tokens stand at 0, 1, 2, ... along every axis, whatever the size of the grid.

    Source:
        Yang et al. 2024, arXiv:2408.06072, section 2.2, as in the released model of version 1.5.
    """

    def coordinates(self, grid: Axes) -> Sequence[Float[Tensor, " _"]]:
        """Whole numbers."""
        return [torch.arange(size, dtype=torch.float64, device="cpu") for size in grid]


@dataclass(frozen=True)
class ThirdsRotary(CountedRotary):
    """The same with a third of the channels for every axis, time taking what is left.

    Source:
        Wan team 2025, "Wan: Open and Advanced Large-Scale Video Generative Models",
        arXiv:2503.20314, as in the released models.
    """

    def axes_dims(self, head_dim: int) -> Axes:
        """Channels of a head for (t, h, w).

        Raises:
            ValueError: If the head is too small or odd.
        """
        return default_axes_dims(head_dim)


@dataclass(frozen=True)
class SharedOutRotary(CountedRotary):
    """The same with stated numbers of channels.

    Args:
        axes: Channels of a head for (t, h, w).
        theta: Ratio of the longest to the shortest wavelength.
        pairing: Which channels are rotated together.

    Raises:
        ValueError: If there is not an even number of channels for each axis.

    Source:
        Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603, section 4.2, as in the released model;
        with ``theta`` 10000 that of Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642.
    """

    axes: Sequence[int] = (16, 56, 56)
    theta: float = 256.0
    pairing: Pairing = "interleaved"

    def __post_init__(self) -> None:
        """Check and freeze the numbers."""
        if len(self.axes) != 3 or any(dim % 2 for dim in self.axes):
            raise ValueError(f"got axes={tuple(self.axes)}, expected three even numbers")
        object.__setattr__(self, "axes", tuple(self.axes))

    def axes_dims(self, head_dim: int) -> Axes:
        """Channels of a head for (t, h, w).

        Raises:
            ValueError: If they are not all of the head's.
        """
        t, h, w = self.axes
        if t + h + w != head_dim:
            raise ValueError(f"got axes={t, h, w} for head_dim={head_dim}, expected that sum")
        return t, h, w


@dataclass(frozen=True)
class FittedRotary(Rotary):
    """Every frame is fitted into the grid of training, centred, its sides in proportion.

    Args:
        height: Tokens along the height of a frame in training.
        width: Tokens along its width.

    Source:
        Yang et al. 2024, arXiv:2408.06072, as in the released 5B models; the fit is that of
        Li et al. 2024, "Hunyuan-DiT", arXiv:2405.08748, section 2.1.
    """

    height: int
    width: int

    def coordinates(self, grid: Axes) -> Sequence[Float[Tensor, " _"]]:
        """Whole numbers along time, fractions in space."""
        t, h, w = grid
        if h * self.width > w * self.height:
            fitted = (self.height, round(self.height / h * w))
        else:
            fitted = (round(self.width / w * h), self.width)
        axes = [torch.arange(t, dtype=torch.float64, device="cpu")]
        for size, inside, whole in zip((h, w), fitted, (self.height, self.width), strict=True):
            start = round((whole - inside) / 2)
            # The published tables end at (start + inside) scaled as a whole, not at its last token.
            stop = (start + inside) * (size - 1) / size
            axes.append(torch.linspace(start, stop, size, dtype=torch.float64, device="cpu"))
        return axes


@dataclass(frozen=True)
class SecondsRotary(Positions):
    """Tokens stand at the second and the pixel of their first frame and corner.

    All heads are rotated as one: the frequencies go round (t, h, w) through the channels of all of
    them, so heads differ in which they have. What is left of the channels comes first, unrotated.

    Args:
        num_heads: Attention heads.
        strides: Frames, and pixels along both sides, from token to token.
        extent: Seconds and pixels from the middle of which positions are counted, in halves of it.
        theta: Ratio of the longest to the shortest wavelength.

    Source:
        HaCohen et al. 2024, "LTX-Video: Realtime Video Latent Diffusion", arXiv:2501.00103,
        section 2.2, as in the released models.
    """

    num_heads: int
    strides: Axes = (8, 32, 32)
    extent: Axes = (20, 2048, 2048)
    theta: float = 10_000.0

    reads_fps = True
    reads_starts = True

    def rotary(
        self,
        grid: Axes,
        head_dim: int,
        device: torch.device,
        fps: Rates | None = None,
        starts: Float[Tensor, "b t"] | None = None,
    ) -> RotaryTable:
        """The rotations ``(b, t, h, w, heads, pairs)``.

        Args:
            grid: Tokens along (t, h, w).
            head_dim: Width of a head.
            device: Where the table is to be.
            fps: Frames per second.
            starts: At which frame of the clip tokens begin; one behind the other if None.

        Raises:
            ValueError: If the frame rates are missing, or heads have an odd number of channels.
        """
        if fps is None or head_dim % 2:
            raise ValueError(
                f"got fps={fps} and head_dim={head_dim}, expected a frame rate for every clip and "
                "an even number"
            )
        dim = self.num_heads * head_dim
        # In float32 and in this order as in the reference: the fastest turn thousands of times, so
        # that rounding shows.
        steps = torch.linspace(0, 1, dim // 6, dtype=torch.float32, device=device)
        frequencies = self.theta**steps * math.pi / 2
        t, h, w = (torch.arange(size, dtype=torch.float32, device=device) for size in grid)
        rates = fps.float()[:, None]
        places = [self.seconds(t, rates) if starts is None else starts.float() * (1 / rates)]
        places += [
            (place * stride)[None] for place, stride in zip((h, w), self.strides[1:], strict=True)
        ]
        angles = []
        for axis, (place, extent) in enumerate(zip(places, self.extent, strict=True), start=1):
            centred = (place / extent * 2 - 1).unsqueeze(-1)
            shape = [len(place), 1, 1, 1, dim // 6]
            shape[axis] = place.shape[1]
            angles.append((frequencies * centred).reshape(shape))
        cos_sin = []
        for function, unrotated in ((torch.cos, 1.0), (torch.sin, 0.0)):
            parts = torch.broadcast_tensors(*(function(angle) for angle in angles))
            turned = torch.stack(parts, dim=-1).flatten(-2)
            table = torch.nn.functional.pad(turned, (dim % 6 // 2, 0), value=unrotated)
            cos_sin.append(table.unflatten(-1, (self.num_heads, head_dim // 2)))
        cos, sin = cos_sin
        return RotaryTable(cos, sin)

    def seconds(
        self, frames: Float[Tensor, " t"], fps: Float[Tensor, "b 1"]
    ) -> Float[Tensor, "b t"]:
        """When tokens begin, as if every one stood for as many frames."""
        return frames * (self.strides[0] / fps)


@dataclass(frozen=True)
class CausalSecondsRotary(SecondsRotary):
    """The same, the first tokens standing for one frame alone, as they do.

    Source:
        HaCohen et al. 2024, arXiv:2501.00103, as in the models from version 0.9.5 on.
    """

    def seconds(
        self, frames: Float[Tensor, " t"], fps: Float[Tensor, "b 1"]
    ) -> Float[Tensor, "b t"]:
        """When tokens begin."""
        stride = self.strides[0]
        return (frames * stride + 1 - stride).clamp_min(0) * (1 / fps)


def _near(size: int, multiple: int) -> int:
    return max(1, round(size / multiple)) * multiple


@keep_tables(4)
def _added_sincos(rule: AddedSinCos, grid: Axes, dim: int, device: torch.device) -> Tensor:
    t, h, w = (torch.arange(size, dtype=torch.float64, device="cpu") for size in grid)
    axes = (t / rule.time_scale, w / rule.space_scale, h / rule.space_scale)
    with torch.inference_mode(False), torch.no_grad():  # to be used in training later, too
        table = sincos_grid(axes, (dim // 4, 3 * dim // 8, 3 * dim // 8))
        return rearrange(table, "t w h d -> t h w d").contiguous().to(device)


@keep_tables(2)
def _space(
    units: tuple[float, float], grid: Axes, dim: int, device: torch.device
) -> Float[Tensor, "1 h w dim"]:
    """Of places, counted in units of height and of width."""
    h, w = (
        torch.arange(size, dtype=torch.float64, device="cpu") / unit
        for size, unit in zip(grid[1:], units, strict=True)
    )
    with torch.inference_mode(False), torch.no_grad():
        table = sincos_grid((w, h), (dim // 2, dim // 2))
        return rearrange(table, "w h d -> 1 h w d").contiguous().to(device)


@keep_tables(2)
def _time(unit: float, grid: Axes, dim: int, device: torch.device) -> Float[Tensor, "t 1 1 dim"]:
    """Of frames, counted in a unit."""
    frames = torch.arange(grid[0], dtype=torch.float64, device="cpu") / unit
    with torch.inference_mode(False), torch.no_grad():
        return rearrange(sincos(frames, dim), "t d -> t 1 1 d").to(device)


@keep_tables(2)
def _turned_frames(count: int, head_dim: int, device: torch.device) -> RotaryTable:
    frames = torch.arange(count, dtype=torch.float64, device="cpu")
    with torch.inference_mode(False), torch.no_grad():
        return rotary_table([frames], [head_dim], device=device).rearrange("t p -> t 1 1 p")


@keep_tables(8)
def _rotary(rule: Rotary, grid: Axes, head_dim: int, device: torch.device) -> RotaryTable:
    with torch.inference_mode(False), torch.no_grad():
        axes = rule.axes_dims(head_dim)
        return rotary_table(rule.coordinates(grid), axes, rule.theta, rule.pairing, device)
