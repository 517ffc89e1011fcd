"""LaVie as its authors release it: a file for each network, beside the image model it came from.

A file holds a network alone. Autoencoder, text encoder and tokenizer are those of the image model,
whose folder lies beside the file, in diffusers' layout; its settings say how large the network is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vdm.conditioning.given import Repeated, Showing
from vdm.conditioning.smaller import SmallerClip
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import DiscreteTimesteps
from vdm.diffusion.targets import Eps
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d import UNet3D
from vdm.pretrained.diffusers_files import CONFIG, read_config
from vdm.pretrained.diffusers_folder import load_clip_text, load_vae
from vdm.pretrained.diffusers_pipeline import complete
from vdm.pretrained.diffusers_scheduler import (
    SCHEDULER_CONFIG,
    SamplingRules,
    rules_from_config,
)
from vdm.pretrained.diffusers_unet_config import image_size, upscaler_size
from vdm.pretrained.loading import Reading
from vdm.pretrained.original_network import build_network, open_network
from vdm.pretrained.parts import Defaults, Envelope, Parts, hash_module

RELEASE = {
    "lavie_base.pt": ("keyframes", 1),
    "lavie_interpolation.pt": ("interpolate", 4),
    "lavie_vsr.pt": ("upscale", 4),
}
"""Files of a release, and their stages in a cascade: kind and factor."""

BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
ANCESTRAL = {"_class_name": "DDPMScheduler", **BETAS, "clip_sample": False, "steps_offset": 1}
RESPACED = SamplingRules(
    DDPMTable("linear", 0.0001, 0.02),
    Eps(),
    DiscreteTimesteps(),
    "linspace",
    {"num_timesteps": 1000},
    "ddim",
)
"""Of guided diffusion: each step goes to the next time of the grid, which holds both ends."""


@dataclass(frozen=True)
class Model:
    """One of the networks, and what it was published with.

    Args:
        system: What its certificate calls it.
        image_model: Folder of the image model, as the authors call it.
        size: Reads how large the network is from settings of the image model's.
        make: Builds the network.
        rules: How its output becomes a sample, given the image model's folder.
        given: How it sees what it is given, likewise.
        defaults: Its settings, those of sampling aside.
        envelope: What it was trained on.
    """

    system: str
    image_model: str
    size: Callable[[Mapping[str, Any], str], presets.Size]
    make: Callable[[presets.Size], UNet3D]
    rules: Callable[[Path], SamplingRules]
    given: Callable[[Path], Any]
    defaults: Defaults
    envelope: Envelope


def _smaller_clip(folder: Path) -> SmallerClip:
    """The clip to enlarge has the noise of the image model's table, as if that did not clip."""
    data, where = _scheduler(folder, "low_res_scheduler")
    return SmallerClip(rules_from_config(data | {"clip_sample": False}, where).schedule)


def _upscaling(folder: Path) -> SamplingRules:
    """The image model's, but for its betas, which are linear."""
    data, where = _scheduler(folder, "scheduler")
    return rules_from_config(data | {"beta_schedule": "linear"}, where)


def _scheduler(folder: Path, name: str) -> tuple[dict[str, Any], str]:
    return read_config(folder / name, SCHEDULER_CONFIG), str(folder / name / SCHEDULER_CONFIG)


MODELS = {
    "lavie": Model(
        "LaVie",
        "stable-diffusion-v1-4",
        image_size,
        presets.lavie,
        lambda _: rules_from_config(ANCESTRAL),
        lambda _: None,
        Defaults(16, 8.0, 320, 512, 50, 7.0),
        # Its own clips have 8 frames a second; those that interpolation goes between, 6.
        Envelope((16, 16), (6.0, 8.0), (320, 320), (512, 512)),
    ),
    "lavie_interpolation": Model(
        "LaVie interpolation",
        "stable-diffusion-v1-4",
        image_size,
        presets.lavie_interpolation,
        lambda _: RESPACED,
        lambda _: Showing(Repeated()),
        Defaults(61, 24.0, 320, 512, 50, 4.0, negative_prompt="None", prompt_suffix=", 4k."),
        Envelope((61, 61), (24.0, 24.0), (320, 320), (512, 512)),
    ),
    "lavie_upscale": Model(
        "LaVie super-resolution",
        "stable-diffusion-x4-upscaler",
        upscaler_size,
        presets.lavie_upscale,
        _upscaling,
        _smaller_clip,
        Defaults(16, 8.0, 1280, 2048, 50, 5.0, negative_prompt="blur, worst quality"),
        Envelope((1, 8), (8.0, 24.0), (1280, 1280), (2048, 2048)),
    ),
}


def is_release(folder: Path) -> bool:
    """Whether a folder holds LaVie's base model, under the name that it is released with."""
    return (folder / next(iter(RELEASE))).is_file()


def stages_of(folder: Path) -> list[tuple[str, str, int]]:
    """Kind, file and factor of every stage that a folder holds the network of."""
    found = [(kind, name, factor) for name, (kind, factor) in RELEASE.items()]
    return [stage for stage in found if (folder / stage[1]).is_file()]


def read_lavie(
    path: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from the file of its network and the folder beside it.

    Args:
        path: ``lavie_base.pt``, ``lavie_interpolation.pt`` or ``lavie_vsr.pt``, under any name;
            which it is, is seen by its keys.
        how: How weights are read.

    Raises:
        FileNotFoundError: If the image model is not there.
        ValueError: If the file is damaged or of another network, or a key, a shape or a value is
            not as it has to be.

    Source:
        Wang et al. 2023, "LaVie", arXiv:2309.15103; the settings of its inference code.
    """
    theirs, kind = open_network(path)
    if kind not in MODELS:
        raise ValueError(f"{path}: got the network of {kind}, expected one of {', '.join(MODELS)}")
    model = MODELS[kind]
    folder = path.parent / model.image_model
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{path}: holds a network alone, expected the image model that it came from beside it, "
            f"in diffusers' layout, as {model.image_model}"
        )
    size = model.size(read_config(folder / "unet"), str(folder / "unet" / CONFIG))
    modules: dict[str, nn.Module] = {
        "network": build_network(theirs, kind, path, lambda: model.make(size), how),
        "autoencoder": load_vae(folder / "vae", how),
        "text_encoder": load_clip_text(folder / "text_encoder", folder / "tokenizer", how=how),
    }
    rules, given = model.rules(folder), model.given(folder)
    parts = complete(path.stem, modules, rules, model.defaults, given=given, system=model.system)
    parts.envelope = model.envelope
    shared = ("autoencoder", "text_encoder")  # by the stages of a cascade
    if not how.is_plan:
        parts.hashes = {name: hash_module(modules[name]) for name in shared}
    return parts
