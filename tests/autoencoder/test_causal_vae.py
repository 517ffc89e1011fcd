"""What causal VAEs promise by themselves; they are compared with diffusers where they are read."""

import pytest
import torch
from decode_memory import memory_beside_frames

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.cogvideox_vae import CogVideoXDesign
from vdm.autoencoder.latents import Factor, Standard
from vdm.autoencoder.wan_vae import WanDesign, WanResidualDesign
from vdm.layers.conv import StreamState
from vdm.utils.config import build, describe

B = 2
STANDARD = Standard((0.1, 0.2, -0.3), (1.5, 0.5, 2.0))
DESIGNS = {
    "CogVideoX": (CogVideoXDesign(4), Factor(0.7), (True, False)),
    "Wan 2.1": (WanDesign(), STANDARD, (False, True)),
    "Wan 2.2": (WanResidualDesign(1), STANDARD, (False, True)),
}
CHUNKS = {"CogVideoX": ([3, 4], [5, 2]), "Wan 2.1": ([1, 6], [2, 4, 1]), "Wan 2.2": ([3, 4],)}
"""Ways to hand over seven latent frames."""


def tiny(name):
    design, scale, in_time = DESIGNS[name]
    torch.manual_seed(0)
    doubles = in_time if name == "CogVideoX" else in_time[::-1]
    vae = CausalVAE(design, scale, 3, (4, 8, 8), 1, 1, in_time, doubles)
    for parameter in vae.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return vae.eval()


@pytest.fixture(params=DESIGNS)
def vae(request):
    return tiny(request.param)


@pytest.mark.parametrize(
    ("name", "sizes"), [(name, sizes) for name, ways in CHUNKS.items() for sizes in ways]
)
@torch.no_grad()
def test_decoding_in_chunks_equals_decoding_at_once(name, sizes):
    vae, latents = tiny(name), torch.randn(B, 3, 7, 3, 5)
    whole = vae.decode(latents)
    state = StreamState()
    chunks = [vae.decode_next(chunk, state) for chunk in latents.split(sizes, dim=2)]
    assert torch.equal(torch.cat(chunks, dim=2), whole)
    assert torch.equal(torch.cat(list(vae.decode_stream(latents)), dim=2), whole)
    assert torch.equal(vae.decode(latents, decode_frames=2), whole)


@torch.no_grad()
def test_a_copied_state_is_a_point_to_go_back_to(vae):
    latents, state = torch.randn(B, 3, 7, 3, 5), StreamState()
    vae.decode_next(latents[:, :, :3], state)
    kept = state.copy()
    once = vae.decode_next(latents[:, :, 3:5], state)
    vae.decode_next(latents[:, :, 5:], state)
    assert torch.equal(vae.decode_next(latents[:, :, 3:5], kept), once)


def test_memory_of_decoding_grows_by_the_frames_alone(vae):
    assert memory_beside_frames(vae, 9) <= 1.02 * memory_beside_frames(vae, 5)


def test_with_gradients_it_does_the_same_in_other_memory(vae):
    latents = torch.randn(B, 3, 4, 3, 5)
    with torch.no_grad():
        expected = vae.decode(latents)
    frames = vae.decode(latents)
    assert (frames.abs() < 1).any()
    torch.testing.assert_close(frames, expected, atol=1e-4, rtol=1e-4)
    parameters = list(vae.decoder.parameters())
    grads = torch.autograd.grad(frames.square().mean(), parameters)
    assert all(grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 6, 9, 10])
@torch.no_grad()
def test_as_many_frames_come_back(vae, num_frames):
    video = torch.rand(B, 3, num_frames, 8, 12) * 2 - 1
    assert vae.reconstruct(video).shape == video.shape


@torch.no_grad()
def test_a_drawn_posterior_follows_its_generator(vae):
    video = torch.rand(B, 3, 5, 8, 12)
    draws = [vae.encode(video, True, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], vae.encode(video))


@torch.no_grad()
def test_its_description_builds_the_same(vae):
    again = build(describe(vae)).eval()
    again.load_state_dict(vae.state_dict())
    latents = torch.randn(B, 3, 3, 3, 5)
    assert torch.equal(again.decode(latents), vae.decode(latents))
    assert describe(again) == describe(vae)


