"""How tokens know where they are: rotary and sin-cos positions, and distances between frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeVar, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

F = TypeVar("F", bound=Callable[..., Any])
Pairing = Literal["interleaved", "half"]
Axes = tuple[int, int, int]
"""A number for each of (t, h, w)."""


@dataclass(frozen=True)
class RotaryTable:
    """The rotations of a set of positions.

    Args:
        cos: Cosine of every angle, ``(..., pairs)``: positions first, then pairs of channels.
        sin: Likewise the sine.
        pairing: Which channels are rotated together: neighbours (2i, 2i + 1), or i with the one
            half a head further on.
    """

    cos: Float[Tensor, "... pairs"]
    sin: Float[Tensor, "... pairs"]
    pairing: Pairing = "interleaved"

    @cached_property
    def turns(self) -> Complex[Tensor, "... pairs"]:
        """Cosine and sine as one complex number, made once for all that are turned by it."""
        return torch.complex(self.cos, self.sin)

    def rearrange(self, pattern: str) -> RotaryTable:
        """A table with its axes of positions rearranged."""
        return RotaryTable(rearrange(self.cos, pattern), rearrange(self.sin, pattern), self.pairing)

    def at(self, *index: int | slice) -> RotaryTable:
        """The table of some of the positions."""
        return RotaryTable(self.cos[index], self.sin[index], self.pairing)


def axial_angles(
    coordinates: Sequence[Float[Tensor, " _"]], axes_dims: Sequence[int], theta: float
) -> Float[Tensor, "*grid pairs"]:
    """Rotation angles on a grid, each axis turning channels of its own.

    Args:
        coordinates: Positions along each axis, whole or fractional.
        axes_dims: Even number of channels for each axis.
        theta: Ratio of the longest to the shortest wavelength.

    Raises:
        ValueError: If an axis has an odd number of channels, or there is not one count per axis.

    Source:
        Su et al. 2021, "RoFormer", arXiv:2104.09864, eq. 15, applied to each axis separately.
    """
    if len(coordinates) != len(axes_dims):
        raise ValueError(f"got {len(axes_dims)} axes_dims, expected {len(coordinates)}")
    if odd := [dim for dim in axes_dims if dim % 2]:
        raise ValueError(f"got axes_dims {tuple(axes_dims)}, expected even numbers, not {odd[0]}")
    grid = [len(values) for values in coordinates]
    parts = []
    for axis, (values, dim) in enumerate(zip(coordinates, axes_dims, strict=True)):
        exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=values.device) / max(dim, 1)
        angles = torch.outer(values.double(), theta**-exponents)
        shape = [1] * len(grid) + [dim // 2]
        shape[axis] = grid[axis]
        parts.append(angles.reshape(shape).expand(*grid, -1))
    return torch.cat(parts, dim=-1)


def default_axes_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels per (t, h, w): thirds of the head, rounded down to even, time taking the rest.

    Raises:
        ValueError: If the head is too small or odd.
    """
    if head_dim % 2 or head_dim < 6:
        raise ValueError(f"got head_dim={head_dim}, expected an even number of at least 6")
    space = head_dim // 6 * 2
    return head_dim - 2 * space, space, space


def _coordinates(grid: Axes, frame_offset: int) -> list[Tensor]:
    # On the CPU, wherever the table goes: not every device has float64.
    starts = (frame_offset, 0, 0)
    return [
        torch.arange(start, start + size, dtype=torch.float64, device="cpu")
        for start, size in zip(starts, grid, strict=True)
    ]


def rotary_table(
    coordinates: Sequence[Float[Tensor, " _"]],
    axes_dims: Sequence[int],
    theta: float = 10_000.0,
    pairing: Pairing = "interleaved",
    device: torch.device | str = "cpu",
) -> RotaryTable:
    """The rotations of a grid whose tokens stand anywhere along its axes.

    Args:
        coordinates: Positions along each axis, whole or fractional.
        axes_dims: Even number of channels for each axis.
        theta: Ratio of the longest to the shortest wavelength.
        pairing: Which channels are rotated together.
        device: Where the table is needed.
    """
    angles = axial_angles(coordinates, axes_dims, theta)
    return RotaryTable(angles.cos().float().to(device), angles.sin().float().to(device), pairing)


