"""How close Wan's systems are to their references, part by part and as a whole."""

import torch

from tests.pretrained.parity_common import B, load_saved
from tests.pretrained.tiny_wan import (
    CHANNELS,
    IMAGE_DIM,
    NUM_IMAGE,
    PIPELINES,
    moving,
    our_frames,
    pictures_for,
    size_of,
    their_frames,
)
from vdm.types import Conditioning

STEPS = 3
REFERENCE = "diffusers"
SYSTEMS = PIPELINES
LEVELS = [950.0, 137.0]
"""Of the first sample and the second: of two networks, each reads one."""


def pairs(system):
    """What both make, part by part.

    Args:
        system: One of ``SYSTEMS``.
    """
    theirs = SYSTEMS[system]()
    ours = load_saved(theirs)
    return {
        "network": [_network(ours, theirs, (6, 10))],
        "autoencoder": [_encoder(ours, theirs), _decoder(ours, theirs)],
        "frames": [_frames(system, ours, theirs)],
    }


def _network(ours, theirs, size):
    shape = (B, CHANNELS, 3, *size)
    x, text = torch.randn(shape), torch.randn(B, 512, 14)
    told, seen, image = {"text": text}, x, None
    settings = theirs.transformer.config
    if settings.in_channels != CHANNELS:
        told |= {"given": torch.randn(shape), "given_mask": torch.randn(B, 4, *shape[2:])}
        seen = torch.cat((x, told["given_mask"], told["given"]), dim=1)
    if settings.image_dim is not None:
        count = 1 if settings.pos_embed_seq_len is None else 2
        told["image"] = torch.randn(B, count * NUM_IMAGE, IMAGE_DIM)
        image = told["image"].reshape(count * B, NUM_IMAGE, IMAGE_DIM)
    levels = torch.tensor(LEVELS)
    networks = [theirs.transformer, theirs.transformer_2 or theirs.transformer]
    expected = [
        network(seen, levels, text, image).sample[row : row + 1]
        for row, network in enumerate(networks)
    ]
    return ours.network(x, levels, Conditioning(**told)), torch.cat(expected)


def _encoder(ours, theirs):
    _, sh, sw = ours.autoencoder.strides
    video = 2 * torch.rand(B, 3, 5, 2 * sh, 3 * sw) - 1
    return ours.autoencoder.encode_moments(video)[0], theirs.vae.encode(video).latent_dist.mean


def _decoder(ours, theirs):
    raw = torch.randn(B, CHANNELS, 2, 2, 3)
    normal = ours.autoencoder.scale.normalize(raw)
    return ours.autoencoder.decode(normal), theirs.vae.decode(raw).sample


def _frames(system, ours, theirs):
    """Of whole clips, guidance on, from the same seeds; where there is a choice, from a picture."""
    size, asked = size_of(system), {"num_frames": 5, "guidance_scale": 3.0}
    asked |= pictures_for(system)
    if system == "Wan2.2-TI2V-5B":
        theirs = moving(theirs)
        asked |= pictures_for("an -I2V")
    if "A14B" in system:
        asked["guidance_scale_2"] = 2.0
    expected = their_frames(theirs, size, num_inference_steps=STEPS, **asked)
    return our_frames(ours, size, steps=STEPS, **asked), expected
