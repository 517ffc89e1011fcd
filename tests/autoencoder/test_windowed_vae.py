"""Long clips in windows that overlap: what is blended, and what a window sees."""

import pytest
import torch
from decode_memory import memory_beside_frames

from vdm.autoencoder.causal_blocks import Piece
from vdm.autoencoder.hunyuan_vae import HunyuanVideoDesign
from vdm.autoencoder.latents import Factor
from vdm.autoencoder.windowed_vae import WindowedVAE, blend
from vdm.layers.conv import StreamState
from vdm.utils.config import build, describe


def make(**design):
    torch.manual_seed(0)
    arguments = {"latent_channels": 3, "widths": (4, 6), "encoder_depth": 1, "decoder_depth": 1}
    times = {"halves_time": (True,), "doubles_time": (True,)}
    vae = WindowedVAE(HunyuanVideoDesign(2, **design), Factor(0.7), **arguments, **times)
    for parameter in vae.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return vae.eval()


def test_frames_pass_over_evenly():
    before, after = torch.zeros(1, 1, 5, 2, 3), torch.ones(1, 1, 6, 2, 3)
    assert blend(before, after, 4)[0, 0, :, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 1]
    assert blend(before[:, :, :1], after, 4)[0, 0, :, 0, 0].tolist() == [0, 1, 1, 1, 1, 1]
    assert torch.equal(blend(before[:, :, :0], after, 4), after)


@pytest.mark.parametrize("num_frames", [4, 5, 6, 7, 8])
@torch.no_grad()
def test_windows_change_nothing_but_long_clips(num_frames):
    windowed, whole = make(window=4, step=3), make(window=None)
    latents = torch.randn(2, 3, num_frames, 3, 5)
    one, other = windowed.decode(latents), whole.decode(latents)
    assert one.shape == other.shape == (2, 3, 2 * num_frames - 1, 6, 10)
    assert torch.equal(one, other) == (num_frames <= 4)
    video = torch.randn(2, 3, 2 * num_frames - 1, 6, 10)
    means = [vae.encode(video) for vae in (windowed, whole)]
    assert means[0].shape == means[1].shape == latents.shape
    # A single latent frame passes over at once: of five, the first window has made all.
    assert torch.equal(*means) == (num_frames <= 5)


@torch.no_grad()
def test_a_window_is_a_clip_of_its_own():
    vae = make(window=4, step=3)
    latents = torch.randn(1, 3, 9, 3, 5)
    parts = list(vae.decode_stream(latents))
    assert [part.shape[2] for part in parts] == [7, 6, 4]
    alone = vae.decode(latents[:, :, :5])  # of which the last frames are blended
    torch.testing.assert_close(parts[0], alone[:, :, :7])
    assert torch.equal(vae.decode(latents, decode_frames=2), torch.cat(parts, dim=2))


def test_memory_of_decoding_grows_by_the_frames_alone():
    vae = make(window=4, step=3)
    assert memory_beside_frames(vae, 14) <= 1.02 * memory_beside_frames(vae, 8)


@torch.no_grad()
def test_a_clip_that_has_begun_is_not_gone_on_with():
    vae, state = make(), StreamState()
    latents = torch.randn(1, 3, 2, 3, 5)
    assert torch.equal(vae.decode_next(latents, state), vae.decode(latents))
    with pytest.raises(ValueError, match="got 2 latent frames to go on with, expected a whole"):
        vae.decode_next(latents, state)


@torch.no_grad()
def test_the_middle_sees_no_later_frame():
    vae = make(window=None)
    attention, piece = vae.decoder.middle[1], Piece(StreamState())
    attention.norm.rule = lambda x, piece: lambda number, out=None: x[:, :, number]
    x = torch.randn(1, 6, 3, 2, 5)
    other = torch.cat((x[:, :, :2], torch.randn(1, 6, 1, 2, 5)), dim=2)
    one, two = (attention(clip, piece) for clip in (x, other))
    assert torch.equal(one[:, :, :2], two[:, :, :2])
    first = attention(torch.cat((torch.randn(1, 6, 1, 2, 5), x[:, :, 1:]), dim=2), piece)
    assert not torch.allclose(one[:, :, 2], first[:, :, 2])


def test_with_gradients_the_same_is_computed():
    vae = make(window=4, step=3)
    latents = torch.randn(1, 3, 6, 3, 5)
    slow = vae.decode(latents)
    slow.sum().backward()
    assert all(p.grad is not None for p in vae.decoder.parameters())
    with torch.no_grad():
        torch.testing.assert_close(vae.decode(latents), slow)


def test_it_is_described_and_built_again():
    vae = make(window=4, step=2)
    assert describe(build(describe(vae))) == describe(vae)
    with pytest.raises(ValueError, match="got step=4 for window=4, expected less"):
        HunyuanVideoDesign(window=4, step=4)
