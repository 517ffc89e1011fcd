"""Stable Video Diffusion in the single file of its authors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm.autoencoder.image_vae import ImageVAE
from vdm.conditioning.clip_image import ClipImageEncoder
from vdm.conditioning.picture import Picture
from vdm.models import unet3d_presets as presets
from vdm.pretrained.diffusers_pipeline import DEFAULTS, SVD, SYSTEMS, complete
from vdm.pretrained.diffusers_scheduler import rules_from_config
from vdm.pretrained.diffusers_unet_config import check_profile
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill
from vdm.pretrained.original_clip import open_clip_entries
from vdm.pretrained.original_unet import SVD_ORIGINAL, original_entries
from vdm.pretrained.original_vae import original_vae_entries
from vdm.pretrained.parts import Parts
from vdm.pretrained.tensor_files import Renamed, TensorFiles, part_of

UNET, VAE = "model.diffusion_model.", "first_stage_model."
IMAGE = "conditioner.embedders.0.open_clip.model.visual."
ENCODER = "conditioner.embedders.3.encoder."
"""The file's encoder for pictures, with the map to moments that the other one lacks."""

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "prediction_type": "v_prediction",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}


@dataclass(frozen=True)
class Sizes:
    """How large the parts are: those that were published where nothing is said.

    Args:
        unet: Of the network.
        vae: Arguments of the autoencoder.
        vision: Settings of the image encoder.
    """

    unet: presets.Size = presets.OPEN_CLIP
    vae: Mapping[str, Any] = field(default_factory=dict)
    vision: Mapping[str, Any] = field(default_factory=lambda: VIT_H)


def is_svd(keys: Mapping[str, Tensor]) -> bool:
    """Whether a file holds all of it: network, autoencoder, image encoder."""
    return all(any(key.startswith(part) for key in keys) for part in (UNET, VAE, IMAGE, ENCODER))


def read_svd(
    path: Path,
    files: TensorFiles,
    profile: str = "diffusers",
    sizes: Sizes | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """The model of a single file.

    Args:
        path: The file; one with ``xt`` in its name makes 25 frames, others 14.
        files: Its tensors.
        profile: Whose numerics, where references disagree.
        sizes: How large it is.
        how: How weights are read.

    Raises:
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    sizes = sizes or Sizes()
    with torch.device("meta"):
        network = presets.stable_video_diffusion(sizes.unet, check_profile(profile))
        autoencoder = ImageVAE(**{**sizes.vae, "is_temporal": True})
        image_encoder = ClipImageEncoder(dict(sizes.vision))
    if not how.is_plan:
        unet = part_of(files, UNET)
        _fill(network, unet, original_entries(network, SVD_ORIGINAL, unet), path, how)
        vae = _vae_of(files)
        _fill(autoencoder, vae, original_vae_entries(autoencoder, vae), path, how)
        tower = part_of(files, IMAGE)
        _fill(image_encoder, tower, open_clip_entries(image_encoder), path, how)
    num_frames = 25 if "xt" in path.stem else 14
    return complete(
        path.stem,
        {"network": network, "autoencoder": autoencoder, "image_encoder": image_encoder},
        rules_from_config(SCHEDULER),
        DEFAULTS[SVD],
        given=Picture(),
        system=SYSTEMS[SVD],
        num_frames=num_frames,
    )


def _vae_of(files: TensorFiles) -> Renamed:
    """The autoencoder's tensors, by names without the prefixes of the two places they lie in."""
    names = {key.removeprefix(VAE): key for key in files if key.startswith(VAE)}
    surplus = f"{ENCODER}decoder."
    names |= {
        key.removeprefix(ENCODER): key
        for key in files
        if key.startswith(ENCODER) and not key.startswith(surplus)
    }
    return Renamed(files, names)


def _fill(
    module: nn.Module,
    theirs: Mapping[str, Tensor],
    places: list[Entry],
    path: Path,
    how: Reading,
) -> None:
    fill(module, ForeignWeights(theirs, places, where=str(path)), str(path), how.dtype)
