"""Wan's VAEs in diffusers' layout."""

from __future__ import annotations

import re
from typing import Any

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.latents import Standard
from vdm.autoencoder.wan_vae import WanDesign, WanResidualDesign
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import Entry, reworded

MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""Of Wan 2.1's latents, where nothing else is said."""
MEAN_22 = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
    -0.1382, 0.0542, 0.2813, 0.0891, 0.157, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
STD_22 = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013,
    0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip
"""Of those of Wan 2.2's 5B model."""

RENAMES = (
    (r"^to_moments\.", "quant_conv."),
    (r"^from_latents\.", "post_quant_conv."),
    (r"^(en|de)coder\.embed\.", r"\1coder.conv_in."),
    (r"^(en|de)coder\.out\.norm\.", r"\1coder.norm_out."),
    (r"^(en|de)coder\.out\.conv\.", r"\1coder.conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.attention\.to_out\.", ".proj."),
    (r"\.first\.", ".1."),
    (r"\.second\.", ".2."),
    (r"\.([12])\.(norm|conv)\.", r".\2\1."),
    (r"(norm(_out|[12])?)\.weight$", r"\1.gamma"),
    (r"\.shortcut\.", ".conv_shortcut."),
)
QKV = tuple(f"attention.to_{part}." for part in "qkv")


def read(config: ForeignConfig) -> CausalVAE:
    """The VAE of these settings.

    Raises:
        ValueError: If a setting asks for what ours cannot do.
    """
    factors = config.take("dim_mult", (1, 2, 4, 4))
    base, latent_channels = config.take("base_dim", 96), config.take("z_dim", 16)
    decoder_base = config.take("decoder_base_dim", None) or base
    halves = tuple(bool(in_time) for in_time in config.take("temperal_downsample", (0, 1, 1)))
    depth = config.take("num_res_blocks", 2)
    mean = tuple(config.take("latents_mean", MEAN))
    std = tuple(config.take("latents_std", STD))
    if len(mean) != latent_channels:
        raise ValueError(f"{config.where}: got {len(mean)} means, expected {latent_channels}")
    design, side = WanDesign(), 2 ** len(halves)
    if config.take("is_residual", False):
        design = WanResidualDesign(config.take("patch_size", None) or 1)
        config.expect(in_channels=3 * design.patch_size**2, out_channels=3 * design.patch_size**2)
    else:
        config.expect(in_channels=3, out_channels=3, patch_size=None)
    config.expect(
        attn_scales=[],
        dropout=0.0,
        scale_factor_temporal=2 ** sum(halves),
        scale_factor_spatial=side * design.patch_size,
    )
    # The public folder of 2.2 says that frames are not clipped; the reference does it all the same.
    config.take("clip_output", None)
    return CausalVAE(
        design,
        Standard(mean, std),
        latent_channels,
        tuple(base * factor for factor in factors),
        depth,
        depth + 1,
        halves,
        halves[::-1],
        tuple(decoder_base * factor for factor in factors),
    )


def write(vae: CausalVAE) -> dict[str, Any]:
    """The settings of a VAE.

    Raises:
        ValueError: If diffusers cannot have it.
    """
    arguments: Any = vae._init_args
    design, scale = vae.design, vae.scale
    assert isinstance(design, WanDesign)
    widths = list(arguments["widths"])
    wide, depth = list(arguments["decoder_widths"] or widths), arguments["encoder_depth"]
    halves = [bool(in_time) for in_time in arguments["halves_time"]]
    factors = [width // widths[0] for width in widths]
    if (
        not isinstance(scale, Standard)
        or arguments["decoder_depth"] != depth + 1
        or list(arguments["doubles_time"]) != halves[::-1]
        or any(
            [base * factor for factor in factors] != found
            for base, found in ((widths[0], widths), (wide[0], wide))
        )
    ):
        raise ValueError(
            "got a scale, depths, widths or an order of levels that diffusers' Wan VAE has not; "
            "expected means and deviations, one block more in the decoder, and levels in the "
            "decoder as in the encoder, the other way round"
        )
    is_residual = isinstance(design, WanResidualDesign)
    return {
        "base_dim": widths[0],
        "decoder_base_dim": wide[0] if wide != widths else None,
        "z_dim": vae.latent_channels,
        "dim_mult": factors,
        "num_res_blocks": depth,
        "attn_scales": [],
        "temperal_downsample": halves,
        "dropout": 0.0,
        "latents_mean": list(scale.mean),
        "latents_std": list(scale.std),
        "is_residual": is_residual,
        "in_channels": 3 * design.patch_size**2,
        "out_channels": 3 * design.patch_size**2,
        "patch_size": design.patch_size if is_residual else None,
        "scale_factor_temporal": vae.strides[0],
        "scale_factor_spatial": vae.strides[1],
    }


def entries(vae: CausalVAE) -> list[Entry]:
    """Where every weight lies."""
    found = []
    for key, value in vae.state_dict().items():
        if QKV[1] in key or QKV[2] in key:
            continue  # with the queries
        name = reworded(_levels(key, vae), RENAMES)
        if QKV[0] in key:
            parts = tuple(key.replace(QKV[0], part) for part in QKV)
            theirs = name.replace(QKV[0], "to_qkv.")
            found.append(Entry(theirs, parts, 2 if value.ndim == 2 else 0))
            continue
        num_unit_axes = 0
        if name.endswith("gamma"):
            num_unit_axes = 2 if ".attentions." in name else 3
        elif ".proj.weight" in name:
            num_unit_axes = 2
        found.append(Entry(name, (key,), num_unit_axes))
    return found


def _levels(key: str, vae: CausalVAE) -> str:
    """Names of levels, which the older encoder has none of: there all modules are in one list."""
    if not (found := re.match(r"(en|de)coder\.levels\.(\d+)\.(blocks\.(\d+)|resize)\.", key)):
        return key
    half, level, module, block = found[1], int(found[2]), found[3], found[4]
    rest = key[found.end() :]
    if module == "resize":
        rest = re.sub(r"^resize\.conv\.", "resample.1.", rest)
        rest = re.sub(r"^in_time\.", "time_conv.", rest)
    way = {"en": "down", "de": "up"}[half]
    if isinstance(vae.design, WanResidualDesign):
        inside = f"resnets.{block}" if block else f"{way}sampler"
    elif half == "de":
        inside = f"resnets.{block}" if block else "upsamplers.0"
    else:
        arguments: Any = vae._init_args
        depth = arguments["encoder_depth"]
        place = level * (depth + 1) + (int(block) if block else depth)
        return f"encoder.down_blocks.{place}.{rest}"
    return f"{half}coder.{way}_blocks.{level}.{inside}.{rest}"
