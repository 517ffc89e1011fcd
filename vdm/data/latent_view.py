"""Which part of a clip's latents is trained on: keyframes, or all with a poorer copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vdm.data.clip_cache import Clip, ClipSource, describe_source
from vdm.utils.video_io import from_uint8, to_uint8


@dataclass(frozen=True)
class LatentView:
    """What batches hold of every clip.

    Args:
        stride: Only every so manyeth latent frame, the first one included: keyframes. The rate of
            the clip falls by as much.
        low_size: Batches also hold ``hint``: latents of the clip brought down to this height and
            width and back up again.

    Raises:
        ValueError: If one is not positive.
    """

    stride: int = 1
    low_size: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("stride", "low_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"got {name}={value}, expected at least 1")


class Smaller:
    """Clips of another source that have lost detail: brought to a smaller size and back.

    Args:
        source: The clips.
        size: Height and width that they are brought to.
    """

    def __init__(self, source: ClipSource, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source)

    def describe(self) -> Mapping[str, Any]:
        """Everything the clips depend on."""
        return {"smaller": self.size, "of": describe_source(self.source)}

    def clip(self, index: int) -> tuple[Clip, str]:
        """Clip number ``index`` without its details, and its caption."""
        frames, caption = self.source.clip(index)
        video = from_uint8(torch.from_numpy(np.array(frames)))[None]
        small = resize_video(video, self.size, self.size)
        return to_uint8(resize_video(small, *video.shape[3:]))[0].numpy(), caption


def resize_video(
    video: Float[Tensor, "b c t _ _"], height: int, width: int
) -> Float[Tensor, "b c t {height} {width}"]:
    """Frames of another size: bilinear, and averaged where they shrink."""
    b = len(video)
    frames = video.transpose(1, 2).flatten(0, 1)
    resized = F.interpolate(
        frames, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return resized.unflatten(0, (b, -1)).transpose(1, 2)
