"""How much memory a clip takes while it is decoded, besides its frames."""

import torch

from vdm.pipelines.plan import MemoryMeter


@torch.no_grad()
def memory_beside_frames(vae, num_latents):
    """Most bytes alive at once while so many latent frames are decoded, less those of the clip."""
    latents = torch.randn(1, vae.latent_channels, num_latents, 3, 5)
    with MemoryMeter([*vae.parameters(), *vae.buffers(), latents]) as meter:
        size = vae.decode(latents).nbytes
    return meter.peak - size
