"""What the VAE of two stages promises by itself; what it computes is compared where it is read."""

import pytest
import torch

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.image_vae import ImageVAE
from vdm.autoencoder.latents import Factor, Standard
from vdm.autoencoder.opensora_vae import LatentTimeDesign, TwoStageVAE

B = 2


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    design = LatentTimeDesign(num_middle=1, num_groups=4)
    halves = (False, True, True)
    time = CausalVAE(design, Factor(1.0), 4, (8, 8, 16, 16), 1, 1, halves, halves[::-1])
    scale = Standard((0.1, -0.2, 0.3, 0.0), (2.0, 0.5, 1.5, 1.0))
    return TwoStageVAE(ImageVAE(4, (8, 8), 1, 4), time, scale).eval().requires_grad_(False)


def clip(num_frames):
    return 2 * torch.rand(B, 3, num_frames, 4, 6, generator=torch.Generator().manual_seed(1)) - 1


@pytest.mark.parametrize(("num_frames", "num_latents"), [(1, 1), (17, 5), (22, 7), (34, 10)])
def test_as_many_frames_come_back(vae, num_frames, num_latents):
    latents = vae.encode(clip(num_frames))
    assert latents.shape == (B, 4, num_latents, 2, 3)
    assert vae.decode(latents, num_frames=num_frames).shape == (B, 3, num_frames, 4, 6)
    assert vae.strides == (4, 2, 2)


def test_pieces_know_nothing_of_each_other(vae):
    video = clip(22)
    whole = vae.encode(video)
    apart = [vae.encode(video[:, :, :17]), vae.encode(video[:, :, 17:])]
    torch.testing.assert_close(torch.cat(apart, dim=2), whole)
    frames = [vae.decode(latents, count) for latents, count in zip(apart, (17, 5), strict=True)]
    torch.testing.assert_close(torch.cat(frames, dim=2), vae.decode(whole, 22))
    torch.testing.assert_close(vae.decode(whole, 22, decode_frames=3), vae.decode(whole, 22))


def test_latents_have_the_scale_that_it_says(vae):
    mean, _ = vae.encode_moments(clip(5))
    latents = vae.encode(clip(5))
    torch.testing.assert_close(latents[:, 1], (mean[:, 1] + 0.2) / 0.5)
    drawn = [vae.encode(clip(5), True, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_latents_of_other_clips_are_refused(vae):
    latents = vae.encode(clip(22))
    with pytest.raises(ValueError, match="got num_frames=17, which 5 latent frames stand for, and"):
        vae.decode(latents, num_frames=17)
    with pytest.raises(ValueError, match=r"expected \(b, 4, t, h, w\)"):
        vae.decode(latents[:, :3])
    assert vae.decode(latents).shape[2] == 17 + 8
    assert vae.reconstruct(clip(3)).shape[2] == 3
