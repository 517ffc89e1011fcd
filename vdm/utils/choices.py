"""Choosing one of several rules, or a number of frames, by uniform numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Bool, Float
from torch import Tensor

LARGEST = 1 - 2.0**-24
"""The largest number below 1 in float32."""


def check_weights(num_rules: int, weights: Sequence[float]) -> None:
    """Refuse weights that are no distribution over rules.

    Raises:
        ValueError: If there is not one non-negative weight per rule, or all are zero.
    """
    if len(weights) != num_rules or not num_rules:
        raise ValueError(f"got {len(weights)} weights, expected {num_rules or 1}")
    if min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"got weights {list(weights)}, expected positive ones")


def split_choice(
    u: Float[Tensor, "b 1"], weights: Sequence[float]
) -> Iterator[tuple[int, Bool[Tensor, "b 1"], Float[Tensor, "b 1"]]]:
    """For every rule that can be chosen: its number, by which samples, and what is left of ``u``.

    Args:
        u: Uniform numbers in [0, 1). Within a rule's samples what is left is uniform again.
        weights: How likely each rule is, up to a common factor.
    """
    start, chosen = 0.0, [index for index, weight in enumerate(weights) if weight > 0]
    for index in chosen:
        share = weights[index] / sum(weights)
        mine = u >= start
        if index != chosen[-1]:  # rounding leaves nobody without a rule
            mine = mine & (u < start + share)
        yield index, mine, ((u - start) / share).clamp(0, LARGEST)
        start += share


def random_count(
    u: Float[Tensor, "b 1"], least: int, most: int | None, num_frames: int
) -> Float[Tensor, "b 1"]:
    """A whole number between limits, each as likely; at least one frame of the clip stays out."""
    most = num_frames - 1 if most is None else min(most, num_frames - 1)
    least = min(least, most)
    return least + (u * (most - least + 1)).floor()  # floor first: 2 + 0.99999994 rounds to 3
