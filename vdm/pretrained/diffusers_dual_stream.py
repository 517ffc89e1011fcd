"""diffusers' HunyuanVideo transformer as ours: its settings, and where every weight belongs."""

from __future__ import annotations

import math
import re
from typing import Any, get_args

from vdm.layers.position_rules import SharedOutRotary
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.models.dual_stream_presets import (
    GIVEN,
    DualStreamSize,
    HunyuanVideoKind,
    hunyuan_video,
)
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry, renamed

IMAGE_CONDITION = {"t2v": None, "i2v-concat": "latent_concat", "i2v-replace": "token_replace"}
"""What diffusers calls the kinds of network."""

OUTSIDE = [
    (r"patch_embed", "x_embedder.proj"),
    (r"text_embed\.time_embed\.fc", "context_embedder.time_text_embed.timestep_embedder.linear_"),
    (r"text_embed\.mean_embed\.0", "context_embedder.time_text_embed.text_embedder.linear_1"),
    (r"text_embed\.mean_embed\.2", "context_embedder.time_text_embed.text_embedder.linear_2"),
    (r"text_embed\.embed", "context_embedder.proj_in"),
    (r"text_embed\.blocks", "context_embedder.token_refiner.refiner_blocks"),
    (r"time_embed\.fc", "time_text_embed.timestep_embedder.linear_"),
    (r"guidance_embed\.fc", "time_text_embed.guidance_embedder.linear_"),
    (r"pooled_embed\.0", "time_text_embed.text_embedder.linear_1"),
    (r"pooled_embed\.2", "time_text_embed.text_embedder.linear_2"),
    (r"double_blocks", "transformer_blocks"),
    (r"single_blocks", "single_transformer_blocks"),
    (r"final\.modulation", "norm_out"),
    (r"final\.linear", "proj_out"),
]
"""How keys of ours begin, and how theirs do."""
INSIDE = [
    (r"video\.modulation", "norm1"),
    (r"text\.modulation", "norm1_context"),
    (r"video\.feedforward\.fc1", "ff.net.0.proj"),
    (r"video\.feedforward\.fc2", "ff.net.2"),
    (r"text\.feedforward\.fc1", "ff_context.net.0.proj"),
    (r"text\.feedforward\.fc2", "ff_context.net.2"),
    (r"video\.attention\.to_out", "attn.to_out.0"),
    (r"video\.attention", "attn"),
    (r"text\.attention\.to_out", "attn.to_add_out"),
    (r"text\.attention\.to_(.)", r"attn.add_\1_proj"),
    (r"text\.attention\.norm_", "attn.norm_added_"),
    (r"modulation", "norm"),
    (r"to_hidden", "proj_mlp"),
    (r"feedforward\.0", "ff.net.0.proj"),
    (r"feedforward\.2", "ff.net.2"),
    (r"gates", "norm_out"),
    (r"norm(\d)", r"norm\1"),
]
"""Likewise behind the number of a block, attention without two streams aside."""


def hunyuan_from_config(config: ForeignConfig) -> DualStreamDiT:
    """A network with random weights from diffusers' settings.

    Raises:
        ValueError: If a setting asks for what ours cannot do.
    """
    config.expect(mlp_ratio=4.0, qk_norm="rms_norm", rope_theta=256.0)
    called, kinds = config.take("image_condition_type", None), IMAGE_CONDITION.items()
    kind = next((ours for ours, theirs in kinds if theirs == called), None)
    if kind is None:
        raise ValueError(
            f"{config.where}: got image_condition_type={called!r}, expected one of "
            f"{', '.join(map(repr, IMAGE_CONDITION.values()))}"
        )
    channels = config.take("out_channels", 16)
    config.expect(in_channels=2 * channels + 1 if kind == "i2v-concat" else channels)
    side = config.take("patch_size", 2)
    t, h, w = config.take("rope_axes_dim", (16, 56, 56))
    size = DualStreamSize(
        config.take("num_attention_heads", 24),
        config.take("attention_head_dim", 128),
        (config.take("num_layers", 20), config.take("num_single_layers", 40)),
        channels,
        config.take("text_embed_dim", 4096),
        config.take("pooled_projection_dim", 768),
        (t, h, w),
        (config.take("patch_size_t", 1), side, side),
        config.take("num_refiner_layers", 2),
    )
    return hunyuan_video(kind, size, config.take("guidance_embeds", True))  # type: ignore[arg-type]


def hunyuan_settings(network: DualStreamDiT) -> list[dict[str, Any]]:
    """What the class would have to be told, if the network is of HunyuanVideo; else nothing."""
    arguments: Any = network._init_args
    kinds = [kind for kind in get_args(HunyuanVideoKind) if GIVEN[kind] == network.given]
    if not kinds or not isinstance(network.positions, SharedOutRotary):
        return []
    double, single = arguments["depth"]
    channels, (pt, side, _) = network.in_channels, network.patch_size
    settings = {
        "_class_name": "HunyuanVideoTransformer3DModel",
        "in_channels": 2 * channels + 1 if kinds[0] == "i2v-concat" else channels,
        "out_channels": channels,
        "num_attention_heads": arguments["num_heads"],
        "attention_head_dim": network.head_dim,
        "num_layers": double,
        "num_single_layers": single,
        "num_refiner_layers": arguments["refiner_depth"],
        "mlp_ratio": 4.0,
        "patch_size": side,
        "patch_size_t": pt,
        "qk_norm": "rms_norm",
        "guidance_embeds": arguments["embeds_guidance"],
        "text_embed_dim": arguments["text_dim"],
        "pooled_projection_dim": arguments["pooled_dim"],
        "rope_theta": 256.0,
        "rope_axes_dim": list(network.positions.axes),
        "image_condition_type": IMAGE_CONDITION[kinds[0]],
    }
    return [settings]


def hunyuan_entries(network: DualStreamDiT) -> list[Entry]:
    """Where every weight lies in diffusers' layout."""
    state = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    return [_entry(network, key, shape) for key, shape in state.items()]


def _entry(network: DualStreamDiT, key: str, shape: tuple[int, ...]) -> Entry:
    theirs = _name(key)
    if key == "patch_embed.weight":  # a convolution there
        rows, columns = shape
        patch = network.patch_size
        kernel = (rows, columns // math.prod(patch), *patch)
        return Entry(theirs, (key,), shapes=(kernel, shape))
    return Entry(theirs, (key,), is_swapped=key.startswith("final.modulation."))


def _name(key: str) -> str:
    """Their name of one of our keys."""
    found = re.fullmatch(r"((?:text_embed\.blocks|double_blocks|single_blocks)\.\d+\.)(.+)", key)
    if found is None:
        return renamed(key, OUTSIDE)
    head, rest = found.groups()
    if key.startswith("single_blocks.") and rest.startswith("attention.to_out"):
        rest = rest.replace("attention.to_out", "proj_out")
    elif rest.startswith("attention."):
        rest = rest.replace("attention.to_out", "attn.to_out.0").replace("attention", "attn")
    else:
        rest = renamed(rest, INSIDE)
    return renamed(head, OUTSIDE) + rest
