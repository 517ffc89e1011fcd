"""HunyuanVideo's VAE in diffusers' layout."""

from __future__ import annotations

from typing import Any

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.hunyuan_vae import HunyuanVideoDesign
from vdm.autoencoder.latents import Factor
from vdm.autoencoder.windowed_vae import WindowedVAE
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry, reworded

IN_TIME = (False, True, True)
"""Whether frames are fewer after a level, or more: the first is one of space alone, both ways."""
RENAMES = (
    (r"^(en|de)coder\.embed\.", r"\1coder.conv_in.conv."),
    (r"^(en|de)coder\.out\.norm\.", r"\1coder.conv_norm_out."),
    (r"^(en|de)coder\.out\.conv\.", r"\1coder.conv_out.conv."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.middle\.1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.middle\.1\.attention\.to_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.middle\.1\.attention\.", ".mid_block.attentions.0."),
    (r"^encoder\.levels\.(\d+)\.resize\.", r"encoder.down_blocks.\1.downsamplers.0.conv."),
    (r"^decoder\.levels\.(\d+)\.resize\.", r"decoder.up_blocks.\1.upsamplers.0.conv."),
    (r"^encoder\.levels\.(\d+)\.blocks\.", r"encoder.down_blocks.\1.resnets."),
    (r"^decoder\.levels\.(\d+)\.blocks\.", r"decoder.up_blocks.\1.resnets."),
    (r"\.first\.conv\.", ".conv1.conv."),
    (r"\.second\.conv\.", ".conv2.conv."),
    (r"\.first\.norm\.", ".norm1."),
    (r"\.second\.norm\.", ".norm2."),
    (r"\.shortcut\.", ".conv_shortcut.conv."),
    (r"^to_moments\.", "quant_conv."),
    (r"^from_latents\.", "post_quant_conv."),
)


def read(config: ForeignConfig) -> CausalVAE:
    """The VAE of these settings.

    Raises:
        ValueError: If a setting asks for what ours cannot do.
    """
    widths = tuple(config.take("block_out_channels", (128, 256, 512, 512)))
    if len(widths) != len(IN_TIME) + 1:
        raise ValueError(
            f"{config.where}: got {len(widths)} block_out_channels, expected {len(IN_TIME) + 1}"
        )
    config.expect(
        in_channels=3,
        out_channels=3,
        down_block_types=["HunyuanVideoDownBlock3D"] * len(widths),
        up_block_types=["HunyuanVideoUpBlock3D"] * len(widths),
        act_fn="silu",
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )
    depth = config.take("layers_per_block", 2)
    return WindowedVAE(
        HunyuanVideoDesign(config.take("norm_num_groups", 32)),
        Factor(config.take("scaling_factor", 0.476986)),
        config.take("latent_channels", 16),
        widths,
        depth,
        depth + 1,
        IN_TIME,
        IN_TIME,
    )


def write(vae: CausalVAE) -> dict[str, Any]:
    """The settings of a VAE.

    Raises:
        ValueError: If diffusers cannot have it.
    """
    arguments: Any = vae._init_args
    design, scale = vae.design, vae.scale
    assert isinstance(design, HunyuanVideoDesign)
    widths, depth = list(arguments["widths"]), arguments["encoder_depth"]
    if (
        not isinstance(scale, Factor)
        or design != HunyuanVideoDesign(design.num_groups)
        or arguments["decoder_depth"] != depth + 1
        or arguments["decoder_widths"] not in (None, arguments["widths"])
        or any(tuple(arguments[name]) != IN_TIME for name in ("halves_time", "doubles_time"))
    ):
        raise ValueError(
            "got a scale, windows, depths, widths or an order of levels that diffusers' "
            "HunyuanVideo VAE has not; expected a factor, windows of 4 latent frames every 3, one "
            "block more in the decoder, and time halved and doubled after the second and third "
            "level"
        )
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": vae.latent_channels,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * len(widths),
        "up_block_types": ["HunyuanVideoUpBlock3D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": depth,
        "act_fn": "silu",
        "norm_num_groups": design.num_groups,
        "scaling_factor": scale.factor,
        "spatial_compression_ratio": 8,
        "temporal_compression_ratio": 4,
        "mid_block_add_attention": True,
    }


def entries(vae: CausalVAE) -> list[Entry]:
    """Where every weight lies."""
    return [Entry(reworded(key, RENAMES), (key,)) for key in vae.state_dict()]
