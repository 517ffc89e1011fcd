"""T5 and CLIP side by side: states of a text, and one vector of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.conditioning.t5_text import T5TextEncoder
from vdm.conditioning.text import TextStates
from vdm.utils.config import configurable


@configurable
class T5ClipEncoder(nn.Module):
    """The states of T5, all of which are read, beside CLIP's vector.

    Args:
        t5: Settings of ``transformers.T5Config``.
        t5_tokenizer: Its tokenizer's files: what is in them, by name.
        clip: Settings of ``transformers.CLIPTextConfig``.
        clip_tokenizer: Likewise.
        max_length: Tokens of a text that T5 reads.

    Raises:
        ValueError: If the tokenizers' files make none, or the settings no model.

    Source:
        Black Forest Labs 2024, FLUX.1; Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642,
        section 3.2.
    """

    def __init__(
        self,
        t5: Mapping[str, Any],
        t5_tokenizer: Mapping[str, str],
        clip: Mapping[str, Any],
        clip_tokenizer: Mapping[str, str],
        max_length: int = 512,
    ) -> None:
        super().__init__()
        self.t5 = T5TextEncoder(t5, t5_tokenizer, max_length)
        self.clip = ClipTextEncoder(clip, clip_tokenizer)
        self.max_length = max_length

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode texts; ``""`` is the text that says nothing."""
        return self.t5(prompts)._replace(pooled_text=self.clip(prompts).pooled_text)

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The same."""
        return self(prompts)
