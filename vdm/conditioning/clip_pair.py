"""Two of CLIP's text transformers that read the same text, as Stable Diffusion XL has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.conditioning.text import TextStates
from vdm.utils.config import configurable


@configurable
class ProjectedClipText(ClipTextEncoder):
    """A text transformer with the map into the space that texts and pictures share."""

    kind = "CLIPTextModelWithProjection"


@configurable
class ClipPairEncoder(nn.Module):
    """The states before the last layers of two transformers, side by side.

    Args:
        first: Settings of the first one.
        first_tokenizer: Its tokenizer's files: what is in them, by name.
        second: Settings of the second one, which has a projection.
        second_tokenizer: Likewise.
        is_silent: Whether zeros stand for what guidance leads away from, where nothing is said.

    Source:
        Podell et al. 2023, "SDXL", arXiv:2307.01952, sec. 2.1.
    """

    def __init__(
        self,
        first: Mapping[str, Any],
        first_tokenizer: Mapping[str, str],
        second: Mapping[str, Any],
        second_tokenizer: Mapping[str, str],
        is_silent: bool = True,
    ) -> None:
        super().__init__()
        self.first = ClipTextEncoder(first, first_tokenizer)
        self.second = ProjectedClipText(second, second_tokenizer)
        self.is_silent = is_silent

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode texts; ``""`` is the text that says nothing.

        Returns:
            States of the tokens, and the projected state of the end of the text.
        """
        one, two = (
            encoder.model(encoder.numbers(prompts), output_hidden_states=True)
            for encoder in (self.first, self.second)
        )
        states = torch.cat((one.hidden_states[-2], two.hidden_states[-2]), dim=-1)
        return TextStates(states, None, two.text_embeds)

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The same."""
        return self(prompts)
