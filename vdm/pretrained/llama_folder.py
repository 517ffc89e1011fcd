"""HunyuanVideo's encoders of text, read from component folders and written to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vdm.conditioning.clip_text import read_tokenizer
from vdm.conditioning.llama_text import LlamaClipEncoder
from vdm.pretrained.diffusers_files import CONFIG, open_weights, read_config
from vdm.pretrained.diffusers_folder import fill_clip_text
from vdm.pretrained.diffusers_settings import reading_settings
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, cast_weight, fill, write_safetensors

FOLDERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


def load_llama_text(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> LlamaClipEncoder:
    """Both encoders of a model, with their tokenizers.

    Args:
        folder: Holds ``text_encoder``, ``tokenizer``, ``text_encoder_2`` and ``tokenizer_2``.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is of another class, or a key, a shape or a value is not as it has to be.
    """
    llama, words, clip, clip_words = (folder / name for name in FOLDERS)
    configs = [read_config(path) for path in (llama, clip)]
    for path, config, kinds in zip(
        (llama, clip), configs, (("llama",), ("clip_text_model", "clip")), strict=True
    ):
        if (kind := config.get("model_type")) not in kinds:
            raise ValueError(f"{path / CONFIG}: got model_type={kind!r}, expected {kinds[0]!r}")
    tokenizers = [read_tokenizer(path) for path in (words, clip_words)]
    with torch.device("meta"), reading_settings(str(folder)):
        both = LlamaClipEncoder(configs[0], tokenizers[0], configs[1], tokenizers[1])
    if how.is_plan:
        return both.eval()
    _fill_llama(both.llama, llama, how)
    fill_clip_text(both.clip, clip, (), "text_encoder_2", how)
    return both.eval()


def _fill_llama(llama: nn.Module, folder: Path, how: Reading) -> None:
    """The weights of a language model, whose head, if it is there, is not read."""
    found, where = open_weights(folder, how.variant), str(folder)
    head = "model." if any(key.startswith("model.layers.") for key in found) else ""
    places = [Entry(head + key, (key,)) for key in llama.state_dict()]
    tables = [key for key in found if key.endswith("rotary_emb.inv_freq")]
    fill(llama, ForeignWeights(found, places, [*tables, "lm_head.weight"], where), where, how.dtype)


def save_llama_text(
    both: LlamaClipEncoder, folder: Path, dtype: torch.dtype | None = None
) -> dict[str, list[str]]:
    """The inverse of :func:`load_llama_text`: folders that transformers itself loads.

    Args:
        both: The encoders.
        folder: Of the model; made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        Library and class of all four parts, as ``model_index.json`` has them.
    """
    arguments: Any = both._init_args
    _save(both.llama, arguments["config"], "LlamaModel", folder / FOLDERS[0], dtype)
    _save(both.clip.model, arguments["clip_config"], "CLIPTextModel", folder / FOLDERS[2], dtype)
    for name, files in zip(
        (FOLDERS[1], FOLDERS[3]), (arguments["tokenizer"], arguments["clip_tokenizer"]), strict=True
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / name / file).write_text(text, encoding="utf-8")
    classes = ("LlamaModel", "PreTrainedTokenizerFast", "CLIPTextModel", "CLIPTokenizer")
    return {name: ["transformers", kind] for name, kind in zip(FOLDERS, classes, strict=True)}


def _save(
    model: nn.Module, config: Mapping[str, Any], kind: str, folder: Path, dtype: torch.dtype | None
) -> None:
    state = {key: cast_weight(value, dtype, key) for key, value in model.state_dict().items()}
    write_safetensors(state, folder / "model.safetensors", {"format": "pt"})
    model_type = model.config.model_type  # type: ignore[union-attr]
    settings = {**config, "architectures": [kind], "model_type": model_type}
    text = json.dumps(settings, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
