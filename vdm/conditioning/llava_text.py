"""The same language model with eyes: it describes a clip that a picture is the beginning of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vdm.conditioning.clip_image import ClipStatesEncoder
from vdm.conditioning.llama_text import LlamaClipEncoder
from vdm.conditioning.text import TextStates
from vdm.utils.config import configurable

PICTURE, END = "<image>", "<|end_header_id|>"
QUESTION = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "<image>\n"
    "Describe the video by detailing the following aspects according to the reference image: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
    "objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>\n\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
"""What HunyuanVideo-I2V asks, with the picture in the place of its mark."""
NUM_QUESTION = 103
"""Tokens of it before the prompt, by the published tokenizer; the picture counts as one."""
NUM_HANDED_OVER = 4
"""Tokens that hand over to the answer, of which the network is not told."""


@configurable
class LlavaClipEncoder(LlamaClipEncoder):
    """The states of a language model that is asked to describe a clip of which it sees a picture.

    Those of the picture come first, some of them left out; then those of the prompt and of what
    stands behind it, without the tokens that hand over to the answer.

    Args:
        config: Settings of ``transformers.LlavaConfig``.
        tokenizer: The tokenizer's files: what is in them, by name.
        clip_config: Settings of ``transformers.CLIPTextConfig``.
        clip_tokenizer: Files of CLIP's tokenizer.
        every: Of how many states of the picture the network is told the first.
        max_length: Tokens of a prompt that are read.
        question: What is asked, with braces for the prompt and a mark for the picture.
        num_question: Tokens before the prompt, where the picture counts as one.

    Raises:
        ValueError: If the tokenizers' files make none, or the settings no model that sees.

    Source:
        tencent/HunyuanVideo-I2V; Liu et al. 2023, "Visual Instruction Tuning", arXiv:2304.08485,
        section 4.1.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Mapping[str, str],
        clip_config: Mapping[str, Any],
        clip_tokenizer: Mapping[str, str],
        every: int = 2,
        max_length: int = 256,
        question: str = QUESTION,
        num_question: int = NUM_QUESTION,
    ) -> None:
        _check(config)
        words = config["text_config"]
        super().__init__(
            words, tokenizer, clip_config, clip_tokenizer, max_length, question, num_question
        )
        self.every = every
        self.eyes = ClipStatesEncoder(config["vision_config"])
        width = self.llama.config.hidden_size
        has_bias = bool(config.get("multimodal_projector_bias", True))
        self.projector = nn.Sequential(
            nn.Linear(self.eyes.width, width, has_bias),
            nn.GELU(),
            nn.Linear(width, width, has_bias),
        )
        asked = self._tokenize(question.split("{}")[0]).input_ids
        if asked.count(mark := self._tokenize.convert_tokens_to_ids(PICTURE)) != 1:
            raise ValueError(f"got a tokenizer without {PICTURE}, expected one for pictures")
        self._place, self._end = asked.index(mark), self._tokenize.convert_tokens_to_ids(END)

    @property
    def num_seen(self) -> int:
        """States of a picture that the network is told."""
        return len(range(0, self.eyes.num_tokens - 1, self.every))

    def forward(  # type: ignore[override]
        self, prompts: Sequence[str], squares: Float[Tensor, "b_or_1 3 side side"]
    ) -> TextStates:
        """Encode texts, each in sight of a picture.

        Args:
            prompts: Texts; of one that is too long the end is not read, with a warning.
            squares: A picture for each or for all, prepared by ``eyes.prepare``.

        Returns:
            States of picture and text, which of them are told where some are not, and a vector.
        """
        numbers, valid = self._read(prompts)
        seen = self.projector(self.eyes.states(squares)[:, 1:])
        seen = seen.expand(len(prompts), -1, -1)
        ahead, count = self._place, seen.shape[1]
        words = self._embed(numbers)
        states = self._states(torch.cat((words[:, :ahead], seen, words[:, ahead + 1 :]), dim=1))
        picture = states[:, ahead : ahead + count : self.every]
        # From here on tokens are counted as they were before the picture stood in its place.
        states = torch.cat((states[:, :ahead], states[:, ahead + count - 1 :]), dim=1)
        rows = [
            torch.cat((states[row, self.num_question : stop], states[row, start:end]))
            for row, (stop, start, end) in enumerate(self._ends(numbers, valid))
        ]
        told = torch.cat((picture, pad_sequence(rows, batch_first=True)), dim=1)
        counts, mask = [picture.shape[1] + len(row) for row in rows], None
        if min(counts) < max(counts):
            mask = pad_sequence([told.new_ones(count) for count in counts], batch_first=True)
        return TextStates(told, mask, self.clip(prompts).pooled_text)

    def encode(  # type: ignore[override]
        self, prompts: Sequence[str], pictures: Float[Tensor, "b_or_1 3 h w"]
    ) -> TextStates:
        """The same of pictures in [-1, 1]; outside of the square in the middle nothing is seen.

        A single text is read in sight of every picture.
        """
        texts = [*prompts] * len(pictures) if len(prompts) == 1 else prompts
        device = self.llama.embed_tokens.weight.device
        return self(texts, self.eyes.prepare(pictures.to(device)))

    def _ends(self, numbers: Tensor, valid: Tensor) -> list[tuple[int, int, int]]:
        """Where each prompt ends, where what is told goes on, and where it ends.

        A prompt that is too long loses its last tokens for those that hand over.
        """
        expected, found = self.question.count(END), []
        lengths = valid.sum(dim=1).tolist()
        for row, length in zip(numbers.tolist(), lengths, strict=True):
            places = [place for place, number in enumerate(row) if number == self._end]
            start = places[-1] + 1 if len(places) >= expected else length
            found.append((start - NUM_HANDED_OVER, start, length))
        return found


def _check(config: Mapping[str, Any]) -> None:
    """Refuse settings of models that see in another way.

    Raises:
        ValueError: If they are of one.
    """
    usual: dict[str, Any] = {
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
    }
    for name, value in usual.items():
        if (got := config.get(name, value)) != value:
            raise ValueError(f"got {name}={got!r}, expected {value!r}")
    for name in ("text_config", "vision_config"):
        if not isinstance(config.get(name), Mapping):
            raise ValueError(f"got no {name}, expected settings of LLaVA")
