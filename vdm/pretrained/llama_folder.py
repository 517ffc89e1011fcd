"""HunyuanVideo's encoders of text, read from component folders and written to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm.conditioning.clip_text import read_tokenizer
from vdm.conditioning.llama_text import LlamaClipEncoder
from vdm.conditioning.llava_text import LlavaClipEncoder
from vdm.pretrained.clip_pictures import FOLDER, check_pictures, save_pictures
from vdm.pretrained.diffusers_files import CONFIG, open_weights, read_config
from vdm.pretrained.diffusers_folder import fill_clip_text
from vdm.pretrained.diffusers_settings import reading_settings
from vdm.pretrained.keymap import Entry, ForeignWeights, renamed, to_foreign
from vdm.pretrained.loading import Reading, cast_weight, fill, write_safetensors
from vdm.pretrained.tensor_files import Renamed

FOLDERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
LLAVA = (
    (r"llama\.", "language_model.model."),
    (r"eyes\.model\.", "vision_tower."),
    (r"projector\.0\.", "multi_modal_projector.linear_1."),
    (r"projector\.2\.", "multi_modal_projector.linear_2."),
)
"""How keys of ours begin, and how transformers' do."""
MODEL_TYPES = {"LlamaModel": "llama", "LlavaModel": "llava", "CLIPTextModel": "clip_text_model"}
UNREAD = ("rotary_emb.inv_freq", "lm_head.weight", "embeddings.position_ids")
"""Ends of keys of tables, and of what a language model says in words."""


def load_llama_text(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    every: int | None = None,
) -> LlamaClipEncoder:
    """Both encoders of a model, with their tokenizers.

    Args:
        folder: Holds ``text_encoder``, ``tokenizer``, ``text_encoder_2`` and ``tokenizer_2``; for
            one that sees, ``image_processor`` besides.
        how: How weights are read.
        every: Of how many states of a picture the network is told the first, for a language model
            that sees; None for one that does not.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is of another class, or a key, a shape or a value is not as it has to be.
    """
    llama, words, clip, clip_words = (folder / name for name in FOLDERS)
    configs = [read_config(path) for path in (llama, clip)]
    expected = ("llama" if every is None else "llava",), ("clip_text_model", "clip")
    for path, config, kinds in zip((llama, clip), configs, expected, strict=True):
        if (kind := config.get("model_type")) not in kinds:
            raise ValueError(f"{path / CONFIG}: got model_type={kind!r}, expected {kinds[0]!r}")
    tokenizers = [read_tokenizer(path) for path in (words, clip_words)]
    settings = (configs[0], tokenizers[0], configs[1], tokenizers[1])
    with torch.device("meta"), reading_settings(str(folder)):
        both = LlamaClipEncoder(*settings) if every is None else LlavaClipEncoder(*settings, every)
    if isinstance(both, LlavaClipEncoder):
        check_pictures(folder, both.eyes.size)
    if how.is_plan:
        return both.eval()
    _fill_llama(both, llama, how)
    fill_clip_text(both.clip, clip, (), "text_encoder_2", how)
    return both.eval()


def _fill_llama(both: LlamaClipEncoder, folder: Path, how: Reading) -> None:
    """The weights of a language model, whose head, if it is there, is not read."""
    found, where = open_weights(folder, how.variant), str(folder)
    if isinstance(both, LlavaClipEncoder):
        found = Renamed(found, {current_key(key): key for key in found})
        places, parts = llava_entries(both), llava_parts(both)
    else:
        parts, head = both.llama, "model." if "model.norm.weight" in found else ""
        places = [Entry(head + key, (key,)) for key in parts.state_dict()]
    tables = [key for key in found if key.endswith(UNREAD)]
    fill(parts, ForeignWeights(found, places, tables, where), where, how.dtype)


def llava_parts(both: LlavaClipEncoder) -> nn.Module:
    """What LLaVA is made of, CLIP's text encoder aside."""
    return nn.ModuleDict({name: getattr(both, name) for name in ("llama", "eyes", "projector")})


def llava_entries(both: LlavaClipEncoder) -> list[Entry]:
    """Where its weights lie."""
    return [Entry(renamed(key, LLAVA), (key,)) for key in llava_parts(both).state_dict()]


def current_key(key: str) -> str:
    """A key of any version of transformers, as they are called here."""
    key = key.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
    return re.sub(r"^language_model\.(?!model\.|lm_head\.)", "language_model.model.", key)


def save_llama_text(
    both: LlamaClipEncoder, folder: Path, dtype: torch.dtype | None = None
) -> dict[str, list[str]]:
    """The inverse of :func:`load_llama_text`: folders that transformers itself loads.

    Args:
        both: The encoders.
        folder: Of the model; made if need be.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        Library and class of all parts, as ``model_index.json`` has them.
    """
    arguments: Any = both._init_args
    kind, state = "LlamaModel", both.llama.state_dict()
    if isinstance(both, LlavaClipEncoder):
        kind, state = "LlavaModel", llava_parts(both).state_dict()
        state = to_foreign(state, llava_entries(both))
    _save(state, arguments["config"], kind, folder / FOLDERS[0], dtype)
    clip = both.clip.model.state_dict()
    _save(clip, arguments["clip_config"], "CLIPTextModel", folder / FOLDERS[2], dtype)
    for name, files in zip(
        (FOLDERS[1], FOLDERS[3]), (arguments["tokenizer"], arguments["clip_tokenizer"]), strict=True
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / name / file).write_text(text, encoding="utf-8")
    classes = (kind, "PreTrainedTokenizerFast", "CLIPTextModel", "CLIPTokenizer")
    index = {name: ["transformers", one] for name, one in zip(FOLDERS, classes, strict=True)}
    if isinstance(both, LlavaClipEncoder):
        index[FOLDER] = save_pictures(folder, both.eyes.size)
    return index


def _save(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    kind: str,
    folder: Path,
    dtype: torch.dtype | None,
) -> None:
    state = {key: cast_weight(value, dtype, key) for key, value in state.items()}
    write_safetensors(state, folder / "model.safetensors", {"format": "pt"})
    settings = {**config, "architectures": [kind], "model_type": MODEL_TYPES[kind]}
    text = json.dumps(settings, indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
