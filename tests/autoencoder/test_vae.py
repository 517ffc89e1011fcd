"""The causal VAE: chunks, tiles, causality, sizes."""

import pytest
import torch

from vdm.autoencoder.latents import LatentNormalizer, LatentStatistics
from vdm.autoencoder.vae import VideoVAE
from vdm.layers.conv import StreamState
from vdm.utils.config import build, describe


@pytest.fixture(scope="module")
def vae():
    """A small VAE with every parameter random: zero-initialised layers would hide mistakes."""
    torch.manual_seed(0)
    vae = VideoVAE(3, (8, 12, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 2, 1), patch_size=2)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    vae.latents.set(torch.tensor([0.3, -0.2, 0.1]), torch.tensor([0.5, 1.5, 2.0]))
    return vae.eval().requires_grad_(False)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 7, 13, 16])
def test_any_number_of_frames_goes_in_and_comes_out(vae, num_frames):
    video = torch.rand(2, 3, num_frames, 8, 12) * 2 - 1
    latents = vae.encode(video)
    assert latents.shape == (2, 3, 1 + -(-(num_frames - 1) // 4), 2, 3)
    assert vae.reconstruct(video).shape == video.shape


def test_decode_in_chunks_of_any_size_equals_decode_at_once_bit_for_bit(vae):
    latents = torch.randn(2, 3, 7, 3, 5)
    whole = vae.decode(latents)
    for decode_frames in range(1, 8):
        assert torch.equal(vae.decode(latents, decode_frames=decode_frames), whole)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        cuts = torch.randint(1, 4, (7,), generator=generator).tolist()
        sizes = [size for k, size in enumerate(cuts) if sum(cuts[:k]) < 7]
        sizes[-1] -= sum(sizes) - 7
        state = StreamState()
        parts = [vae.decode_next(chunk, state) for chunk in latents.split(sizes, dim=2)]
        assert torch.equal(torch.cat(parts, dim=2), whole)
    assert torch.equal(torch.cat(list(vae.decode_stream(latents)), dim=2), whole)


def test_folds_over_latent_frames_equal_the_pass_that_is_trained(vae):
    video = torch.rand(2, 3, 14, 8, 12) * 2 - 1
    mean, _ = vae.encode_moments(video)
    latents = vae.encode(video)
    torch.testing.assert_close(latents, vae.latents.normalize(mean), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        vae.decode(latents, 14), vae.decode_raw(mean, 14), atol=1e-4, rtol=1e-4
    )


def test_first_latents_do_not_depend_on_later_frames(vae):
    video = torch.rand(2, 3, 13, 8, 12) * 2 - 1
    latents = vae.encode(video)
    for k in range(3):
        other = video.clone()
        other[:, :, 1 + 4 * k :] = torch.rand_like(other[:, :, 1 + 4 * k :])
        assert torch.equal(vae.encode(other)[:, :, : k + 1], latents[:, :, : k + 1])
        assert not torch.equal(vae.encode(other)[:, :, k + 1 :], latents[:, :, k + 1 :])


def test_first_latent_is_the_latent_of_the_first_frame_alone(vae):
    video = torch.rand(2, 3, 9, 8, 12) * 2 - 1
    assert torch.equal(vae.encode(video[:, :, :1]), vae.encode(video)[:, :, :1])


def test_gradient_of_a_latent_with_respect_to_later_frames_is_zero(vae):
    video = torch.rand(1, 3, 9, 8, 12, requires_grad=True)
    mean, _ = vae.encode_moments(video)
    mean[:, :, 1].sum().backward()
    assert video.grad[:, :, 5:].abs().max() == 0
    assert video.grad[:, :, 1:5].abs().max() > 0


@pytest.mark.parametrize("tile_size", [(1, 30), (4, 4), (30, 2)])
def test_tiled_equals_whole(vae, tile_size):
    halo = vae.decoder_halo
    latents = torch.randn(1, 3, 2, 2 * halo + 5, 2 * halo + 3)
    whole = vae.decode(latents)
    torch.testing.assert_close(
        vae.decode(latents, tile_size=tile_size), whole, atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("stride", [(1, 2, 1), (1, 1, 2)])
def test_tiled_equals_whole_where_height_and_width_shrink_differently(stride):
    vae = VideoVAE(3, (4, 6), (stride,), (1, 1), (2, 1), patch_size=2)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    latents = torch.randn(1, 3, 2, 25, 25)
    torch.testing.assert_close(
        vae.decode(latents, tile_size=(3, 3)), vae.decode(latents), atol=2e-5, rtol=1e-5
    )


def test_halo_is_as_wide_as_the_receptive_field_and_no_wider_than_a_latent_more(vae):
    halo = vae.decoder_halo
    latents = torch.randn(1, 3, 2, 1, 4 * halo + 3, requires_grad=True)
    middle = 2 * halo + 1
    vae.decode(latents)[
        ..., middle * vae.strides[2] : (middle + 1) * vae.strides[2]
    ].sum().backward()
    seen = latents.grad.abs().amax(dim=(0, 1, 2, 3)).nonzero().flatten()
    assert middle - halo <= seen.min() <= middle - halo + 1
    assert middle + halo - 1 <= seen.max() <= middle + halo


def test_chunks_never_cross_samples(vae):
    video = torch.rand(3, 3, 6, 8, 12) * 2 - 1
    together = vae.reconstruct(video)
    for k in range(3):
        torch.testing.assert_close(
            vae.reconstruct(video[k : k + 1]), together[k : k + 1], atol=1e-5, rtol=1e-5
        )


def test_normalised_latents_have_zero_mean_and_unit_variance(vae):
    statistics = LatentStatistics()
    clips = [torch.rand(2, 3, 5, 8, 12) * 2 - 1 for _ in range(3)]
    for clip in clips:
        statistics.update(vae.encode_moments(clip)[0])
    normalizer = LatentNormalizer(3)
    normalizer.set(*statistics.mean_and_std())
    latents = torch.cat([normalizer.normalize(vae.encode_moments(clip)[0]) for clip in clips])
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-4
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 0.01
    torch.testing.assert_close(normalizer.normalize(normalizer.denormalize(latents)), latents)


def test_sampling_the_posterior_follows_the_generator(vae):
    video = torch.rand(2, 3, 5, 8, 12) * 2 - 1
    draws = [
        vae.encode(video, sample=True, generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], vae.encode(video))


def test_sampling_draws_where_the_generator_is_in_float32():
    class Seen(torch.nn.Module):
        """Stands for the encoder; keeps nothing of the clip."""

        def forward(self, video, state):
            return torch.zeros(2, 6, 1, 2, 3, dtype=video.dtype, device=video.device)

    vae = VideoVAE(3, (4, 6), ((1, 1, 1),), (1, 1), (1, 1), patch_size=2)
    vae.encoder = Seen()
    expected = torch.randn(2, 3, 1, 2, 3, generator=torch.Generator().manual_seed(4))
    for video in (torch.zeros(2, 3, 1, 4, 6), torch.zeros(2, 3, 1, 4, 6).bfloat16()):
        got = vae.encode(video, sample=True, generator=torch.Generator().manual_seed(4))
        assert torch.equal(got.to(video.dtype), expected.to(video.dtype))
    vae, video = vae.to("meta"), torch.zeros(2, 3, 1, 4, 6, device="meta")
    assert vae.encode(video, sample=True, generator=torch.Generator()).device.type == "meta"


def test_a_description_builds_the_same_module(vae):
    copy = build(describe(vae))
    copy.load_state_dict(vae.state_dict())
    latents = torch.randn(1, 3, 2, 2, 3)
    assert torch.equal(copy.decode(latents), vae.decode(latents))


def test_misuse_names_what_was_expected(vae):
    with pytest.raises(
        ValueError, match="got height 9, expected a multiple of 4; the nearest is 8"
    ):
        vae.encode(torch.zeros(1, 3, 5, 9, 12))
    with pytest.raises(ValueError, match=r"got num_frames=0"):
        vae.encode(torch.zeros(1, 3, 0, 8, 12))
    with pytest.raises(ValueError, match=r"expected \(b, 3, t, h, w\)"):
        vae.decode(torch.zeros(1, 4, 2, 2, 3))
    with pytest.raises(ValueError, match="got num_frames=6, expected 1 to 5"):
        vae.decode(torch.zeros(1, 3, 2, 2, 3), num_frames=6)
    for tile_size in (None, (1, 1)):
        with pytest.raises(ValueError, match="got decode_frames=0, expected at least 1"):
            vae.decode(torch.zeros(1, 3, 2, 2, 3), decode_frames=0, tile_size=tile_size)
    with pytest.raises(ValueError, match="got 2 widths"):
        VideoVAE(widths=(8, 12))
