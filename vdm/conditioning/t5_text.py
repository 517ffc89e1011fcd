"""T5's encoders of text, as transformers builds them, with the tokenizer that belongs to them."""

from __future__ import annotations

import base64
import html
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from vdm.conditioning.text import TextStates
from vdm.utils.config import configurable

Padding = Literal["read", "zeroed", "masked", "masked_alike", "marked"]
PIECES = "spiece.model"
TOKENIZER_FILES = (
    PIECES,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@configurable
class T5TextEncoder(nn.Module):
    """A published text encoder: the states of the last layer, for a fixed number of tokens.

    Args:
        config: Settings of ``transformers.T5Config``, or of ``UMT5Config`` by its ``model_type``.
        tokenizer: The tokenizer's files by name: what is in them, that of ``spiece.model`` in
            base 64.
        max_length: Tokens of a text; shorter ones are filled up.
        padding: What becomes of the tokens that fill up: ``read`` like all others, by the encoder
            and by what comes after it; ``zeroed`` behind an encoder that does not see them;
            ``masked``: as ``zeroed``, but left as they are and marked in the mask;
            ``masked_alike``: of what guidance leads away from, as many tokens are read as of the
            prompt; or ``marked`` in the mask, though the encoder reads them.
        lowers: Whether capitals and the space around a text do not count.
        mends: Whether texts are put right before they are read: characters that were decoded
            wrongly, HTML's names of characters, wide forms of narrow ones, runs of white space.

    Raises:
        ValueError: If the model, the padding or the tokenizer's files are unknown.

    Source:
        Raffel et al. 2019, arXiv:1910.10683; version 1.1 with gated feed-forwards, Shazeer 2020,
        arXiv:2002.05202. Chung et al. 2023, "UniMax", arXiv:2304.09151, for UMT5.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tokenizer: Mapping[str, str],
        max_length: int = 226,
        padding: Padding = "read",
        lowers: bool = False,
        mends: bool = False,
    ) -> None:
        super().__init__()
        if padding not in get_args(Padding):
            raise ValueError(
                f"got padding={padding!r}, expected one of {', '.join(get_args(Padding))}"
            )
        self.model = _model(config)
        # Numbers become vectors here, so that the table has one name.
        self.model.encoder.embed_tokens = None
        self.max_length, self.padding, self.lowers = max_length, padding, lowers
        self.masks_alike = padding == "masked_alike"
        """Whether the mask of a prompt is that of its negative prompt, too."""
        self._tokenize = _tokenizer(tokenizer)
        self._mend = _mender() if mends else str

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """Encode texts; ``""`` is the text that says nothing.

        Args:
            prompts: Texts; of one that is too long the end is not read, with a warning.

        Returns:
            States of the tokens, and which are of the text where the others are to be left out.
        """
        prompts = [self._mend(prompt) for prompt in prompts]
        prompts = [prompt.lower().strip() for prompt in prompts] if self.lowers else prompts
        told = self._tokenize(
            prompts,
            padding="max_length",
            max_length=self.max_length,
            truncation=True,
            return_tensors="pt",
        )
        self._warn_of_ends(prompts)
        device = self.model.shared.weight.device
        embedded = self.model.shared(told.input_ids.to(device))
        valid = told.attention_mask.to(device)
        if self.padding in ("read", "marked"):
            states = self.model(inputs_embeds=embedded).last_hidden_state
            mask = valid.to(states.dtype) if self.padding == "marked" else None
            return TextStates(states, mask, None)
        # A mask is asked for its values there, of which it has none on the meta device.
        seen = None if valid.is_meta else valid
        states = self.model(inputs_embeds=embedded, attention_mask=seen).last_hidden_state
        if self.padding in ("masked", "masked_alike"):
            return TextStates(states, valid.to(states.dtype), None)
        return TextStates(states * valid[..., None].to(states.dtype), None, None)

    def _warn_of_ends(self, prompts: Sequence[str]) -> None:
        """Say whose end is not read."""
        for prompt in prompts:
            count = len(self._tokenize(prompt).input_ids)
            if count > self.max_length:
                warnings.warn(
                    f"got a prompt of {count} tokens, of which {self.max_length} are read: "
                    f"{prompt[:40]!r}...",
                    stacklevel=4,
                )

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The same."""
        return self(prompts)


def _model(config: Mapping[str, Any]) -> Any:
    try:
        from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel
    except ModuleNotFoundError as error:
        raise ValueError("T5 needs transformers: pip install 'vdm[transformers]'") from error

    kind = config.get("model_type", "t5")
    if kind == "t5":
        return T5EncoderModel(T5Config(**config))
    if kind == "umt5":
        return UMT5EncoderModel(UMT5Config(**config))
    raise ValueError(f"got model_type={kind!r}, expected 't5' or 'umt5'")


def _mender() -> Callable[[str], str]:
    """What puts texts right."""
    try:
        from ftfy import fix_text
    except ModuleNotFoundError as error:
        raise ValueError("texts are mended by ftfy: pip install 'vdm[transformers]'") from error

    def mend(text: str) -> str:
        # Twice, for text whose ampersands have been escaped once more.
        return " ".join(html.unescape(html.unescape(fix_text(text))).split())

    return mend


def _tokenizer(files: Mapping[str, str]) -> Any:
    """The tokenizer that some files make, without a trace of where they lie."""
    from transformers import T5Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(files, Path(folder))
        try:
            return T5Tokenizer.from_pretrained(folder)
        except ImportError as error:
            raise ValueError(
                f"{PIECES} needs sentencepiece: pip install 'vdm[transformers]'"
            ) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"got tokenizer files {sorted(files)}, which make none") from error


def write_tokenizer(files: Mapping[str, str], folder: Path) -> None:
    """Write a tokenizer's files, the inverse of :func:`read_tokenizer`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        data = base64.b64decode(text) if name == PIECES else text.encode()
        (folder / Path(name).name).write_bytes(data)


def read_tokenizer(folder: Path) -> dict[str, str]:
    """What is in a tokenizer's files.

    Raises:
        FileNotFoundError: If neither the pieces nor the whole tokenizer is there.
    """
    paths = {name: folder / name for name in TOKENIZER_FILES if (folder / name).is_file()}
    if PIECES not in paths and "tokenizer.json" not in paths:
        raise FileNotFoundError(f"no tokenizer in {folder}, expected e.g. {PIECES}")
    return {
        name: base64.b64encode(path.read_bytes()).decode()
        if name == PIECES
        else path.read_text(encoding="utf-8")
        for name, path in paths.items()
    }
