"""A transformer for frames of any size: patches that latents do not fill are filled up."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from vdm.models.dit import VideoDiT
from vdm.types import Conditioning, Latents
from vdm.utils.config import configurable


@configurable
class FilledVideoDiT(VideoDiT):
    """A :class:`VideoDiT` that puts zeros behind the last latents, and cuts its prediction to size.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404, the released model of version 1.2.
    """

    @property
    def multiples(self) -> tuple[int, int, int]:
        """Any number of latents."""
        return (1, 1, 1)

    def with_variance(
        self, x: Latents, c_noise: Float[Tensor, " b *frames"], cond: Conditioning
    ) -> Float[Tensor, "b c_out t h w"]:
        """As :meth:`VideoDiT.with_variance`, of clips of any size."""
        t, h, w = x.shape[2:]
        behind: list[int] = []
        for size, patch in zip((w, h, t), reversed(self.patch_size), strict=True):
            behind += [0, -size % patch]
        return super().with_variance(F.pad(x, behind), c_noise, cond)[:, :, :t, :h, :w]
