"""Motion modules in the files of AnimateDiff's authors, under the names that diffusers has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

RENAMES = [
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"(transformer_blocks\.\d+)\.norms\.0\.", r"\1.norm1."),
    (r"(transformer_blocks\.\d+)\.norms\.1\.", r"\1.norm2."),
    (r"\.ff_norm\.", ".norm3."),
]
TABLE = "pos_encoder.pe"
HEADS, GROUPS = 8, 32
"""Of all published modules; no file says them."""


def read_motion(
    state: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings of the adapter that a file holds, and its weights.

    Args:
        state: Tensors by the authors' names.
        where: The file, for messages.

    Raises:
        ValueError: If the file holds no motion modules.
    """
    motion = {key: value for key, value in state.items() if "motion_modules" in key}
    tables = {key: value for key, value in motion.items() if key.endswith(TABLE)}
    maps = {key: value for key, value in motion.items() if key.endswith("proj_in.weight")}
    widths = {
        int(found[1]): len(value)
        for key, value in maps.items()
        if (found := re.match(r"down_blocks\.(\d+)\.", key))
    }
    if not tables or not widths or any(table.ndim != 3 for table in tables.values()):
        raise ValueError(f"{where}: holds no motion modules")
    first = [key for key in maps if key.startswith("down_blocks.0.")]
    first_conv = {key: value for key, value in state.items() if key.startswith("conv_in.")}
    config = {
        "_class_name": "MotionAdapter",
        "block_out_channels": [widths[level] for level in sorted(widths)],
        "motion_layers_per_block": len(first),
        "motion_num_attention_heads": HEADS,
        "motion_norm_num_groups": GROUPS,
        "motion_max_seq_length": next(iter(tables.values())).shape[1],
        "use_motion_mid_block": any(key.startswith("mid_block.") for key in maps),
    }
    if first_conv:  # of PIA
        config["conv_in_channels"] = first_conv["conv_in.weight"].shape[1]
    weights = {modern_name(key): value for key, value in motion.items() if key not in tables}
    return config, weights | first_conv


def modern_name(key: str) -> str:
    """The name that diffusers has for a weight of a motion module."""
    for pattern, theirs in RENAMES:
        key = re.sub(pattern, theirs, key)
    return key
