"""VideoCrafter 1 and 2 in the single files of their authors: every part, and how to sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm.autoencoder.image_vae import ImageVAE
from vdm.conditioning.clip_text import ClipTextEncoder
from vdm.conditioning.picture import PictureTokens
from vdm.conditioning.resampler import PictureTokenEncoder, ResamplerSize
from vdm.diffusion.discrete_schedules import DDPMTable, betas_of
from vdm.diffusion.shifted_schedules import Faded
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d import UNet3D
from vdm.pretrained.diffusers_pipeline import complete
from vdm.pretrained.diffusers_scheduler import SamplingRules, rules_from_config
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill, name_some
from vdm.pretrained.original_clip import open_clip_entries, resampler_entries
from vdm.pretrained.original_network import KNOWN, UNET, recognize
from vdm.pretrained.original_svd import VIT_H
from vdm.pretrained.original_text import (
    VIT_H_PENULTIMATE,
    open_clip_surplus,
    open_clip_text_entries,
    open_clip_tokenizer,
)
from vdm.pretrained.original_unet import VIDEOCRAFTER_ORIGINAL, original_entries
from vdm.pretrained.original_vae import original_vae_entries
from vdm.pretrained.parts import Defaults, Parts

VAE, TEXT = "first_stage_model.", "cond_stage_model.model."
IMAGE, PROJECTION = "embedder.model.", "image_proj_model."
BETAS, FADE = "betas", "scale_arr"
COMPUTED = {
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
}
"""Tables that follow from the betas."""
NUM_FADING, NUM_STEPS = 400, 1000
FADE_LENGTHS = (NUM_STEPS, NUM_STEPS + NUM_FADING)
"""Entries of the fade; there are too many of its end where its authors did not count them."""

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Published:
    """One of the models.

    Args:
        system: What its certificate calls it.
        defaults: As in the script that its authors ship for it.
        is_faded: Whether its signal was faded in training.
        has_picture: Whether it is told of a picture.
    """

    system: str
    defaults: Defaults
    is_faded: bool = True
    has_picture: bool = False


PUBLISHED = {
    "videocrafter2": Published(
        "VideoCrafter2", Defaults(16, 10.0, 320, 512, 50, 12.0, told_fps=28.0)
    ),
    "videocrafter1_512": Published(
        "VideoCrafter1 text-to-video", Defaults(16, 10.0, 320, 512, 50, 12.0), is_faded=False
    ),
    "videocrafter1_1024": Published(
        "VideoCrafter1 text-to-video", Defaults(16, 10.0, 576, 1024, 50, 12.0, told_fps=28.0)
    ),
    "videocrafter1_image": Published(
        "VideoCrafter1 image-to-video",
        Defaults(16, 10.0, 320, 512, 50, 12.0, told_fps=8.0),
        has_picture=True,
    ),
}
TOLD_FPS = (8.0, 28.0)
"""Lowest and highest frame rate that the authors' scripts tell."""


@dataclass(frozen=True)
class Sizes:
    """How large the parts are: those that were published where nothing is said.

    Args:
        unet: Of the network.
        vae: Arguments of the autoencoder.
        text: Settings of the text encoder.
        vision: Settings of the image encoder.
        resampler: Of its tokens.
    """

    unet: presets.Size = presets.OPEN_CLIP
    vae: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=lambda: VIT_H_PENULTIMATE)
    vision: Mapping[str, Any] = field(default_factory=lambda: VIT_H)
    resampler: ResamplerSize = field(default_factory=ResamplerSize)


def is_videocrafter(keys: Iterable[str]) -> bool:
    """Whether a file holds a network of this kind, the autoencoder and the text encoder."""
    found = set(keys)
    parts = (f"{UNET}init_attn.", VAE, TEXT)
    return all(any(part in key for key in found) for part in parts)