def _make_rope(
    grid: Axes, axes_dims: Axes, theta: float, frame_offset: int, device: torch.device
) -> RotaryTable:
    # A cached tensor made in inference mode could not be used in training later.
    with torch.inference_mode(False), torch.no_grad():
        return rotary_table(_coordinates(grid, frame_offset), axes_dims, theta, device=device)


def _make_sincos(
    grid: Axes, axes_dims: Axes, theta: float, frame_offset: int, device: torch.device
) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return sincos_grid(_coordinates(grid, frame_offset), axes_dims, theta).to(device)


_kept: list[Any] = []


def keep_tables(count: int) -> Callable[[F], F]:
    """Function decorator: keep the last tables made, until :func:`forget_tables`.

    Args:
        count: How many.
    """

    def decorate(make: F) -> F:
        cached = lru_cache(maxsize=count)(make)
        _kept.append(cached)
        return cast("F", cached)

    return decorate


_cached_rope = keep_tables(8)(_make_rope)
_cached_sincos = keep_tables(2)(_make_sincos)  # each as large as the tokens of a clip


def forget_tables() -> None:
    """Let go of the tables that are kept, so that the next call makes and holds its own."""
    for cached in _kept:
        cached.cache_clear()


def axial_rope(
    grid: Axes,
    axes_dims: Axes,
    theta: float = 10_000.0,
    frame_offset: int = 0,
    pairing: Pairing = "interleaved",
    device: torch.device | str = "cpu",
) -> RotaryTable:
    """The rotary table ``(t, h, w, pairs)`` of a grid of tokens; made once for each shape.

    Args:
        grid: Number of tokens along (t, h, w).
        axes_dims: Even number of channels for each axis.
        theta: Ratio of the longest to the shortest wavelength.
        frame_offset: Position of the first frame, where earlier ones are in a cache.
        pairing: Which channels are rotated together.
        device: Where the table is needed.
    """
    make = _make_rope if torch.compiler.is_compiling() else _cached_rope
    table = make(grid, axes_dims, theta, frame_offset, torch.device(device))
    return RotaryTable(table.cos, table.sin, pairing)


def apply_rope(
    x: Float[Tensor, "b n heads head_dim"], table: RotaryTable, start: int = 0
) -> Float[Tensor, "b n heads head_dim"]:
    """Rotate pairs of channels by the angles of their positions, in float32 at least.

    Args:
        x: Queries or keys.
        table: ``(n, pairs)``, ``(n, heads, pairs)`` where heads differ, or ``(b, n, heads, pairs)``
            where samples do, too. Channels beyond ``2 * pairs`` are left alone.
        start: First token that is rotated; the ones before it, and those after the table's last
            position, are left alone. Text tokens that share the sequence are passed by this way.

    Raises:
        ValueError: If the table does not fit.

    Source:
        Su et al. 2021, "RoFormer", arXiv:2104.09864, eq. 34.
    """
    count, rotated = table.cos.shape[0 if table.cos.ndim < 4 else 1], 2 * table.cos.shape[-1]
    stop = start + count
    if stop > x.shape[1] or rotated > x.shape[3]:
        raise ValueError(
            f"got a table for {count} tokens and {rotated} channels, "
            f"expected at most {x.shape[1] - start} and {x.shape[3]}"
        )
    if (stop - start, rotated) != (x.shape[1], x.shape[3]):
        middle = apply_rope(x[:, start:stop, :, :rotated], table)
        middle = torch.cat((middle, x[:, start:stop, :, rotated:]), dim=-1)
        return torch.cat((x[:, :start], middle, x[:, stop:]), dim=1)
    wide = x if x.dtype == torch.float64 else x.float()

    def for_heads(turns: Tensor) -> Tensor:
        return rearrange(turns, "n p -> n 1 p") if turns.ndim == 2 else turns

    cos, sin = for_heads(table.cos), for_heads(table.sin)
    if table.pairing == "half":
        a, b = wide.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
    pairs = rearrange(wide, "b n heads (p two) -> b n heads p two", two=2)
    if torch.compiler.is_compiling():
        a, b = pairs.unbind(-1)
        out = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # one complex product reads and writes once, where real ones copy strided halves
        turned = torch.view_as_complex(pairs.contiguous()) * for_heads(table.turns)
        out = torch.view_as_real(turned)
    return rearrange(out, "b n heads p two -> b n heads (p two)").to(x.dtype)


