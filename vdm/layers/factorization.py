"""Which tokens of a video attend together: all of them, those of a frame, or those of a place.

Every class takes tokens ``b t h w d`` and an attention, folds the axes that do not take part into
the batch, and unfolds them again; callers never see folded tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from vdm.layers.attention import Attention, KVCache
from vdm.layers.attention_backends import Mask, attend
from vdm.layers.masks import visible
from vdm.layers.positions import RelativeBias, RotaryTable

VideoTokens = Float[Tensor, "b t h w d"]


class Factorization(ABC):
    """The rule by which tokens attend together."""

    is_causal: bool = False
    """Whether no frame sees a later one, so that a clip can be made piece by piece."""

    window: int | None = None
    """A token sees frames less than this far away, both ways without causality; None is all."""

    blind_axis: int = 0
    """An axis of tokens ``b t h w d`` along which none sees another."""

    @abstractmethod
    def fold(self, tokens: VideoTokens) -> Float[Tensor, "n_batch n d"]:
        """Move the axes that do not attend into the batch."""

    @abstractmethod
    def unfold(self, flat: Float[Tensor, "n_batch n d"], like: VideoTokens) -> VideoTokens:
        """The inverse of :meth:`fold`."""

    @abstractmethod
    def rope(self, table: RotaryTable) -> RotaryTable:
        """The positions of folded tokens, out of a table ``(t, h, w, pairs)``."""

    @abstractmethod
    def tokens_per_frame(self, tokens: VideoTokens) -> int:
        """How many tokens of a frame attend together."""

    def mask(self, num_query: int, num_key: int, tokens: VideoTokens) -> Bool[Tensor, "n m"] | None:
        """Who sees whom, the last query being in the last key's frame; None if all see all.

        Args:
            num_query: Frames that ask.
            num_key: Frames that are asked.
            tokens: Tells the tokens per frame and the device.
        """
        hides_late = self.is_causal and num_query > 1
        hides_old = self.window is not None and self.window < num_key
        if not (hides_late or hides_old):
            return None
        queries, keys = self._frames(num_query, num_key, tokens)
        return visible(queries, keys, self.is_causal, self.window)

    def _frames(self, num_query: int, num_key: int, tokens: VideoTokens) -> tuple[Tensor, Tensor]:
        """The frame of every query, and that of every key."""
        frames = torch.arange(num_key, device=tokens.device)
        frames = frames.repeat_interleave(self.tokens_per_frame(tokens))
        return frames[len(frames) - num_query * self.tokens_per_frame(tokens) :], frames

    def _scores(
        self, num_query: int, num_key: int, tokens: VideoTokens, bias: RelativeBias | None
    ) -> Mask | None:
        """The mask, and what is added to scores where something is."""
        mask = self.mask(num_query, num_key, tokens)
        if bias is None:
            return mask
        added = bias(*self._frames(num_query, num_key, tokens))
        return added if mask is None else added.masked_fill(~mask, -torch.inf)

    def __call__(
        self,
        tokens: VideoTokens,
        attention: Attention,
        table: RotaryTable | None = None,
        bias: RelativeBias | None = None,
    ) -> VideoTokens:
        """Let the tokens of a whole clip attend.

        Args:
            tokens: Tokens of the clip.
            attention: Self-attention.
            table: Rotary positions ``(t, h, w, pairs)``.
            bias: What is added to scores for the distance of two frames.
        """
        num_frames = tokens.shape[1]
        mask = self._scores(num_frames, num_frames, tokens, bias)
        rope = None if table is None else self.rope(table)
        flat = self.fold(tokens).contiguous()  # products of what is not are slow
        return self.unfold(attention(flat, mask=mask, rope=rope), tokens)

    def step(
        self,
        tokens: VideoTokens,
        attention: Attention,
        table: RotaryTable | None = None,
        cache: KVCache | None = None,
        bias: RelativeBias | None = None,
    ) -> tuple[VideoTokens, KVCache | None]:
        """Let the tokens of the next frames attend to the cached ones and to themselves.

        Chunk by chunk this equals :meth:`__call__` on the whole clip. With a window, frames that
        nobody will see again are dropped, so the cache stops growing.

        Args:
            tokens: Tokens of the next frames.
            attention: Self-attention.
            table: Rotary positions of those frames.
            cache: What was returned for the frames before; None at the start of a clip.
            bias: What is added to scores for the distance of two frames.

        Returns:
            The tokens, and the cache for the next call; None if there is nothing to remember.

        Raises:
            ValueError: If frames see later ones.
        """
        if not self.is_causal:
            raise ValueError(f"got {self}, expected a factorization with is_causal=True")
        num_query, per_frame = tokens.shape[1], self.tokens_per_frame(tokens)
        num_key = num_query + (0 if cache is None else cache.keys.shape[2] // per_frame)
        mask = self._scores(num_query, num_key, tokens, bias)
        rope = None if table is None else self.rope(table)
        flat, kv = attention.step(self.fold(tokens), cache, mask=mask, rope=rope)
        if self.window is not None and num_key >= self.window:
            drop = (num_key - self.window + 1) * per_frame
            # The kept part is copied: a view would hold the dropped frames in memory.
            kv = KVCache(kv.keys[:, :, drop:].clone(), kv.values[:, :, drop:].clone())
        return self.unfold(flat, tokens), kv


def _check_window(window: int | None) -> None:
    if window is not None and window < 1:
        raise ValueError(f"got window={window}, expected at least 1")


@dataclass(frozen=True)
class Joint(Factorization):
    """All tokens of a clip attend together; causally, each to its whole frame and earlier ones.

    Args:
        is_causal: Hide later frames.
        window: See only frames less than ``window`` away.
    """

    is_causal: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        """Check the window."""
        _check_window(self.window)

    def fold(self, tokens: VideoTokens) -> Float[Tensor, "n_batch n d"]:
        """All tokens in one sequence, frame by frame."""
        return rearrange(tokens, "b t h w d -> b (t h w) d")

    def unfold(self, flat: Float[Tensor, "n_batch n d"], like: VideoTokens) -> VideoTokens:
        """The inverse of :meth:`fold`."""
        _, t, h, w, _ = like.shape
        return rearrange(flat, "b (t h w) d -> b t h w d", t=t, h=h, w=w)

    def rope(self, table: RotaryTable) -> RotaryTable:
        """All positions."""
        if table.cos.ndim > 4:  # of every sample and head
            return table.rearrange("b t h w heads p -> b (t h w) heads p")
        return table.rearrange("t h w p -> (t h w) p")

    def tokens_per_frame(self, tokens: VideoTokens) -> int:
        """All of them."""
        return tokens.shape[2] * tokens.shape[3]


@dataclass(frozen=True)
class Spatial(Factorization):
    """The tokens of a frame attend to each other."""

    is_causal = True  # no frame sees any other
    window = 1
    blind_axis = 1

    def fold(self, tokens: VideoTokens) -> Float[Tensor, "n_batch n d"]:
        """One sequence per frame."""
        return rearrange(tokens, "b t h w d -> (b t) (h w) d")

    def unfold(self, flat: Float[Tensor, "n_batch n d"], like: VideoTokens) -> VideoTokens:
        """The inverse of :meth:`fold`."""
        _, t, h, w, _ = like.shape
        return rearrange(flat, "(b t) (h w) d -> b t h w d", t=t, h=h, w=w)

    def rope(self, table: RotaryTable) -> RotaryTable:
        """Positions in space: the frame turns queries and keys alike, which changes nothing."""
        return table.at(0).rearrange("h w p -> (h w) p")

    def tokens_per_frame(self, tokens: VideoTokens) -> int:
        """All of them."""
        return tokens.shape[2] * tokens.shape[3]

    def mask(self, num_query: int, num_key: int, tokens: VideoTokens) -> None:
        """No mask: other frames are in other sequences."""

    def step(
        self,
        tokens: VideoTokens,
        attention: Attention,
        table: RotaryTable | None = None,
        cache: KVCache | None = None,
        bias: RelativeBias | None = None,
    ) -> tuple[VideoTokens, KVCache | None]:
        """Frames do not see each other, so there is nothing to remember."""
        return self(tokens, attention, table, bias), None


@dataclass(frozen=True)
class SpatialThenTemporal(Spatial):
    """The tokens of a frame attend to each other, then in the same block those at a place.

    As a rule by itself it is the first of the two; a block that is given it has an attention for
    each, see :class:`vdm.models.two_way_block.TwoWayBlock`.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, section 3, the released model of version
        1.0.
    """

    is_causal = False
    window = None  # type: ignore[assignment]
    blind_axis = 0


@dataclass(frozen=True)
class FirstAndPrevious(Spatial):
    """The tokens of a frame attend to those of the first frame and of the one before.

    The first frame has only itself, twice.

    Source:
        Wu et al. 2022, "Tune-A-Video", arXiv:2212.11565, eq. 4, "sparse-causal attention".
    """

    window = None  # type: ignore[assignment]
    blind_axis = 0

    def rope(self, table: RotaryTable) -> RotaryTable:
        """All positions: frames meet here."""
        return table.rearrange("t h w p -> (t h w) p")

    def __call__(
        self,
        tokens: VideoTokens,
        attention: Attention,
        table: RotaryTable | None = None,
        bias: RelativeBias | None = None,
    ) -> VideoTokens:
        """Let the tokens of a whole clip attend."""
        return self.step(tokens, attention, table, bias=bias)[0]

    def step(
        self,
        tokens: VideoTokens,
        attention: Attention,
        table: RotaryTable | None = None,
        cache: KVCache | None = None,
        bias: RelativeBias | None = None,
    ) -> tuple[VideoTokens, KVCache]:
        """Let the tokens of the next frames attend; the cache holds the first and the last frame.

        Raises:
            ValueError: If distances of frames are to count, of which there are always two.
        """
        if bias is not None:
            raise ValueError(f"got a bias for distances between frames, {self} knows none")
        num_frames, per_frame = tokens.shape[1], self.tokens_per_frame(tokens)
        rope = None if table is None else self.rope(table)
        flat = rearrange(tokens, "b t h w d -> b (t h w) d")
        q, kv = attention.queries(flat, rope), attention.keys_values(flat, rope)
        kept = (None, None) if cache is None else (cache.keys, cache.values)
        seen, last = [], []
        for now, ends in zip((kv.keys, kv.values), kept, strict=True):
            frames = now.split(per_frame, dim=2)
            first, before = (frames[0],) * 2 if ends is None else ends.split(per_frame, dim=2)
            pairs = [torch.cat((first, v), dim=2) for v in (before, *frames[:-1])]
            seen.append(torch.stack(pairs, dim=1).flatten(0, 1))
            last.append(torch.cat((first, frames[-1]), dim=2))
        q = rearrange(q, "b heads (t n) d -> (b t) heads n d", t=num_frames)
        mixed = attend(q, seen[0], seen[1], backend=attention.backend)
        return self.unfold(attention.output(mixed), tokens), KVCache(*last)


@dataclass(frozen=True)
class Temporal(Factorization):
    """The tokens at one place attend to each other over time.

    Args:
        is_causal: Hide later frames.
        window: See only frames less than ``window`` away.
    """

    blind_axis = 2

    is_causal: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        """Check the window."""
        _check_window(self.window)

    def fold(self, tokens: VideoTokens) -> Float[Tensor, "n_batch n d"]:
        """One sequence per place."""
        return rearrange(tokens, "b t h w d -> (b h w) t d")

    def unfold(self, flat: Float[Tensor, "n_batch n d"], like: VideoTokens) -> VideoTokens:
        """The inverse of :meth:`fold`."""
        _, _, h, w, _ = like.shape
        return rearrange(flat, "(b h w) t d -> b t h w d", h=h, w=w)

    def rope(self, table: RotaryTable) -> RotaryTable:
        """Positions in time: the place turns queries and keys alike, which changes nothing."""
        return table.at(slice(None), 0, 0)

    def tokens_per_frame(self, tokens: VideoTokens) -> int:
        """One."""
        return 1
