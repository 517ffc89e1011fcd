"""A language model and CLIP together: states of what is asked of it, and one vector."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.conditioning.text import TextStates
from vdm.layers.masks import causal
from vdm.utils.config import configurable

QUESTION = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Describe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
    "objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
"""What HunyuanVideo asks; the prompt stands in the place of the braces. With other words the
network would be told other states."""
NUM_QUESTION = 95
"""Tokens of it before the prompt, by the published tokenizer."""


@configurable
class LlamaClipEncoder(nn.Module):
    """The states of a language model that is asked to describe a clip, beside CLIP's vector.

    The states are those of the third layer from the end, without the tokens of the question, and
    without those that only fill up the longest text.

    Args:
        config: Settings of ``transformers.LlamaConfig``.
        tokenizer: The tokenizer's files: what is in them, by name.
        clip_config: Settings of ``transformers.CLIPTextConfig``.
        clip_tokenizer: Files of CLIP's tokenizer.
        max_length: Tokens of a prompt that are read.
        question: What is asked, with braces for the prompt.
        num_question: Tokens before the prompt.

    Raises:
        ValueError: If the tokenizers' files make none, or the settings no model.

    Source:
        Kong et al. 2024, "HunyuanVideo", arXiv:2412.03603, section 4.3.
    """

    NUM_SKIPPED = 2
    """Layers at the end that are not read."""

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Mapping[str, str],
        clip_config: Mapping[str, Any],
        clip_tokenizer: Mapping[str, str],
        max_length: int = 256,
        question: str = QUESTION,
        num_question: int = NUM_QUESTION,
    ) -> None:
        super().__init__()
        self.llama = _llama(config)
        if len(self.llama.layers) < self.NUM_SKIPPED:
            raise ValueError(
                f"got {len(self.llama.layers)} layers, expected at least {self.NUM_SKIPPED}"
            )
        self._place_angles(torch.device("cpu"))
        self.clip = ClipTextEncoder(clip_config, clip_tokenizer)
        self.max_length, self.question, self.num_question = max_length, question, num_question
        self._tokenize = _tokenizer(tokenizer)

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode texts; ``""`` is the text that says nothing.

        Args:
            prompts: Texts; of one that is too long the end is not read, with a warning.

        Returns:
            States of the tokens, which of them are of the text where some are not, and a vector.
        """
        numbers, valid = self._read(prompts)
        states = self._states(self._embed(numbers))[:, self.num_question :]
        valid = valid[:, self.num_question :]
        mask = None if valid.all() else valid.to(states)
        return TextStates(states, mask, self.clip(prompts).pooled_text)

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The same."""
        return self(prompts)

    def _read(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """Tokens of what is asked, and 1 where they are of it; shorter texts are filled up."""
        length = self.num_question + self.max_length
        told = self._tokenize(
            [self.question.replace("{}", prompt) for prompt in prompts],
            padding="longest",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        self._warn_of_ends(prompts, length)
        return told.input_ids, told.attention_mask

    def _embed(self, numbers: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """What the model calls tokens."""
        table = self.llama.embed_tokens
        return table(numbers.to(table.weight.device))

    def _states(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """What the third layer from the end makes of tokens."""
        # Tokens that fill up stand behind all others, which do not see them.
        seen = rearrange(causal(tokens.shape[1], tokens.device), "n m -> 1 1 n m")
        found = self.llama(
            inputs_embeds=tokens, attention_mask=seen, output_hidden_states=True, use_cache=False
        )
        return found.hidden_states[-1 - self.NUM_SKIPPED]

    def _warn_of_ends(self, prompts: Sequence[str], length: int) -> None:
        """Say whose end is not read."""
        for prompt in prompts:
            count = len(self._tokenize(self.question.replace("{}", prompt)).input_ids)
            if count > length:
                warnings.warn(
                    f"got a prompt of {count - self.num_question} tokens, of which "
                    f"{self.max_length} are read: {prompt[:40]!r}...",
                    stacklevel=5,
                )

    def _place_angles(self, device: torch.device) -> None:
        """Make the table of rotations, which is in no file and stays in float32."""
        with device:
            self.llama.rotary_emb = type(self.llama.rotary_emb)(self.llama.config)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move or convert everything but the table, which is made again."""
        super()._apply(fn, recurse)
        device = self.llama.embed_tokens.weight.device
        self._place_angles(torch.device("cpu") if device.type == "meta" else device)
        return self


def _llama(config: Mapping[str, Any]) -> Any:
    try:
        from transformers import LlamaConfig, LlamaModel
    except ModuleNotFoundError as error:
        raise ValueError("LLaMA needs transformers: pip install 'vdm[transformers]'") from error

    try:
        return LlamaModel(LlamaConfig(**config))
    except Exception as error:  # settings of others, of which each goes wrong in its own way
        said = " ".join(str(error).split())
        raise ValueError(f"got settings of which there is no LlamaModel: {said}") from error


def _tokenizer(files: Mapping[str, str]) -> Any:
    """The tokenizer that some files make, without a trace of where they lie."""
    from transformers import PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        try:
            made = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="right")
        except Exception as error:  # files of others, of which each goes wrong in its own way
            raise ValueError(f"got tokenizer files {sorted(files)}, which make none") from error
    if made.pad_token is None:
        raise ValueError("got a tokenizer without pad_token, expected one to fill texts up with")
    return made