@torch.no_grad()
def test_surplus_frames_of_cogvideox_are_those_of_the_first_latent():
    vae, latents = tiny("CogVideoX"), torch.randn(B, 3, 4, 3, 5)
    whole = vae.decode(latents)
    assert whole.shape[2] == 8  # two for each, where the time grid has 7
    assert torch.equal(vae.decode(latents, num_frames=7), whole[:, :, 1:])
    assert torch.equal(vae.decode(latents, num_frames=6), whole[:, :, 1:7])
    assert torch.equal(vae.decode(latents, num_frames=8), whole)


@pytest.mark.parametrize("name", DESIGNS)
def test_no_frame_sees_the_future_where_a_design_says_so(name):
    vae = tiny(name)
    video = torch.rand(1, 3, 5, 8, 12, requires_grad=True)
    (grad,) = torch.autograd.grad(vae.encode(video)[:, :, 1].sum(), video)
    seen = grad.abs().amax(dim=(0, 1, 3, 4)) > 0
    assert vae.is_causal == (name != "CogVideoX")
    assert seen.tolist() == [True] * 3 + [not vae.is_causal] * 2


def test_wan_encodes_frames_that_fill_its_pieces():
    vae, state = tiny("Wan 2.1"), StreamState()
    with torch.no_grad():
        vae.encode_chunk(torch.zeros(1, 3, 1, 8, 8), state)
        with pytest.raises(ValueError, match="got 3 frames, expected an even number of further"):
            vae.encode_chunk(torch.zeros(1, 3, 3, 8, 8), state)


def test_as_many_means_as_deviations_are_needed():
    with pytest.raises(ValueError, match="got 2 means and 1 standard deviations"):
        Standard((0.0, 1.0), (1.0,))


@pytest.mark.parametrize("is_inverse", [False, True])
def test_a_factor_is_undone(is_inverse):
    raw, scale = torch.randn(B, 3, 2, 4, 5), Factor(0.7, is_inverse)
    torch.testing.assert_close(scale.denormalize(scale.normalize(raw)), raw)
    given = raw / 0.7 if is_inverse else raw * 0.7
    torch.testing.assert_close(scale.normalize_given(raw), given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.encode(torch.zeros(1, 3, 2, 5, 8)), "got height 5, expected a multiple"),
        (lambda vae: vae.decode(torch.zeros(1, 4, 2, 5, 6)), r"expected \(b, 3, t, h, w\)"),
        (lambda vae: vae.decode(torch.zeros(1, 3, 2, 3, 5), 9), "got num_frames=9, expected 1 to"),
        (lambda vae: vae.decode(torch.zeros(1, 3, 2, 3, 5), None, 0), "got decode_frames=0"),
    ],
)
def test_what_it_cannot_do_is_refused(vae, call, message):
    with pytest.raises(ValueError, match=message):
        call(vae)


def test_cogvideox_goes_on_in_whole_pieces():
    vae, state = tiny("CogVideoX"), StreamState()
    with torch.no_grad():
        vae.decode_next(torch.zeros(1, 3, 3, 3, 5), state)
        with pytest.raises(
            ValueError, match="got 1 frames to go on with, expected a multiple of 2"
        ):
            vae.decode_next(torch.zeros(1, 3, 1, 3, 5), state)


def test_lengths_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="got 2 widths, 2 for the decoder, 2 halves_time"):
        CausalVAE(CogVideoXDesign(4), Factor(1.0), 3, (4, 8), 1, 1, (True, True), (True, True))
    with pytest.raises(ValueError, match="got time halved 1 times and doubled 0 times"):
        CausalVAE(CogVideoXDesign(4), Factor(1.0), 3, (4, 8), 1, 1, (True,), (False,))
    with pytest.raises(ValueError, match="got num_groups=3, expected a divisor of 4"):
        CausalVAE(CogVideoXDesign(3), Factor(1.0), 3, (4,), 1, 1, (), ())
