"""open-clip's text tower and its vocabulary, in the form that CLIP's text transformer has here."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.pretrained.keymap import Entry
from vdm.pretrained.original_clip import IN_LAYER

VIT_H_PENULTIMATE: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
}
"""ViT-H without the last of its 24 layers, which no video model reads."""

OUTSIDE = {
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
}
HEAD = 64
"""Width of an attention head of every tower."""
FIRST = "transformer.resblocks.0.mlp.c_fc.weight"
MERGES = 49152 - 256 - 2
"""Of the published list so many are used."""


def open_clip_text_entries(encoder: ClipTextEncoder) -> list[Entry]:
    """Where every weight lies in open-clip's text tower, which has queries, keys, values in one."""
    found = []
    for key in encoder.state_dict():
        stem, _, kind = key.removeprefix("model.").rpartition(".")
        if stem == "embeddings.position_embedding":
            found.append(Entry("positional_embedding", (key,)))
        elif place := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", stem):
            block, inside = f"transformer.resblocks.{place[1]}", place[2]
            if inside == "self_attn.q_proj":
                ours = tuple(key.replace("q_proj", f"{part}_proj") for part in "qkv")
                found.append(Entry(f"{block}.attn.in_proj_{kind}", ours))
            elif inside in IN_LAYER:
                found.append(Entry(f"{block}.{IN_LAYER[inside]}.{kind}", (key,)))
        else:
            found.append(Entry(f"{OUTSIDE[stem]}.{kind}", (key,)))
    return found


def open_clip_sizes(theirs: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Settings of the encoder that a tower makes without its last layer.

    Args:
        theirs: The tower's tensors; without any it is the published one.
        where: The file they come from, for messages.

    Raises:
        ValueError: If they are none of a text tower.
    """
    if not theirs:
        return VIT_H_PENULTIMATE
    sizes = {}
    for key in ("positional_embedding", "token_embedding.weight", FIRST):
        if key not in theirs or theirs[key].ndim != 2:
            raise ValueError(f"{where}: holds no text tower of open-clip: it has no matrix {key}")
        sizes[key] = theirs[key].shape
    length, width = sizes["positional_embedding"]
    layers = {key.split(".")[2] for key in theirs if key.startswith("transformer.resblocks.")}
    return {
        **VIT_H_PENULTIMATE,
        "vocab_size": sizes["token_embedding.weight"][0],
        "hidden_size": width,
        "intermediate_size": sizes[FIRST][0],
        "num_hidden_layers": len(layers) - 1,
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": length,
    }


def open_clip_surplus(keys: list[str], num_layers: int) -> list[str]:
    """Keys of the tower that no video model reads: the last layers, and the way to images."""

    def is_surplus(key: str) -> bool:
        layer = re.match(r"transformer\.resblocks\.(\d+)\.", key)
        is_late = layer is not None and int(layer[1]) >= num_layers
        return is_late or key in ("text_projection", "logit_scale", "attn_mask")

    return [key for key in keys if is_surplus(key)]


def open_clip_tokenizer(length: int = 77) -> dict[str, str]:
    """The tokenizer's files, out of the list of merges that open-clip ships.

    Short texts are filled with the token 0 there, which is a word too: an encoder is told so by its
    ``pad_id``.

    Args:
        length: Tokens of a text.

    Raises:
        ValueError: If open-clip is not installed.
    """
    found = importlib.util.find_spec("open_clip")  # its file alone: the package itself is slow
    if found is None or found.origin is None:
        raise ValueError(
            "the vocabulary of this model comes with open-clip: pip install 'vdm[encoders]'"
        )
    path = Path(found.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    letters = list(_letters())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(merge.split()) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    return {
        "vocab.json": json.dumps({token: number for number, token in enumerate(tokens)}),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "tokenizer_config.json": json.dumps(config),
    }


def _letters() -> list[str]:
    """A character for each byte: itself where it can be seen, one above 255 otherwise."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + number) for number in range(len(hidden))]
