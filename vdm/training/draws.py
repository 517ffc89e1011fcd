"""What a training sample draws: noise and uniform numbers that depend on its position alone.

A position counts samples from the start of a run over all ranks. What a sample draws does not
depend on who else is in its batch, on the number of ranks, or on interruptions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.utils.rng import SampleNoise, derive_seed, generator

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd


def noise_like(
    x: Float[Tensor, "b ..."], seed: int, *path: int | str, keys: Sequence[int]
) -> Tensor:
    """Standard normal noise shaped like ``x``, one stream per sample.

    Args:
        x: Decides shape, type and device.
        seed: Of the run.
        path: What the noise is for.
        keys: One per sample.
    """
    return SampleNoise([derive_seed(seed, *path, key) for key in keys])(x)


def uniforms(
    num: int, seed: int, *path: int | str, keys: Sequence[int]
) -> Float[Tensor, "b draws"]:
    """Independent uniform numbers in [0, 1), ``num`` per sample, from the sample's own stream."""
    generators = [generator(seed, *path, key) for key in keys]
    return torch.stack([torch.rand(num, generator=g, device="cpu") for g in generators])


def spread_uniforms(seed: int, *path: int | str, keys: Sequence[int]) -> Float[Tensor, " b"]:
    """Uniform numbers in [0, 1), one per sample, that any run of keys spreads evenly.

    A batch then covers all noise levels about equally, whatever its size, and the loss varies less.

    Source:
        Steps of the golden ratio modulo 1: Knuth 1998, "The Art of Computer Programming", volume 3,
        section 6.4, theorem S; even noise levels in a batch: Kingma et al. 2021, arXiv:2107.00630,
        appendix I.1.
    """
    start = derive_seed(seed, *path)
    steps = [((start + key * _GOLDEN) % 2**64) >> 40 for key in keys]  # 24 bits: exact in float32
    return torch.tensor(steps, dtype=torch.float64, device="cpu").mul(2.0**-24).float()
