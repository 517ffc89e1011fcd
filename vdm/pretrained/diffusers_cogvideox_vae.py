"""CogVideoX's VAE in diffusers' layout."""

from __future__ import annotations

import math
from typing import Any

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.cogvideox_vae import CogVideoXDesign
from vdm.autoencoder.latents import Factor
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry, reworded

RENAMES = (
    (r"^(en|de)coder\.embed\.", r"\1coder.conv_in.conv."),
    (r"^(en|de)coder\.out\.norm\.", r"\1coder.norm_out."),
    (r"^(en|de)coder\.out\.conv\.", r"\1coder.conv_out.conv."),
    (r"\.middle\.", ".mid_block.resnets."),
    (r"^encoder\.levels\.(\d+)\.resize\.resize\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.levels\.(\d+)\.resize\.resize\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"^encoder\.levels\.(\d+)\.blocks\.", r"encoder.down_blocks.\1.resnets."),
    (r"^decoder\.levels\.(\d+)\.blocks\.", r"decoder.up_blocks.\1.resnets."),
    (r"\.first\.conv\.", ".conv1.conv."),
    (r"\.second\.conv\.", ".conv2.conv."),
    (r"\.first\.norm\.", ".norm1."),
    (r"\.second\.norm\.", ".norm2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"(norm_out|norm[12])\.norm\.", r"\1.norm_layer."),
    (r"\.to_gain\.", ".conv_y.conv."),
    (r"\.to_offset\.", ".conv_b.conv."),
)


def read(config: ForeignConfig) -> CausalVAE:
    """The VAE of these settings.

    Raises:
        ValueError: If a setting asks for what ours cannot do.
    """
    widths = tuple(config.take("block_out_channels", (128, 256, 256, 512)))
    levels, ratio = len(widths) - 1, config.take("temporal_compression_ratio", 4)
    times = round(math.log2(ratio))
    if 2**times != ratio or times > levels:
        raise ValueError(
            f"{config.where}: got temporal_compression_ratio={ratio}, expected a power of 2 up to "
            f"{2**levels}"
        )
    config.expect(
        in_channels=3,
        out_channels=3,
        down_block_types=["CogVideoXDownBlock3D"] * len(widths),
        up_block_types=["CogVideoXUpBlock3D"] * len(widths),
        act_fn="silu",
        norm_eps=1e-6,
        shift_factor=None,
        latents_mean=None,
        latents_std=None,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    for name in ("sample_height", "sample_width", "force_upcast"):
        config.take(name, None)  # of the pipeline, and of tiles
    depth = config.take("layers_per_block", 3)
    in_time = tuple(level < times for level in range(levels))
    return CausalVAE(
        CogVideoXDesign(config.take("norm_num_groups", 32)),
        Factor(
            config.take("scaling_factor", 1.15258426),
            bool(config.take("invert_scale_latents", False)),
        ),
        config.take("latent_channels", 16),
        widths,
        depth,
        depth + 1,
        in_time,
        in_time,
    )


def write(vae: CausalVAE) -> dict[str, Any]:
    """The settings of a VAE.

    Raises:
        ValueError: If diffusers cannot have it.
    """
    arguments: Any = vae._init_args
    design, scale = vae.design, vae.scale
    assert isinstance(design, CogVideoXDesign)
    assert isinstance(scale, Factor)
    widths, depth = list(arguments["widths"]), arguments["encoder_depth"]
    times, levels = sum(arguments["halves_time"]), len(widths) - 1
    in_time = [level < times for level in range(levels)]
    if arguments["decoder_depth"] != depth + 1 or any(
        list(arguments[name]) != in_time for name in ("halves_time", "doubles_time")
    ):
        raise ValueError(
            "got depths or an order of levels that diffusers' CogVideoX VAE has not; expected one "
            "block more in the decoder, and time halved and doubled on the first levels"
        )
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["CogVideoXDownBlock3D"] * len(widths),
        "up_block_types": ["CogVideoXUpBlock3D"] * len(widths),
        "block_out_channels": widths,
        "latent_channels": vae.latent_channels,
        "layers_per_block": depth,
        "act_fn": "silu",
        "norm_eps": 1e-6,
        "norm_num_groups": design.num_groups,
        "temporal_compression_ratio": 2**times,
        "sample_height": 480,
        "sample_width": 720,
        "scaling_factor": scale.factor,
        "force_upcast": True,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "invert_scale_latents": scale.is_inverse_for_given,
    }


def entries(vae: CausalVAE) -> list[Entry]:
    """Where every weight lies."""
    return [Entry(reworded(key, RENAMES), (key,)) for key in vae.state_dict()]
