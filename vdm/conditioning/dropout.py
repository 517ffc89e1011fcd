"""How conditioning is left out in training, so that the network can be guided later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ConditionDropout:
    """Replaces conditioning by its null value, sample by sample.

    Args:
        probability: How likely a sample loses its conditioning.

    Raises:
        ValueError: If the probability is not in [0, 1].

    Source:
        Ho & Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, algorithm 1.
    """

    probability: float = 0.1

    def __post_init__(self) -> None:
        """Check the probability."""
        if not 0 <= self.probability <= 1:
            raise ValueError(f"got probability={self.probability}, expected a number in [0, 1]")

    def prompts(self, prompts: Sequence[str], u: Float[Tensor, " b"]) -> list[str]:
        """Captions, some replaced by ``""``.

        Args:
            prompts: One caption per sample.
            u: Uniform numbers in [0, 1), one per sample.

        Raises:
            ValueError: If there is not one number per sample.
        """
        if len(prompts) != len(u):
            raise ValueError(f"got {len(u)} uniform numbers, expected {len(prompts)}")
        dropped = (u < self.probability).tolist()
        return ["" if drop else text for text, drop in zip(prompts, dropped, strict=True)]

    def labels(
        self, labels: Int[Tensor, " b"], u: Float[Tensor, " b"], null: int
    ) -> Int[Tensor, " b"]:
        """Labels, some replaced by the one that says nothing.

        Args:
            labels: One label per sample.
            u: Uniform numbers in [0, 1), one per sample.
            null: The label that says nothing.
        """
        return torch.where(u < self.probability, labels.new_tensor(null), labels)
