"""The VAEs of LTX-Video: what sees what, and the same in whatever memory."""

import pytest
import torch
from decode_memory import memory_beside_frames

from vdm.autoencoder.ltx_vae import LTXVAE, LTXDecoderSize, LTXEncoderSize
from vdm.layers import pieces
from vdm.layers.conv import StreamState
from vdm.utils.config import build, describe

OLD = (
    LTXEncoderSize((4, 6, 8), (1, 1, 1), 1, ((2, 2, 2),) * 2),
    LTXDecoderSize((4, 6, 8), (1, 1, 2), 1, (True, True, False), grains=(False,) * 4),
)
NEW = (
    LTXEncoderSize((4, 8, 16, 32), (1, 1, 1), 1, ((1, 2, 2), (2, 1, 1), (2, 2, 2)), folds=True),
    LTXDecoderSize((8, 16), (1, 1), 1, (True, True), 2, True, (False, True, True), 0.05),
)


def tiny(sizes):
    torch.manual_seed(0)
    vae = LTXVAE(*sizes, latent_channels=3, patch_size=2).eval()
    for parameter in vae.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.3)
    return vae


@pytest.fixture(autouse=True)
def frame_by_frame(monkeypatch):
    monkeypatch.setattr(pieces, "MOST_LATENTS_AT_ONCE", 0)


@pytest.fixture(params=[OLD, NEW], ids=["old", "new"])
def vae(request):
    return tiny(request.param)


def test_encoders_see_no_later_frame_and_decoders_one_more(vae):
    video = torch.rand(1, 3, 9, 8, 16, requires_grad=True)
    mean, _ = vae.encode_moments(video)
    (slope,) = torch.autograd.grad(mean[:, :, 1].square().sum(), video)
    assert slope[:, :, :5].any()
    assert not slope[:, :, 5:].any()
    raw = torch.randn(1, 3, 3, 1, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(vae.decode(raw)[:, :, 0].square().sum(), raw)
    assert slope[:, :, 1].any()


def test_with_gradients_it_does_the_same_in_other_memory(vae):
    video, raw = torch.rand(2, 3, 9, 8, 16) * 2 - 1, torch.randn(2, 3, 3, 2, 1)
    with torch.no_grad():
        plain = vae.encode(video), vae.decode(raw)
    for one, other in zip(plain, (vae.encode(video), vae.decode(raw)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_memory_of_decoding_grows_by_the_frames_alone(vae):
    assert memory_beside_frames(vae, 17) <= 1.05 * memory_beside_frames(vae, 12)


@torch.no_grad()
def test_a_short_clip_is_decoded_at_once_to_the_same_frames(vae, monkeypatch):
    raw = torch.randn(2, 3, 3, 2, 1)
    frames = vae.decode(raw)
    monkeypatch.setattr(pieces, "MOST_LATENTS_AT_ONCE", raw[:, 0].numel())
    assert len(list(vae.decode_stream(raw))) == 1
    torch.testing.assert_close(vae.decode(raw), frames, rtol=1e-4, atol=1e-4)
    assert len(list(vae.decode_stream(raw.repeat(1, 1, 2, 1, 1)))) > 1


@torch.no_grad()
def test_noise_in_between_changes_nothing_from_call_to_call(vae):
    raw = torch.randn(2, 3, 2, 2, 1)
    frames = vae.decode(raw)
    assert frames.shape == (2, 3, 5, 16, 8)
    assert torch.equal(vae.decode(raw), frames)
    torch.testing.assert_close(vae.decode(raw[1:]), frames[1:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_its_description_builds_the_same(vae):
    again = build(describe(vae)).eval()
    again.load_state_dict(vae.state_dict())
    raw = torch.randn(1, 3, 2, 1, 2)
    assert torch.equal(again.decode(raw), vae.decode(raw))


def test_what_does_not_fit_together_is_refused(vae):
    state = StreamState()
    vae.decode_next(torch.randn(1, 3, 1, 1, 1), state)
    with pytest.raises(ValueError, match="got 2 latent frames to go on with, expected the whole"):
        vae.decode_next(torch.randn(1, 3, 2, 1, 1), state)
    with pytest.raises(ValueError, match="got 2 widths and 3 strides for 4 depths, expected 4 and"):
        LTXEncoderSize((4, 6))
    with pytest.raises(ValueError, match="got 2 strides, expected 3"):
        LTXEncoderSize((4, 6, 8, 8), (1, 1, 1), 1, ((2, 2, 2),) * 2, folds=True)
    with pytest.raises(ValueError, match=r"got strides .* of convolutions, expected \(2, 2, 2\)"):
        LTXEncoderSize((4, 6), (1, 1), 1, ((1, 2, 2),))
    with pytest.raises(ValueError, match="got 3 widths, 4 depths, 4 enlarges and 5 grains"):
        LTXDecoderSize((4, 6, 8))
    with pytest.raises(ValueError, match=r"shrinks \(t, h, w\) \(4, 4, 4\) times and a decoder"):
        LTXVAE(OLD[0], LTXDecoderSize((4, 6), (1, 1), 1, (True, False), grains=(False,) * 3), 3)
    told = LTXDecoderSize((4, 6), (1, 1), 1, (True, True), grains=(False,) * 3, decode_time=0.1)
    with pytest.raises(ValueError, match="got a decoder that is told a noise level with widths"):
        LTXVAE(OLD[0], told, 3)
