"""ModelScope text-to-video in the files of its authors: three of weights, one of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.autoencoder.image_vae import ImageVAE
from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained.diffusers_files import open_state, read_config
from vdm.pretrained.diffusers_pipeline import DEFAULTS, MODELSCOPE, SYSTEMS, complete
from vdm.pretrained.diffusers_scheduler import rules_from_config
from vdm.pretrained.diffusers_settings import ForeignConfig
from vdm.pretrained.keymap import ForeignWeights
from vdm.pretrained.loading import Reading, fill
from vdm.pretrained.original_network import load_original_network
from vdm.pretrained.original_text import (
    open_clip_sizes,
    open_clip_surplus,
    open_clip_text_entries,
    open_clip_tokenizer,
)
from vdm.pretrained.original_vae import original_vae_entries, original_vae_sizes
from vdm.pretrained.parts import Parts
from vdm.pretrained.tensor_files import Renamed, part_of

CONFIGURATION = "configuration.json"
KIND = "latent-text-to-video-synthesis"
FILES = {
    "ckpt_unet": "text2video_pytorch_model.pth",
    "ckpt_autoencoder": "VQGAN_autoencoder.ckpt",
    "ckpt_clip": "open_clip_pytorch_model.bin",
}
"""How the files are called, where the settings do not say it."""
VAE, IMAGES, LOSS = "first_stage_model.", "visual.", "loss."
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def is_modelscope(folder: Path) -> bool:
    """Whether a folder holds the settings of a model of ModelScope."""
    return (folder / CONFIGURATION).is_file()


def read_modelscope(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """The model of a folder.

    Args:
        folder: Holds ``configuration.json`` and the files that it names.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is another kind of model, or a setting, a key, a shape or a value is not
            as it has to be.

    Source:
        Wang et al. 2023, "ModelScope Text-to-Video Technical Report", arXiv:2308.06571.
    """
    where = str(folder / CONFIGURATION)
    model = _section(read_config(folder, CONFIGURATION), "model", where)
    if (kind := model.get("type")) != KIND:
        raise ValueError(f"{where}: got a model of type {kind!r}, expected {KIND!r}")
    arguments = _section(model, "model_args", where)
    size = _size(_section(model, "model_cfg", where), where)
    place = {key: folder / Path(str(arguments.get(key, FILES[key]))).name for key in FILES}
    modules = {
        "network": load_original_network(
            place["ckpt_unet"], lambda: presets.modelscope(size), how, "modelscope"
        ),
        "autoencoder": _read_vae(place["ckpt_autoencoder"], how),
        "text_encoder": _read_text(place["ckpt_clip"], how),
    }
    return complete(
        folder.resolve().name,
        modules,
        rules_from_config(SCHEDULER),
        DEFAULTS[MODELSCOPE],
        system=SYSTEMS[MODELSCOPE],
        num_frames=arguments.get("max_frames", DEFAULTS[MODELSCOPE].num_frames),
    )


def _section(data: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    found = data.get(name)
    if not isinstance(found, dict):
        raise ValueError(f"{where}: has no section {name!r}")
    return found


def _size(data: Mapping[str, Any], where: str) -> presets.Size:
    """The network's size, from settings of which each is read or must be the usual."""
    config = ForeignConfig(data, where)
    mults = config.take("unet_dim_mult", [1, 2, 4, 4])
    scales = config.take("unet_attn_scales", [1, 0.5, 0.25])
    size = presets.Size(
        heads=Heads(dim=config.take("unet_head_dim", 64)),
        context_dim=config.take("unet_context_dim", 1024),
        widths=[config.take("unet_dim", 320) * mult for mult in mults],
        depth=config.take("unet_res_blocks", 2),
        attention=[*(int(0.5**level in scales) for level in range(len(mults))), 1],
    )
    config.expect(unet_in_dim=4, unet_out_dim=4, unet_num_heads=8, num_timesteps=1000)
    config.expect(mean_type="eps")
    if str(config.take("temporal_attention", "True")) != "True":
        config.expect(temporal_attention="True")
    for name in ("unet_y_dim", "unet_dropout", "var_type", "loss_type"):
        config.take(name, None)  # of training, or of what no sampler uses
    config.close()
    return size


def _read_vae(path: Path, how: Reading) -> ImageVAE:
    """The autoencoder out of a file of its own, or of a whole image model, which this one is."""
    state = _open(path, how)
    theirs = part_of(state, VAE) or Renamed(
        state, {key: key for key in state if not key.startswith(LOSS)}
    )
    with torch.device("meta"):
        vae = ImageVAE(**original_vae_sizes(theirs, str(path)) if theirs else {})
    if not how.is_plan:
        read = ForeignWeights(theirs, original_vae_entries(vae, theirs), where=str(path))
        fill(vae, read, str(path), how.dtype)
    return vae.eval()


def _read_text(path: Path, how: Reading) -> ClipTextEncoder:
    """The text tower but its last layer, which the network does not read."""
    state = _open(path, how)
    theirs = Renamed(state, {key: key for key in state if not key.startswith(IMAGES)})
    config = open_clip_sizes(theirs, str(path))
    words = open_clip_tokenizer(config["max_position_embeddings"])
    with torch.device("meta"):
        encoder = ClipTextEncoder(config, words, pad_id=0)
    if not how.is_plan:
        surplus = open_clip_surplus(list(theirs), config["num_hidden_layers"])
        places = open_clip_text_entries(encoder)
        fill(encoder, ForeignWeights(theirs, places, surplus, str(path)), str(path), how.dtype)
    return encoder.eval()


def _open(path: Path, how: Reading) -> Mapping[str, Tensor]:
    """The tensors of a file; none where it is not there and is not needed."""
    return {} if how.is_plan and not path.is_file() else open_state(path)
