"""LTX-Video's VAEs in diffusers' layout."""

from __future__ import annotations

from typing import Any

from vdm.autoencoder.ltx_vae import LTXVAE, LTXDecoderSize, LTXEncoderSize
from vdm.layers.positions import Axes
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry, reworded

DECODE_TIME = 0.05
"""The noise time that published decoders are told, if they are told any."""
OLD, FOLDING = "LTXVideoDownBlock3D", "LTXVideo095DownBlock3D"
STRIDES: dict[str, Axes] = {
    "spatial": (1, 2, 2),
    "temporal": (2, 1, 1),
    "spatiotemporal": (2, 2, 2),
}
WIDTHS, DEPTHS = (128, 256, 512, 512), (4, 3, 3, 3, 4)
SCALED = (True, True, True, False)

RENAMES = (
    (r"^scale\.(mean|std)$", r"latents_\1"),
    (r"^decoder\.time_scale$", "decoder.timestep_scale_multiplier"),
    (r"^decoder\.out\.norm\.table$", "decoder.scale_shift_table"),
    (r"^(en|de)coder\.embed\.", r"\1coder.conv_in.conv."),
    (r"^(en|de)coder\.out\.conv\.", r"\1coder.conv_out.conv."),
    (r"^encoder\.middle\.", "encoder.mid_block.resnets."),
    (r"^decoder\.middle\.", "decoder.mid_block."),
    (r"^encoder\.levels\.(\d+)\.", r"encoder.down_blocks.\1."),
    (r"^decoder\.levels\.(\d+)\.(group\.)?", r"decoder.up_blocks.\1."),
    (r"^(encoder\.down_blocks\.\d+)\.widen\.", r"\1.conv_out."),
    (r"^(decoder\.up_blocks\.\d+)\.widen\.", r"\1.conv_in."),
    (r"^encoder(.+)\.resize\.conv\.", r"encoder\1.downsamplers.0.conv."),
    (r"^decoder(.+)\.resize\.conv\.", r"decoder\1.upsamplers.0.conv.conv."),
    (r"\.blocks\.", ".resnets."),
    (r"\btime_embed\.fc", "time_embedder.timestep_embedder.linear_"),
    (r"\.first\.conv\.", ".conv1.conv."),
    (r"\.second\.conv\.", ".conv2.conv."),
    (r"\.first\.norm\.table$", ".scale_shift_table"),
    (r"\.grains\.0\.strength$", ".per_channel_scale1"),
    (r"\.grains\.1\.strength$", ".per_channel_scale2"),
    (r"\.shortcut_norm\.", ".norm3."),
    (r"\.shortcut\.", ".conv_shortcut.conv."),
)


def read(config: ForeignConfig) -> LTXVAE:
    """The VAE of these settings.

    Raises:
        ValueError: If a setting asks for what ours cannot do.
    """
    config.expect(
        in_channels=3,
        out_channels=3,
        patch_size_t=1,
        resnet_norm_eps=1e-6,
        scaling_factor=1.0,
        encoder_causal=True,
        decoder_causal=False,
    )
    patch_size = config.take("patch_size", 4)
    vae = LTXVAE(
        _encoder(config), _decoder(config), config.take("latent_channels", 128), patch_size
    )
    t, h, _ = vae.strides
    for name, stride in (("spatial_compression_ratio", h), ("temporal_compression_ratio", t)):
        if config.take(name, None) is not None:
            config.expect(**{name: stride})
    return vae


def _encoder(config: ForeignConfig) -> LTXEncoderSize:
    widths = tuple(config.take("block_out_channels", WIDTHS))
    *depths, middle = config.take("layers_per_block", DEPTHS)
    scaled = list(config.take("spatio_temporal_scaling", SCALED))
    kinds = set(config.take("down_block_types", (OLD,)))
    count = sum(scaled)
    # There may be more settings than levels, of which the rest are not read there either.
    config.expect(spatio_temporal_scaling=[True] * count + [False] * (len(scaled) - count))
    if kinds == {FOLDING}:
        named = list(config.take("downsample_type", ("conv",) * 4))[: len(depths)]
        if unknown := [name for name in named if name not in STRIDES]:
            raise ValueError(
                f"{config.where}: got downsample_type {unknown[0]!r} in {FOLDING}, expected "
                f"{', '.join(STRIDES)}"
            )
        strides = tuple(STRIDES[name] for name in named)
        return LTXEncoderSize(widths, tuple(depths), middle, strides, folds=True)
    config.expect(down_block_types=[OLD] * len(config.take("down_block_types", (OLD,))))
    config.take("downsample_type", None)  # of the other kind of levels
    return LTXEncoderSize(widths, tuple(depths), middle, ((2, 2, 2),) * count)


