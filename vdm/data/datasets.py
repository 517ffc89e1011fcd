"""How a source of clips becomes samples: floats in [-1, 1], a caption, the number of the clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from vdm.data.clip_cache import ClipSource
from vdm.utils.video_io import from_uint8

VaryCaption = Callable[[str, int, int], str]
"""``vary(caption, index, epoch)``: the words for a clip in one pass over the data."""


class ClipSample(TypedDict):
    """One clip. Batches hold a list of captions and stacked tensors for the rest."""

    video: Float[Tensor, "3 t h w"]
    caption: str
    index: int


class ClipDataset(Dataset[ClipSample]):
    """Clips as floats in [-1, 1].

    A key beyond the length is the same clip in a later pass: ``key = epoch * len(self) + index``.

    Args:
        source: The clips: drawn or decoded on the fly, or a cache.
        vary: Rewords the caption for each pass; none keeps it.
    """

    def __init__(self, source: ClipSource, vary: VaryCaption | None = None) -> None:
        self.source = source
        self.vary = vary

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int) -> ClipSample:
        epoch, index = divmod(key, len(self.source))
        frames, caption = self.source.clip(index)
        if self.vary is not None:
            caption = self.vary(caption, index, epoch)
        video = from_uint8(
            torch.from_numpy(np.array(frames))
        )  # a copy: torch wants writable memory
        return {"video": video, "caption": caption, "index": index}
