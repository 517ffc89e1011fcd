"""Image VAEs in diffusers' layout: from their ``config.json`` to ours, and where weights belong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from vdm.autoencoder.image_vae import ImageVAE
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry

IMAGE, TEMPORAL = "AutoencoderKL", "AutoencoderKLTemporalDecoder"

OUTSIDE = {
    "to_moments": "quant_conv",
    "from_latents": "post_quant_conv",
    "decoder.conv_in_time": "decoder.time_conv_out",
}
ENDS = {"embed": "conv_in", "norm": "conv_norm_out", "conv": "conv_out"}
"""First and last modules of both halves."""

RENAMES = [
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.norm$", ".mid_block.attentions.0.group_norm"),
    (r"\.middle\.1\.attention\.to_out$", ".mid_block.attentions.0.to_out.0"),
    (r"\.middle\.1\.attention\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"^encoder\.levels\.(\d+)\.resize\.conv$", r"encoder.down_blocks.\1.downsamplers.0.conv"),
    (r"^decoder\.levels\.(\d+)\.resize\.conv$", r"decoder.up_blocks.\1.upsamplers.0.conv"),
    (r"^encoder\.levels\.(\d+)\.blocks\.", r"encoder.down_blocks.\1.resnets."),
    (r"^decoder\.levels\.(\d+)\.blocks\.", r"decoder.up_blocks.\1.resnets."),
    (r"\.spatial\.", ".spatial_res_block."),
    (r"\.temporal\.", ".temporal_res_block."),
    (r"\.blend$", ".time_mixer"),
    (r"\.shortcut$", ".conv_shortcut"),
]
OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention's maps in files of early days."""


def vae_from_config(data: Mapping[str, Any], where: str = "config.json") -> ImageVAE:
    """An image VAE with random weights.

    Args:
        data: What ``config.json`` holds.
        where: The file, for messages.

    Raises:
        ValueError: If the class is unknown, or a setting asks for what ours cannot do.
    """
    kind = data.get("_class_name")
    if kind not in (IMAGE, TEMPORAL):
        raise ValueError(f"{where}: got class {kind}, expected {IMAGE} or {TEMPORAL}")
    config = ForeignConfig(data, where)
    is_temporal = kind == TEMPORAL
    widths = config.take("block_out_channels", (64,))
    config.expect(in_channels=3, out_channels=3)
    config.expect(down_block_types=["DownEncoderBlock2D"] * len(widths))
    for name in ("sample_size", "force_upcast"):
        config.take(name, None)  # of the pipeline
    if not is_temporal:
        config.expect(
            up_block_types=["UpDecoderBlock2D"] * len(widths),
            act_fn="silu",
            shift_factor=None,
            latents_mean=None,
            latents_std=None,
            use_quant_conv=True,
            use_post_quant_conv=True,
            mid_block_add_attention=True,
        )
    vae = ImageVAE(
        config.take("latent_channels", 4),
        tuple(widths),
        config.take("layers_per_block", 1),
        32 if is_temporal else config.take("norm_num_groups", 32),
        config.take("scaling_factor", 0.18215),
        is_temporal,
    )
    config.close()
    return vae


def config_from_vae(vae: ImageVAE) -> dict[str, Any]:
    """The settings with which diffusers builds the same VAE.

    Raises:
        ValueError: If diffusers has no class for it.
    """
    arguments: Any = vae._init_args
    widths, num_groups = list(arguments["widths"]), arguments["num_groups"]
    common = {
        "_class_name": TEMPORAL if vae.is_temporal else IMAGE,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "latent_channels": vae.latent_channels,
        "layers_per_block": arguments["depth"],
        "scaling_factor": vae.scale,
        "sample_size": 96 * vae.strides[1] if vae.is_temporal else 64 * vae.strides[1],
        "force_upcast": True,
    }
    if not vae.is_temporal:
        ups = {"up_block_types": ["UpDecoderBlock2D"] * len(widths)}
        return common | ups | {"norm_num_groups": num_groups}
    if num_groups != 32:
        raise ValueError(f"got num_groups={num_groups}, expected 32 for a temporal decoder there")
    return common


def vae_entries(vae: ImageVAE) -> list[Entry]:
    """Where every weight of an image VAE lies in diffusers' layout."""
    return [
        Entry(f"{_module(stem)}.{kind}", (key,))
        for key in vae.state_dict()
        for stem, _, kind in [key.rpartition(".")]
    ]


def _module(stem: str) -> str:
    if stem in OUTSIDE:
        return OUTSIDE[stem]
    half, _, rest = stem.partition(".")
    if rest in ENDS:
        return f"{half}.{ENDS[rest]}"
    for pattern, theirs in RENAMES:
        stem = re.sub(pattern, theirs, stem)
    return stem


def modern_names(keys: Iterable[str]) -> dict[str, str]:
    """The names of today by those in a file, which differ in early ones."""
    pattern = re.compile(rf"(?<=\.attentions\.0\.)({'|'.join(OLDER)})(?=\.)")
    return {key: pattern.sub(lambda found: OLDER[found[1]], key) for key in keys}
