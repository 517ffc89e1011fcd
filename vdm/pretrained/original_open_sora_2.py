"""Open-Sora 2.0 as its authors release it: a folder of a network and of what it is used with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.autoencoder.windowed_vae import WindowedVAE
from vdm.conditioning.given import GivenApart
from vdm.conditioning.t5_clip import T5ClipEncoder
from vdm.diffusion.preconditioning import NoPreconditioning
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.targets import Velocity
from vdm.models.dual_stream_presets import DualStreamSize, open_sora_2
from vdm.pretrained.diffusers_files import open_state
from vdm.pretrained.diffusers_folder import load_clip_text
from vdm.pretrained.diffusers_pipeline import complete
from vdm.pretrained.diffusers_scheduler import SamplingRules
from vdm.pretrained.loading import Reading
from vdm.pretrained.original_causal_vae import load_original_vae
from vdm.pretrained.original_network import load_original_network
from vdm.pretrained.parts import Defaults, Envelope, Parts
from vdm.pretrained.t5_folder import load_t5_text

NETWORK, VAE = "Open_Sora_v2.safetensors", "hunyuan_vae.safetensors"
T5, CLIP = "google/t5-v1_1-xxl", "openai/clip-vit-large-patch14"
"""Files and folders, as they are called where they are published."""
AXES = (2, 7, 7)
"""How the channels of a head are shared out between the axes (t, h, w), in sixteenths."""
RULES = SamplingRules(
    LinearPath(), Velocity(), NoPreconditioning(), "shifted_by_tokens", {}, "euler"
)
PUBLISHED = Defaults(129, 24.0, 192, 336, 50, 7.5, 3.0, prompt_suffix=" 24 FPS. 4 motion score.")
TRAINED = Envelope((1, 129), (24.0, 24.0), (144, 1184), (144, 1184))
"""Up to as many pixels as 768 x 768, upright or wide."""


def is_open_sora_2(path: Path) -> bool:
    """Whether a folder holds the release."""
    return (path / NETWORK).is_file()


def read_open_sora_2(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from its authors' folder.

    Prompts are told the frame rate and how much is to move, as there; they should end in a full
    stop, which is put there by its code.

    Args:
        folder: Holds ``Open_Sora_v2.safetensors``, ``hunyuan_vae.safetensors``,
            ``google/t5-v1_1-xxl`` and ``openai/clip-vit-large-patch14``.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged, of another model, or a key, a shape or a value is not as it
            has to be.

    Source:
        Peng et al. 2025, "Open-Sora 2.0", arXiv:2503.09642; the settings of its inference code.
        That decodes frames of more than 256 pixels in tiles; here they are decoded as a whole.
    """
    path = folder / NETWORK
    size = size_in(open_state(path), str(path))
    autoencoder = load_original_vae(folder / VAE, how)
    if not isinstance(autoencoder, WindowedVAE) or (
        autoencoder.latent_channels != size.in_channels
    ):
        raise ValueError(
            f"{folder / VAE}: got a VAE of {autoencoder.latent_channels} channels, expected that "
            f"of HunyuanVideo, of {size.in_channels}"
        )
    network = load_original_network(path, partial(open_sora_2, size), how, "open_sora_2")
    modules = {
        "network": network,
        "autoencoder": _at_once(autoencoder),
        "text_encoder": _load_texts(folder, how),
    }
    name, system = folder.resolve().name, "Open-Sora 2.0"
    parts = complete(name, modules, RULES, PUBLISHED, GivenApart(), system)
    parts.envelope = TRAINED
    return parts


def size_in(state: Mapping[str, Tensor], where: str) -> DualStreamSize:
    """How large a network is.

    Raises:
        ValueError: If what tells it is missing.
    """
    told = {
        "img_in.weight": 2,
        "cond_in.weight": 2,
        "txt_in.weight": 2,
        "vector_in.in_layer.weight": 2,
        "double_blocks.0.img_attn.norm.query_norm.scale": 1,
    }
    for key, rank in told.items():
        if key not in state or state[key].ndim != rank:
            raise ValueError(f"{where}: has no {key} of {rank} axes, expected Open-Sora 2.0")
    (dim, inputs), (_, given), (_, text), (_, pooled), (head,) = (state[key].shape for key in told)
    # Latents and a mask are given, as many times as there are latents in a patch.
    area = given - inputs
    side = math.isqrt(max(area, 0))
    if not area or side * side != area or inputs % area or dim % head:
        raise ValueError(
            f"{where}: got {inputs} numbers of a patch and {given} of a given one, expected e.g. "
            "64 and 68"
        )
    depths = [
        len({found[1] for key in state if (found := re.match(rf"{kind}_blocks\.(\d+)\.", key))})
        for kind in ("double", "single")
    ]
    t, h, w = (head * part // 16 for part in AXES)
    return DualStreamSize(
        dim // head,
        head,
        (depths[0], depths[1]),
        inputs // area,
        text,
        pooled,
        (t, h, w),
        (1, side, side),
    )


def _at_once(vae: WindowedVAE) -> WindowedVAE:
    """The same VAE, which takes a clip at once instead of in windows."""
    arguments: Any = vae._init_args  # type: ignore[attr-defined]
    with torch.device("meta"):
        whole = WindowedVAE(**arguments | {"design": replace(vae.design, window=None)})  # type: ignore[type-var]
    whole.load_state_dict(vae.state_dict(), assign=True)
    return whole.eval().requires_grad_(False)


def _load_texts(folder: Path, how: Reading) -> T5ClipEncoder:
    """Both encoders of text."""
    t5 = load_t5_text(folder / T5, folder / T5, 512, how=how)
    clip = load_clip_text(folder / CLIP, folder / CLIP, how=how)
    one: Any = t5._init_args
    other: Any = clip._init_args
    with torch.device("meta"):
        both = T5ClipEncoder(one["config"], one["tokenizer"], other["config"], other["tokenizer"])
    both.t5, both.clip = t5, clip
    return both.eval()
