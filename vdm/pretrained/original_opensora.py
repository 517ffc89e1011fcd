"""Open-Sora as its authors release it: a network, beside the models that it is used with.

Texts lose their capitals, as there; what its authors clean captions of the web from besides, such
as addresses and brackets, stays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from vdm.conditioning.given import InPlace
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.preconditioning import DiscreteTimesteps, NoPreconditioning
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.targets import Eps, ReversedVelocity
from vdm.pretrained.diffusers_folder import load_vae
from vdm.pretrained.diffusers_pipeline import complete
from vdm.pretrained.diffusers_scheduler import SamplingRules
from vdm.pretrained.loading import Reading
from vdm.pretrained.original_opensora_vae import load_opensora_vae
from vdm.pretrained.original_stdit import load_stdit, load_stdit3
from vdm.pretrained.parts import Defaults, Envelope, Parts
from vdm.pretrained.t5_folder import load_t5_text

IMAGE_VAE, VIDEO_VAE, TEXT = "sd-vae-ft-ema", "OpenSora-VAE-v1.2", "t5-v1_1-xxl"
"""Folders of the other models, as they are called where they are published."""
HUB = {VIDEO_VAE: "hpcai-tech/OpenSora-VAE-v1.2", TEXT: "DeepFloyd/t5-v1_1-xxl"}
"""Names on the hub of what version 1.2 is used with."""
RESPACED = SamplingRules(
    DDPMTable("linear", 0.0001, 0.02),
    Eps(),
    DiscreteTimesteps(),
    "linspace",
    {"num_timesteps": 1000},
    "learned_range",
)
"""Of improved diffusion: the grid holds both ends of the table."""
RECTIFIED = SamplingRules(
    LinearPath(), ReversedVelocity(), NoPreconditioning(), "shifted_by_size", {}, "euler"
)
TWO = Defaults(51, 24.0, 240, 424, 30, 7.0, prompt_suffix=" aesthetic score: 6.5.")
TRAINED = Envelope((1, 408), (24.0, 24.0), (144, 1280), (144, 1280))
"""From pictures to 16 seconds, and from 144p to 720p, upright or wide."""


def read_opensora_1(
    path: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """Open-Sora 1.0 from the file of its network and the folders beside it.

    Args:
        path: ``OpenSora-v1-16x256x256.pth`` or one of its relatives, under any name.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a folder is not there.
        ValueError: If the file is damaged or of another network, or a key, a shape or a value is
            not as it has to be.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404; the settings of its inference code.
    """
    network, (num_frames, latents) = load_stdit(path, how)
    words = network.null_text
    assert words is not None
    text, autoencoder = _beside(path, TEXT), load_vae(_beside(path, IMAGE_VAE), how)
    modules: dict[str, nn.Module] = {
        "network": network,
        "autoencoder": autoencoder,
        "text_encoder": load_t5_text(text, text, len(words), "masked_alike", True, how=how),
    }
    side = latents * autoencoder.strides[1]
    published = Defaults(num_frames, 8.0, side, side, 100, 7.0, guided_channels=3)
    return complete(path.stem, modules, RESPACED, published, system="Open-Sora 1.0")


def read_opensora_2(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    find: Callable[[str], Path] | None = None,
) -> Parts:
    """Open-Sora 1.2 from the folder of its network and the folders beside it.

    Args:
        folder: ``OpenSora-STDiT-v3``, under any name.
        how: How weights are read.
        find: Where the folders of the other models are; beside it if None.

    Raises:
        FileNotFoundError: If a file or a folder is not there.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.

    Source:
        Zheng et al. 2024, "Open-Sora", arXiv:2412.20404; the settings of its inference code. That
        tells the network of a width of 426 pixels, of which 424 come out; here both are 424.
    """
    network, path = load_stdit3(folder, how), folder.resolve()
    words, find = network.null_text, find or partial(_beside, path)
    assert words is not None
    text = find(TEXT)
    modules: dict[str, nn.Module] = {
        "network": network,
        "autoencoder": load_opensora_vae(find(VIDEO_VAE), how),
        "text_encoder": load_t5_text(text, text, len(words), "masked_alike", True, how=how),
    }
    parts = complete(path.name, modules, RECTIFIED, TWO, InPlace(), "Open-Sora 1.2")
    parts.envelope = TRAINED
    return parts


def _beside(path: Path, name: str) -> Path:
    """A folder beside the network.

    Raises:
        FileNotFoundError: If it is not there.
    """
    folder = path.parent / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{path}: holds a network alone, expected the models that it is used with beside it, "
            f"of which {name} is missing"
        )
    return folder