def _decoder(config: ForeignConfig) -> LTXDecoderSize:
    widths = tuple(config.take("decoder_block_out_channels", WIDTHS))
    *depths, middle = config.take("decoder_layers_per_block", DEPTHS)
    enlarges = tuple(config.take("decoder_spatio_temporal_scaling", SCALED))
    grains = tuple(config.take("decoder_inject_noise", (False,) * 5))
    count = len(widths)
    narrows = config.take("upsample_factor", (1,) * count)[0]
    has_shortcuts = config.take("upsample_residual", (False,) * count)[0]
    for name, value in (("upsample_factor", narrows), ("upsample_residual", has_shortcuts)):
        config.expect(**{name: [value] * len(config.take(name, (value,) * count))})
    time = DECODE_TIME if config.take("timestep_conditioning", False) else None
    return LTXDecoderSize(
        widths, tuple(depths), middle, enlarges, narrows, has_shortcuts, grains, time
    )


def write(vae: LTXVAE) -> dict[str, Any]:
    """The settings of a VAE.

    Raises:
        ValueError: If diffusers cannot have it.
    """
    arguments: Any = vae._init_args
    encoder, decoder = arguments["encoder"], arguments["decoder"]
    if decoder.decode_time not in (None, DECODE_TIME):
        raise ValueError(
            f"got decode_time={decoder.decode_time}, which diffusers' folders do not hold, "
            f"expected {DECODE_TIME}"
        )
    num_levels, count = len(encoder.depths), len(decoder.widths)
    names = {stride: name for name, stride in STRIDES.items()}
    kinds = (
        [names[tuple(stride)] for stride in encoder.strides]
        if encoder.folds
        else ["conv"] * num_levels
    )
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": vae.latent_channels,
        "block_out_channels": list(encoder.widths),
        "down_block_types": [FOLDING if encoder.folds else OLD] * num_levels,
        "decoder_block_out_channels": list(decoder.widths),
        "layers_per_block": [*encoder.depths, encoder.middle],
        "decoder_layers_per_block": [*decoder.depths, decoder.middle],
        "spatio_temporal_scaling": [n < len(encoder.strides) for n in range(num_levels)],
        "decoder_spatio_temporal_scaling": list(decoder.enlarges),
        "decoder_inject_noise": list(decoder.grains),
        "downsample_type": kinds,
        "upsample_residual": [decoder.has_shortcuts] * count,
        "upsample_factor": [decoder.narrows] * count,
        "timestep_conditioning": decoder.decode_time is not None,
        "patch_size": vae.patch_size,
        "patch_size_t": 1,
        "resnet_norm_eps": 1e-6,
        "scaling_factor": 1.0,
        "encoder_causal": True,
        "decoder_causal": False,
        # Without shrinking in time or space alone, they follow from the levels.
        "spatial_compression_ratio": vae.strides[1] if encoder.folds else None,
        "temporal_compression_ratio": vae.strides[0] if encoder.folds else None,
    }


def entries(vae: LTXVAE) -> list[Entry]:
    """Where every weight lies."""
    arguments: Any = vae._init_args
    found = []
    for key in vae.state_dict():
        if key.endswith("second.norm.table"):
            continue  # with that of the first norm
        name = reworded(key, RENAMES)
        if arguments["encoder"].folds:
            name = name.replace(".downsamplers.0.conv.", ".downsamplers.0.conv.conv.")
        both = (key, key.replace(".first.", ".second.")) if ".first.norm." in key else (key,)
        found.append(Entry(name, both, num_unit_axes=2 if ".grains." in key else 0))
    return found
