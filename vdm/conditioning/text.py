"""How a caption becomes tokens and vectors, with a small vocabulary and no download."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vdm.layers import masks
from vdm.layers.attention import Attention, QKNorm
from vdm.layers.feedforward import MLP
from vdm.layers.norms import LayerNorm
from vdm.utils.config import configurable
from vdm.world.captions import WORDS, parse_caption

SPECIAL = ("<pad>", "<cls>")
TOKEN = re.compile(r"[^\s,.]+|[,.]")


class TextStates(NamedTuple):
    """What a text encoder hands to a network: the fields of the same names of ``Conditioning``."""

    text: Float[Tensor, "b n d"]
    text_mask: Float[Tensor, "b n"] | None
    """None where all tokens are read."""
    pooled_text: Float[Tensor, "b d"] | None
    """None from an encoder that makes none."""


def read_by(network: nn.Module, states: Any) -> dict[str, Tensor]:
    """Of what an encoder gives, a named tuple of fields, those that a network reads."""
    found = {name: value for name, value in states._asdict().items() if value is not None}
    reads = getattr(network, "reads", set(found))
    return {name: value for name, value in found.items() if name in reads}


class WordTokenizer:
    """Splits captions into the words of a closed vocabulary.

    Case does not matter, a comma is a word, a final period may be left out. Every caption starts
    with the token ``<cls>``, so the empty one has a token too.

    Args:
        words: The vocabulary, in the order that the encoder's table has them.
        max_length: Most tokens in a caption, ``<cls>`` included.

    Raises:
        ValueError: If a word occurs twice.
    """

    def __init__(self, words: Sequence[str] = WORDS, max_length: int = 64) -> None:
        tokens = [*SPECIAL, *words]
        if len(set(tokens)) != len(tokens):
            twice = next(word for word in tokens if tokens.count(word) > 1)
            raise ValueError(f"got the word {twice!r} twice, expected distinct words")
        self.index = {token: number for number, token in enumerate(tokens)}
        self.max_length = max_length

    def __len__(self) -> int:
        """Number of tokens, the special ones included."""
        return len(self.index)

    def tokens(self, prompt: str) -> list[int]:
        """The tokens of one caption.

        Raises:
            ValueError: If a word is unknown or the caption is too long.
        """
        words = TOKEN.findall(prompt.strip().lower().removesuffix("."))
        numbers = [self.index["<cls>"]]
        for word in words:
            if word not in self.index or word in SPECIAL:
                known = [w for w in self.index if w not in SPECIAL]
                nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
                hint = f", did you mean {nearest[0]!r}?" if nearest else ""
                raise ValueError(f"unknown word {word!r} in the prompt {prompt!r}{hint}")
            numbers.append(self.index[word])
        if len(numbers) > self.max_length:
            raise ValueError(
                f"got a prompt of {len(words)} words, expected at most {self.max_length - 1}"
            )
        return numbers

    def __call__(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
        """The tokens of some captions, padded to the longest, and where they are valid."""
        rows = [self.tokens(prompt) for prompt in prompts]
        length = max(map(len, rows), default=1)
        padded = [row + [self.index["<pad>"]] * (length - len(row)) for row in rows]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        numbers = torch.tensor(padded, dtype=torch.long).reshape(len(rows), length)
        return numbers, torch.arange(length) < lengths[:, None]


class TextBlock(nn.Module):
    """Pre-norm self-attention and feed-forward over the tokens of a caption.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attention = Attention(dim, num_heads, qk_norm=QKNorm())
        self.norm2 = LayerNorm(dim)
        self.feedforward = MLP(dim, 4 * dim)
        # Branches start small, so that words are told apart from the first step on.
        nn.init.normal_(self.attention.to_out.weight, std=0.02)
        nn.init.normal_(self.feedforward.fc2.weight, std=0.02)

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b 1 1 n"]
    ) -> Float[Tensor, "b n d"]:
        """Every token sees all valid ones."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.feedforward(self.norm2(x))


@configurable
class WordTextEncoder(nn.Module):
    """A small transformer over words, trained together with the network that reads it.

    Args:
        dim: Width of the states.
        depth: Number of blocks.
        num_heads: Attention heads per block.
        max_length: Most tokens in a caption.
        words: The vocabulary.
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 2,
        num_heads: int = 3,
        max_length: int = 64,
        words: Sequence[str] = WORDS,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.speaks_of_world = set(words) == set(WORDS)
        self.tokenizer = WordTokenizer(words, max_length)
        self.token_embed = nn.Embedding(len(self.tokenizer), dim)
        self.position_embed = nn.Parameter(torch.empty(max_length, dim))
        self.blocks = nn.ModuleList(TextBlock(dim, num_heads) for _ in range(depth))
        self.norm = LayerNorm(dim)
        nn.init.normal_(self.token_embed.weight, std=0.5)
        nn.init.normal_(self.position_embed, std=0.5)

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode captions; ``""`` is the caption that says nothing.

        Args:
            prompts: Captions.

        Returns:
            States of the tokens (zero where padded), where they are valid, and the state of the
            first token, which stands for the whole caption.

        Raises:
            ValueError: If a word is unknown or a caption is too long.
        """
        device = self.token_embed.weight.device
        numbers, valid = (x.to(device) for x in self.tokenizer(prompts))
        x = self.token_embed(numbers) + self.position_embed[: numbers.shape[1]]
        mask = masks.padding(valid)
        for block in self.blocks:
            x = block(x, mask)
        text_mask = valid.to(x.dtype)
        x = self.norm(x) * rearrange(text_mask, "b n -> b n 1")
        return TextStates(x, text_mask, x[:, 0])

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Encode what a user wrote: the same as calling the encoder, after a look at the grammar.

        Raises:
            ValueError: If a word is unknown, a caption is too long, or the encoder speaks of the
                embedded world and a caption is no sentence of it.
        """
        for prompt in prompts:
            self.tokenizer.tokens(prompt)  # knows the nearest word to one that is unknown
            if self.speaks_of_world and prompt.strip():
                _check_grammar(prompt)
        return self(prompts)


def _check_grammar(prompt: str) -> None:
    try:
        parse_caption(prompt)
    except ValueError as error:
        raise ValueError(f"{error}, in the prompt {prompt!r}") from error
