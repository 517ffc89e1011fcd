"""Causal VAEs of which nothing else is measured, beside their references."""

import tempfile

import torch

from tests.models.unet3d_oracles import reference
from tests.pretrained.test_diffusers_causal_vae import FRAMES, LATENT_FRAMES, TINY
from vdm.pretrained import load_autoencoder

B = 2
SYSTEMS = ("Wan 2.1 VAE", "Wan 2.2 VAE")
REFERENCE = "diffusers"


def pairs(system):
    """Moments and frames of clips of several lengths."""
    name = system.removesuffix(" VAE")
    cls, config = TINY[name]
    theirs = reference(cls, **config)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_autoencoder(folder)
    torch.manual_seed(1)
    found, (_, sh, sw) = [], ours.strides
    for num_frames in FRAMES[name]:
        video = 2 * torch.rand(B, 3, num_frames, 2 * sh, 3 * sw) - 1
        posterior = theirs.encode(video).latent_dist
        means, logvars = ours.encode_moments(video)
        found += [(means, posterior.mean), (logvars, posterior.logvar)]
    for num_frames in LATENT_FRAMES[name]:
        raw = torch.randn(B, ours.latent_channels, num_frames, 2, 3)
        found.append((ours.decode(ours.scale.normalize(raw)), theirs.decode(raw).sample))
    return {"autoencoder": found}
