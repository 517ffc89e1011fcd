"""A model with all parts, random weights and odd sizes; quick to build and to run."""

import torch

from vdm.autoencoder.vae import VideoVAE
from vdm.conditioning.text import WordTextEncoder
from vdm.diffusion.preconditioning import NoPreconditioning
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.targets import Velocity
from vdm.models.dit import VideoDiT
from vdm.pretrained.parts import Defaults, Envelope, Parts


def make_parts(**changes) -> Parts:
    """The same model on every call, up to the parts that are given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _make_parts(**changes)


def _make_parts(**changes) -> Parts:
    parts = Parts(
        "tiny",
        network=VideoDiT(3, dim=24, depth=2, num_heads=2, text_dim=8, pooled_dim=8),
        text_encoder=WordTextEncoder(8, 1, 2),
        autoencoder=VideoVAE(3, (6, 8), ((2, 2, 2),), (1, 1), (1, 1), patch_size=2),
        schedule=LinearPath(),
        target=Velocity(),
        preconditioning=NoPreconditioning(),
        defaults=Defaults(5, 8.0, 16, 24, steps=3, guidance_scale=2.0, sampler="euler"),
        envelope=Envelope((1, 7), (8.0, 8.0), (8, 16), (24, 32)),
    )
    for name, value in changes.items():
        setattr(parts, name, value)
    # Fresh networks predict zero: draw every parameter again, so that every input matters.
    draw = torch.Generator().manual_seed(0)
    for module in (parts.network, parts.text_encoder, parts.autoencoder):
        for parameter in module.parameters() if module is not None else ():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=draw)
    for module in parts.modules.values():
        module.eval().requires_grad_(False)
    return parts
