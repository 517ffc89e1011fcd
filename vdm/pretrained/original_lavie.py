"""LaVie as its authors release it: a file for each network, beside the image model it came from.

A file holds a network alone. Autoencoder, text encoder and tokenizer are those of the image model,
whose folder lies beside the file, in diffusers' layout; its settings say how large the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from vdm.conditioning.given import Repeated, Showing
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import DiscreteTimesteps
from vdm.diffusion.targets import Eps
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d import UNet3D
from vdm.pretrained.diffusers_files import CONFIG, read_config
from vdm.pretrained.diffusers_folder import load_clip_text, load_vae
from vdm.pretrained.diffusers_pipeline import complete
from vdm.pretrained.diffusers_scheduler import SamplingRules, rules_from_config
from vdm.pretrained.diffusers_unet_config import image_size
from vdm.pretrained.original_network import build_network, open_network
from vdm.pretrained.parts import Defaults, Parts, hash_module

IMAGE_MODEL = "stable-diffusion-v1-4"
"""Folder of the image model, as the authors call it."""

RELEASE = {"lavie_base.pt": ("keyframes", 1), "lavie_interpolation.pt": ("interpolate", 4)}
"""Files of a release, and their stages in a cascade: kind and factor."""

BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
ANCESTRAL = {"_class_name": "DDPMScheduler", **BETAS, "clip_sample": False, "steps_offset": 1}
RESPACED = SamplingRules(
    DDPMTable("linear", BETAS["beta_start"], BETAS["beta_end"]),  # type: ignore[arg-type]
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
        make: Builds the network.
        rules: How its output becomes a sample.
        defaults: Its settings, those of sampling aside.
        given: How it sees given latents.
        fps: Lowest and highest frame rate that it is shown at.
    """

    system: str
    make: Callable[[presets.Size], UNet3D]
    rules: SamplingRules
    defaults: Defaults
    given: Showing | None
    fps: tuple[float, float]


MODELS = {
    # Its own clips have 8 frames a second; those that interpolation goes between, 6.
    "lavie": Model(
        "LaVie",
        presets.lavie,
        rules_from_config(ANCESTRAL),
        Defaults(16, 8.0, 320, 512, 50, 7.0),
        None,
        (6.0, 8.0),
    ),
    "lavie_interpolation": Model(
        "LaVie interpolation",
        presets.lavie_interpolation,
        RESPACED,
        Defaults(61, 24.0, 320, 512, 50, 4.0, negative_prompt="None", prompt_suffix=", 4k."),
        Showing(Repeated()),
        (24.0, 24.0),
    ),
}


def is_release(folder: Path) -> bool:
    """Whether a folder holds LaVie's base model, under the name that it is released with."""
    return (folder / next(iter(RELEASE))).is_file()


def stages_of(folder: Path) -> list[tuple[str, str, int]]:
    """Kind, file and factor of every stage that a folder holds the network of."""
    found = [(kind, name, factor) for name, (kind, factor) in RELEASE.items()]
    return [stage for stage in found if (folder / stage[1]).is_file()]


def read_lavie(path: Path) -> Parts:
    """A model from the file of its network and the folder beside it.

    Args:
        path: ``lavie_base.pt`` or ``lavie_interpolation.pt``, under any name; which it is, is seen
            by its keys.

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
    model, folder = MODELS[kind], path.parent / IMAGE_MODEL
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{path}: holds a network alone, expected Stable Diffusion 1.4 (unet/config.json, vae, "
            f"text_encoder, tokenizer) beside it as {IMAGE_MODEL}"
        )
    size = image_size(read_config(folder / "unet"), str(folder / "unet" / CONFIG))
    modules: dict[str, nn.Module] = {
        "network": build_network(theirs, kind, path, lambda: model.make(size)),
        "autoencoder": load_vae(folder / "vae"),
        "text_encoder": load_clip_text(folder / "text_encoder", folder / "tokenizer"),
    }
    parts = complete(
        path.stem, modules, model.rules, model.defaults, given=model.given, system=model.system
    )
    parts.envelope = replace(parts.envelope, fps=model.fps)
    shared = ("autoencoder", "text_encoder")  # by the stages of a cascade
    parts.hashes = {name: hash_module(modules[name]) for name in shared}
    return parts
