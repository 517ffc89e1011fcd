"""What the comparisons of several families share."""

import tempfile
import warnings
from pathlib import Path

import torch
from einops import rearrange

import vdm

B = 2
TO_FRAMES = "b c t h w -> (b t) c h w"


def load_saved(theirs):
    """A model of the reference, as it is loaded here from its folder; then draws are anew."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(Path(folder) / "model")
        ours = vdm.load(Path(folder) / "model")
    torch.manual_seed(1)
    return ours


def image_vae_pairs(ours, theirs, num_frames=3):
    """What an image VAE encodes and decodes; that of a video model knows of its frames.

    Args:
        ours: A model with an autoencoder.
        theirs: One of the reference, with its ``vae``.
        num_frames: Frames per clip.
    """
    side = ours.autoencoder.strides[1]
    video = 2 * torch.rand(B, 3, num_frames, 5 * side, 6 * side) - 1
    latents = theirs.vae.encode(rearrange(video, TO_FRAMES)).latent_dist.mean
    raw = torch.randn(B, 4, num_frames, 5, 6)
    more = {"num_frames": num_frames} if ours.autoencoder.is_temporal else {}
    decoded = theirs.vae.decode(rearrange(raw, TO_FRAMES), **more).sample
    return [
        (rearrange(ours.autoencoder.encode_moments(video)[0], TO_FRAMES), latents),
        (rearrange(ours.autoencoder.decode_raw(raw), TO_FRAMES), decoded),
    ]


def quietly(generate, *arguments, **settings):
    """Ours, without the warning that it was not trained on such small clips."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return generate(*arguments, progress=False, **settings)