def read_videocrafter(
    path: Path,
    state: Mapping[str, Tensor],
    sizes: Sizes | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """The model of a single file.

    Args:
        path: The file.
        state: Its tensors.
        sizes: How large it is.
        how: How weights are read.

    Raises:
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    sizes, where = sizes or Sizes(), str(path)
    # Of files that DeepSpeed wrote, every key begins with the name of a wrapper.
    prefix = next(key for key in state if UNET in key).split(UNET)[0]
    if odd := [key for key in state if not key.startswith(prefix)]:
        raise ValueError(f"{where}: holds {name_some(odd)}, expected {prefix} before every key")
    state = _Within(state, prefix)
    unet = _Within(state, UNET)
    kind = recognize(unet, where)
    if kind not in PUBLISHED:
        raise ValueError(f"{where}: got {kind}, expected one of {', '.join(PUBLISHED)}")
    published = PUBLISHED[kind]
    _check_keys(state, published, where)
    rules = _rules(state, published.is_faded, where)
    network = _network(KNOWN[kind].make, sizes.unet)  # type: ignore[arg-type]
    words = open_clip_tokenizer()
    with torch.device("meta"):
        autoencoder = ImageVAE(**sizes.vae)
        text_encoder = ClipTextEncoder(dict(sizes.text), words, pad_id=0)
    vae, text = _Within(state, VAE), _Within(state, TEXT)
    if not how.is_plan:
        _fill(network, unet, original_entries(network, VIDEOCRAFTER_ORIGINAL, unet), where, how)
        _fill(autoencoder, vae, original_vae_entries(autoencoder, vae), where, how)
        surplus = open_clip_surplus(list(text), int(sizes.text["num_hidden_layers"]))
        _fill(text_encoder, text, open_clip_text_entries(text_encoder), where, how, surplus)
    modules: dict[str, nn.Module] = {
        "network": network,
        "autoencoder": autoencoder,
        "text_encoder": text_encoder,
    }
    if published.has_picture:
        modules["image_encoder"] = _image_encoder(state, sizes, where, how)
    parts = complete(
        kind if path.stem == "model" else path.stem,  # as they call every file
        modules,
        rules,
        published.defaults,
        given=PictureTokens() if published.has_picture else None,
        system=published.system,
    )
    if published.defaults.told_fps is not None:
        parts.envelope = replace(parts.envelope, fps=TOLD_FPS)
    return parts


class _Within(Mapping[str, Tensor]):
    """The tensors of one part, still where they lie, by names without its prefix."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str) -> None:
        self.state, self.prefix = state, prefix
        self.names = [key[len(prefix) :] for key in state if key.startswith(prefix)]

    def __getitem__(self, key: str) -> Tensor:
        return self.state[self.prefix + key]

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _network(make: Callable[..., UNet3D], size: presets.Size) -> UNet3D:
    with torch.device("meta"):
        return make(size)


def _image_encoder(
    state: Mapping[str, Tensor], sizes: Sizes, where: str, how: Reading
) -> nn.Module:
    """The tower, of which nothing is left out, and what makes tokens of its states."""
    with torch.device("meta"):
        encoder = PictureTokenEncoder(dict(sizes.vision), sizes.resampler)
    tower, tokens = _Within(state, f"{IMAGE}visual."), _Within(state, PROJECTION)
    if not how.is_plan:
        _fill(encoder.tower, tower, open_clip_entries(encoder.tower), where, how)
        _fill(encoder.resampler, tokens, resampler_entries(encoder.resampler), where, how)
    return encoder.eval()


def _fill(
    module: nn.Module,
    theirs: Mapping[str, Tensor],
    places: list[Entry],
    where: str,
    how: Reading,
    surplus: Iterable[str] = (),
) -> None:
    fill(module, ForeignWeights(theirs, places, surplus, where), where, how.dtype)


OTHER_TOWER = ("token_embedding.", "positional_embedding", "ln_final.", "text_projection")
"""What is left of the text tower beside the image tower, which nothing reads."""


def _check_keys(state: Mapping[str, Tensor], published: Published, where: str) -> None:
    """Refuse keys that belong to no part.

    Raises:
        ValueError: If there are any.
    """
    parts = [UNET, VAE, TEXT]
    known = COMPUTED | {BETAS} | ({FADE} if published.is_faded else set())
    if published.has_picture:
        parts += [f"{IMAGE}visual.", PROJECTION, *(IMAGE + name for name in OTHER_TOWER)]
        known |= {f"{IMAGE}logit_scale", f"{IMAGE}attn_mask"}
    surplus = [key for key in state if key not in known and not key.startswith(tuple(parts))]
    if surplus:
        raise ValueError(f"{where}: holds {name_some(surplus)}, for which there is no place")


def _rules(state: Mapping[str, Tensor], is_faded: bool, where: str) -> SamplingRules:
    """How the authors sample, on the schedule whose tables are in the file.

    Raises:
        ValueError: If the tables are others than the published ones.
    """
    rules = rules_from_config(SCHEDULER)
    table: DDPMTable = rules.schedule
    betas = betas_of(table).float()
    if BETAS in state and not _is_close(state[BETAS], betas):
        raise ValueError(
            f"{where}: {BETAS} are not those from {table.beta_start} to {table.beta_end}"
        )
    schedule = Faded(table, _fade_end(state, where), NUM_FADING / NUM_STEPS) if is_faded else table
    return replace(rules, schedule=schedule, sampler="ddim_ancestral")


def _fade_end(state: Mapping[str, Tensor], where: str) -> float:
    """Where the fade ends, which differs between files."""
    if FADE not in state:
        raise ValueError(f"{where}: misses {FADE}, the fade that the network was trained with")
    found = state[FADE].float()
    if found.ndim != 1 or len(found) not in FADE_LENGTHS:
        raise ValueError(
            f"{where}: {FADE} has shape {tuple(found.shape)}, expected {FADE_LENGTHS[0]} or "
            f"{FADE_LENGTHS[1]} numbers"
        )
    end = round(float(found[-1]), 3)  # of a number with few digits, whatever it is stored in
    published = torch.cat([torch.linspace(1, end, NUM_FADING), torch.full_like(found, end)])
    if not _is_close(found, published[: len(found)]):
        raise ValueError(f"{where}: {FADE} is no fade from 1 to {end:g} over {NUM_FADING} entries")
    return end


def _is_close(found: Tensor, expected: Tensor) -> bool:
    """Whether a table is the expected one, as well as half precision can tell."""
    return found.shape == expected.shape and torch.allclose(found.float(), expected, rtol=2e-3)
