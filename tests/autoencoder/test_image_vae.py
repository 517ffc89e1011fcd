"""What the image VAE promises by itself; agreement with diffusers is tested where it is read."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from vdm.autoencoder import image_vae
from vdm.autoencoder.image_vae import Enlarge, ImageVAE
from vdm.layers import pieces

B, T = 2, 3


def test_a_drawn_posterior_does_not_depend_on_the_batch():
    vae = ImageVAE(4, (8, 8), 1, 4).eval()
    video = torch.rand(B, 3, T, 4, 6)
    draws = [vae.encode(video, True, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], vae.encode(video))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.encode(torch.zeros(1, 3, 2, 5, 6)), "got height 5, expected a multiple"),
        (lambda vae: vae.decode(torch.zeros(1, 3, 2, 5, 6)), r"expected \(b, 4, t, h, w\)"),
        (
            lambda vae: vae.decode(torch.zeros(1, 4, 2, 5, 6), 3),
            "got num_frames=3, expected 1 to 2",
        ),
        (
            lambda vae: vae.decode(torch.zeros(1, 4, 2, 5, 6), decode_frames=0),
            "got decode_frames=0",
        ),
    ],
)
def test_what_it_cannot_do_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(ImageVAE(4, (8, 8), 1, 4))


@pytest.mark.parametrize("is_temporal", [False, True])
def test_frames_meet_in_a_temporal_decoder_alone(is_temporal):
    torch.manual_seed(0)
    vae = ImageVAE(4, (8, 8), 1, 4, is_temporal=is_temporal)
    for parameter in vae.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    raw = torch.randn(B, 4, T, 3, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(vae.decode_raw(raw)[:, :, 1].sum(), raw)
    seen = grad.abs().amax(dim=(0, 1, 3, 4)) > 0
    assert seen.tolist() == ([True] * T if is_temporal else [False, True, False])
    video = torch.rand(B, 3, T, 4, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(vae.encode(video)[:, :, 1].sum(), video)
    assert (grad.abs().amax(dim=(0, 1, 3, 4)) > 0).tolist() == [False, True, False]


@pytest.mark.parametrize("pixels", [1, 24, 2**14], ids=lambda n: f"{n} pixels at a time")
def test_enlarging_is_a_convolution_of_repeated_pixels(pixels, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_OF_VOLUME", 1)
    monkeypatch.setattr(pieces, "MIN_PIXELS", pixels)
    monkeypatch.setattr(image_vae, "MIN_PIXELS", pixels)
    enlarge, clip = Enlarge(6), torch.randn(B, 6, T, 5, 7)
    frames = F.interpolate(rearrange(clip, "b c t h w -> (b t) c h w"), scale_factor=2.0)
    conv = enlarge.conv
    expected = F.conv2d(frames, conv.weight, conv.bias, padding=1)
    expected = rearrange(expected, "(b t) c h w -> b c t h w", b=B)
    torch.testing.assert_close(enlarge(clip), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(enlarge(clip), expected, atol=1e-5, rtol=1e-5)
