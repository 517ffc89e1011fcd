"""CLIP's text transformer, as transformers builds it, with the tokenizer that belongs to it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.conditioning.text import TextStates
from vdm.utils.config import configurable

TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


@configurable
class ClipTextEncoder(nn.Module):
    """A published text encoder. Its states are those of the last layer, after the last norm.

    All tokens are read, those behind the end of the text too, as in the models that use it.

    Args:
        config: Settings of ``transformers.CLIPTextConfig``.
        tokenizer: The tokenizer's files: what is in them, by name.

    Raises:
        ValueError: If the tokenizer's files are not enough for one.

    Source:
        Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
        Supervision", arXiv:2103.00020, sec. 2.4.
    """

    def __init__(self, config: Mapping[str, Any], tokenizer: Mapping[str, str]) -> None:
        super().__init__()
        try:
            from transformers import CLIPTextConfig, CLIPTextModel
        except ModuleNotFoundError as error:
            raise ValueError(
                "CLIP's encoders need transformers: pip install 'vdm[transformers]'"
            ) from error

        self.model = CLIPTextModel(CLIPTextConfig(**config))
        # A table of 0, 1, 2, ..., which is in no file and empty where a module is built so.
        count = self.model.config.max_position_embeddings
        places = torch.arange(count, device="cpu")[None]
        self.model.embeddings.register_buffer("position_ids", places, persistent=False)
        self.max_length = count
        self._tokenize = _tokenizer(tokenizer)

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode texts; ``""`` is the text that says nothing.

        Args:
            prompts: Texts; of one that is too long the end is not read, with a warning.

        Returns:
            States of the tokens, and that of the end of the text.
        """
        found = self._tokenize(
            list(prompts),
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            return_tensors="pt",
        )
        self._warn_of_cuts(prompts)
        numbers = found.input_ids.to(self.model.embeddings.token_embedding.weight.device)
        states = self.model(numbers)
        return TextStates(states.last_hidden_state, None, states.pooler_output)

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The same."""
        return self(prompts)

    def _warn_of_cuts(self, prompts: Sequence[str]) -> None:
        lengths = [len(ids) for ids in self._tokenize(list(prompts), truncation=False).input_ids]
        for prompt, length in zip(prompts, lengths, strict=True):
            if length > self.max_length:
                warnings.warn(
                    f"got a prompt of {length} tokens, of which {self.max_length} are read: "
                    f"{prompt[:40]!r}...",
                    stacklevel=3,
                )


def _tokenizer(files: Mapping[str, str]) -> Any:
    """The tokenizer that some files make, without a trace of where they lie."""
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        try:
            return CLIPTokenizer.from_pretrained(folder)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"got tokenizer files {sorted(files)}, which make none") from error


def read_tokenizer(folder: Path) -> dict[str, str]:
    """What is in a tokenizer's files.

    Raises:
        FileNotFoundError: If there are none.
    """
    found = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in TOKENIZER_FILES
        if (folder / name).is_file()
    }
    if not found:
        raise FileNotFoundError(f"no tokenizer in {folder}, expected e.g. {TOKENIZER_FILES[0]}")
    return found
