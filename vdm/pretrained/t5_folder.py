"""T5's encoders of text, read from component folders and written to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vdm.conditioning.t5_text import Padding, T5TextEncoder, read_tokenizer, write_tokenizer
from vdm.pretrained.diffusers_files import CONFIG, open_weights, read_config
from vdm.pretrained.diffusers_settings import reading_settings
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, cast_weight, fill, write_safetensors

CLASSES = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel"}


def load_t5_text(
    folder: str | Path,
    tokenizer: str | Path,
    max_length: int = 226,
    padding: Padding = "read",
    lowers: bool = False,
    mends: bool = False,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> T5TextEncoder:
    """An encoder from a component folder, and its tokenizer from another.

    Args:
        folder: Holds ``config.json`` and the weights.
        tokenizer: Holds the tokenizer's files.
        max_length: Tokens of a text.
        padding: What becomes of the tokens that fill up, see
            :class:`vdm.conditioning.t5_text.T5TextEncoder`.
        lowers: Whether capitals and the space around a text do not count.
        mends: Whether texts are put right before they are read.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is of another class, or a key, a shape or a value is not as it has to be.
    """
    folder = Path(folder)
    config, words = read_config(folder), read_tokenizer(Path(tokenizer))
    with torch.device("meta"), reading_settings(f"{folder / CONFIG}, {tokenizer}"):
        encoder = T5TextEncoder(config, words, max_length, padding, lowers, mends)
    if how.is_plan:
        return encoder.eval()
    places = [Entry(key.removeprefix("model."), (key,)) for key in encoder.state_dict()]
    twice = ["encoder.embed_tokens.weight"]  # the table of tokens under another name
    read = ForeignWeights(open_weights(folder, how.variant), places, twice, str(folder))
    fill(encoder, read, str(folder), how.dtype)
    return encoder


def save_t5_text(
    encoder: T5TextEncoder,
    folder: str | Path,
    tokenizer: str | Path,
    dtype: torch.dtype | None = None,
) -> dict[str, list[str]]:
    """The inverse of :func:`load_t5_text`: folders that transformers itself loads.

    Args:
        encoder: The encoder.
        folder: Of its weights; made if need be.
        tokenizer: Of its tokenizer.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        Library and class of both parts, as ``model_index.json`` has them.
    """
    arguments: Any = encoder._init_args
    write_tokenizer(arguments["tokenizer"], Path(tokenizer))
    state = {
        key.removeprefix("model."): cast_weight(value, dtype, key)
        for key, value in encoder.state_dict().items()
    }
    model_type = encoder.model.config.model_type
    kind = CLASSES[model_type]
    write_safetensors(state, Path(folder) / "model.safetensors", {"format": "pt"})
    settings = {**arguments["config"], "architectures": [kind], "model_type": model_type}
    text = json.dumps(settings, indent=2) + "\n"
    (Path(folder) / CONFIG).write_text(text, encoding="utf-8")
    return {"text_encoder": ["transformers", kind], "tokenizer": ["transformers", "T5Tokenizer"]}