def sincos(
    coordinates: Float[Tensor, " n"], dim: int, theta: float = 10_000.0
) -> Float[Tensor, "n dim"]:
    """Sines, then cosines, of positions at geometrically spaced frequencies.

    Args:
        coordinates: Positions, whole or fractional.
        dim: Even number of channels.
        theta: Ratio of the longest to the shortest wavelength.

    Raises:
        ValueError: If ``dim`` is odd.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5; sines and cosines in halves, not
        alternating.
    """
    if dim % 2:
        raise ValueError(f"got dim={dim}, expected an even number, e.g. {dim + 1}")
    angles = axial_angles([coordinates], [dim], theta)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


def sincos_grid(
    coordinates: Sequence[Float[Tensor, " _"]], axes_dims: Sequence[int], theta: float = 10_000.0
) -> Float[Tensor, "*grid dim"]:
    """Sin-cos positions of a 1-, 2- or 3-D grid: each axis in channels of its own.

    Args:
        coordinates: Positions along each axis.
        axes_dims: Even number of channels for each axis.
        theta: Ratio of the longest to the shortest wavelength.
    """
    grid = [len(values) for values in coordinates]
    names = ["t", "h", "w"][-len(grid) :]
    sizes = dict(zip(names, grid, strict=True))
    parts = [
        repeat(sincos(values, dim, theta), f"{name} d -> {' '.join(names)} d", **sizes)
        for name, values, dim in zip(names, coordinates, axes_dims, strict=True)
    ]
    return torch.cat(parts, dim=-1)


def axial_sincos(
    grid: Axes,
    axes_dims: Axes,
    theta: float = 10_000.0,
    frame_offset: int = 0,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "t h w dim"]:
    """The sin-cos positions of a grid of tokens; made once for each shape.

    Args:
        grid: Number of tokens along (t, h, w).
        axes_dims: Even number of channels for each axis.
        theta: Ratio of the longest to the shortest wavelength.
        frame_offset: Position of the first frame, where earlier ones are in a cache.
        device: Where the table is needed.
    """
    make = _make_sincos if torch.compiler.is_compiling() else _cached_sincos
    return make(grid, axes_dims, theta, frame_offset, torch.device(device))


class RelativeBias(nn.Module):
    """A learned number per head for how far apart two frames are, to be added to scores.

    Earlier and later frames have half of the buckets each. Short distances have a bucket of their
    own, longer ones share buckets that widen with the logarithm.

    Args:
        num_heads: Attention heads.
        num_buckets: Kinds of distances.
        max_distance: Where the last bucket begins at the latest.

    Source:
        Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer", arXiv:1910.10683, sec. 2.1.
    """

    def __init__(self, num_heads: int, num_buckets: int = 32, max_distance: int = 32) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.embed = nn.Embedding(num_buckets, num_heads)

    def buckets(self, ages: Int[Tensor, "n m"]) -> Int[Tensor, "n m"]:
        """Which bucket a query finds a key in that is ``ages`` frames older."""
        half = self.num_buckets // 2
        exact = half // 2
        distance = ages.abs()
        share = (distance.clamp_min(1).float() / exact).log() / math.log(self.max_distance / exact)
        wide = (exact + (share * (half - exact)).long()).clamp_max(half - 1)
        return torch.where(distance < exact, distance, wide) + half * (ages < 0)

    def forward(
        self, query_frames: Int[Tensor, " n"], key_frames: Int[Tensor, " m"]
    ) -> Float[Tensor, "heads n m"]:
        """What is added to the scores of every head."""
        ages = query_frames[:, None] - key_frames[None, :]
        return rearrange(self.embed(self.buckets(ages)), "n m heads -> heads n m")
