"""CLIP's text transformer, as transformers builds it, with the tokenizer that belongs to it."""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from vdm.conditioning.clip import build_clip
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
        pad_id: Number of the token that short texts are filled with; the tokenizer's own if None.

    Raises:
        ValueError: If the tokenizer's files make none, or the settings no encoder.

    Source:
        Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
        Supervision", arXiv:2103.00020, sec. 2.4.
    """

    kind = "CLIPTextModel"
    """Class of transformers."""

    def __init__(
        self, config: Mapping[str, Any], tokenizer: Mapping[str, str], pad_id: int | None = None
    ) -> None:
        super().__init__()
        self.model = build_clip(self.kind, config)
        self.max_length: int = self.model.config.max_position_embeddings
        self._tokenize = _tokenizer(tuple(tokenizer.items()))
        self.pad_id: int = self._tokenize.pad_token_id if pad_id is None else pad_id
        count = self.model.config.vocab_size
        if self.pad_id is None or len(self._tokenize) > count or not 0 <= self.pad_id < count:
            raise ValueError(
                f"got a tokenizer of {len(self._tokenize)} tokens that fills with {self.pad_id}, "
                f"expected at most the {count} of vocab_size"
            )

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode texts; ``""`` is the text that says nothing.

        Args:
            prompts: Texts; of one that is too long the end is not read, with a warning.

        Returns:
            States of the tokens, and that of the end of the text.
        """
        states = self.model(self.numbers(prompts))
        return TextStates(states.last_hidden_state, None, states.pooler_output)

    def numbers(self, prompts: Sequence[str]) -> Int[Tensor, "b n"]:
        """The tokens of texts, where the model is."""
        rows = torch.tensor([self._numbers(prompt) for prompt in prompts])
        return rows.to(next(self.parameters()).device)

    def _numbers(self, prompt: str) -> list[int]:
        """As many tokens as the model reads."""
        numbers = self._tokenize(prompt).input_ids
        if len(numbers) > self.max_length:
            warnings.warn(
                f"got a prompt of {len(numbers)} tokens, of which {self.max_length} are read: "
                f"{prompt[:40]!r}...",
                stacklevel=5,
            )
            numbers = [*numbers[: self.max_length - 1], numbers[-1]]
        return numbers + [self.pad_id] * (self.max_length - len(numbers))

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The same."""
        return self(prompts)


@functools.lru_cache(maxsize=2)
def _tokenizer(files: tuple[tuple[str, str], ...]) -> Any:
    """The tokenizer that some files make, without a trace of where they lie.

    It is slow to make, and models share it: the stages of a cascade, and most that are published.
    """
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files:
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        try:
            return CLIPTokenizer.from_pretrained(folder)
        except Exception as error:  # each file of others goes wrong in its own way
            names = sorted(dict(files))
            raise ValueError(f"got tokenizer files {names}, which make none") from error


def read_tokenizer(folder: Path) -> dict[str, str]:
    """What is in a tokenizer's files.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If one is no text.
    """
    found = {}
    for path in (folder / name for name in TOKENIZER_FILES):
        if path.is_file():
            try:
                found[path.name] = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: not text: {error}") from error
    if not found:
        raise FileNotFoundError(f"no tokenizer in {folder}, expected e.g. {TOKENIZER_FILES[0]}")
    return found
