"""The contract of a generator: sizes, seeds, guidance, given frames, and what it refuses."""

import warnings

import numpy as np
import pytest
import torch
from tiny_model import make_parts

from vdm.diffusion import samplers
from vdm.models.dit import VideoDiT
from vdm.pipelines import Generator
from vdm.pretrained.parts import Parts
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise

RED, BLUE = "a red circle moves left", "a small blue square stays still and a red ring grows"
LATENTS = {"output": "latents", "progress": False}
STOCHASTIC = ("ancestral", "dpmpp_2m_sde", "lcm")
ALL = ("euler", "heun", "ddim", "dpmpp_2m", "unipc", *STOCHASTIC)


def test_every_sampler_is_reached_by_name(generate):
    public = {name for name in vars(samplers) if name in ALL}
    assert public == set(ALL)
    drawn = {name: generate(RED, sampler=name, seed=1, **LATENTS) for name in ALL}
    for name, latents in drawn.items():
        assert latents.shape == (1, 3, 3, 4, 6), name
        assert latents.isfinite().all(), name
    assert not torch.equal(drawn["euler"], drawn["heun"])


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ancestral"])
def test_a_sample_of_a_batch_equals_the_same_sample_alone(generate, sampler):
    prompts = [RED, BLUE, "a green star spins clockwise"]
    batch = generate(prompts, seed=5, sampler=sampler, guidance_scale=3.0, progress=False)
    for k, prompt in enumerate(prompts):
        alone = generate(prompt, seed=5 + k, sampler=sampler, guidance_scale=3.0, progress=False)
        assert (batch.frames[k] - alone.frames[0]).abs().max() < 1e-5


def test_the_noise_of_a_sample_does_not_depend_on_the_batch(generate, monkeypatch):
    drawn = []
    original = SampleNoise.draw

    def spy(self, shape):
        drawn.append(original(self, shape))
        return drawn[-1]

    monkeypatch.setattr(SampleNoise, "draw", spy)
    generate([RED] * 3, seed=[9, 4, 7], **LATENTS)
    generate(RED, seed=4, **LATENTS)
    assert torch.equal(drawn[0][1:2], drawn[1])


def test_given_noise_replaces_the_draw(generate):
    noise = SampleNoise([3, 4]).draw((3, 3, 4, 6))
    given = generate([RED, RED], noise=noise, seed=99, **LATENTS)
    assert torch.equal(given, generate([RED, RED], seed=3, **LATENTS))
    # One prompt is encoded in a batch of one: equal but for rounding.
    once = generate(RED, noise=noise, **LATENTS)
    torch.testing.assert_close(once, given, atol=1e-5, rtol=0)


def test_without_a_seed_the_global_generator_decides(generate):
    torch.manual_seed(3)
    first = generate(RED, **LATENTS)
    second = generate(RED, **LATENTS)
    torch.manual_seed(3)
    assert torch.equal(first, generate(RED, **LATENTS))
    assert not torch.equal(first, second)


def test_guidance_scale_one_is_the_conditional_model_and_evaluates_it_once(generate, monkeypatch):
    calls = []
    forward = generate.network.forward
    monkeypatch.setattr(
        generate.network, "forward", lambda *args: calls.append(1) or forward(*args)
    )
    plain = generate(RED, seed=0, guidance_scale=1.0, steps=4, **LATENTS)
    assert len(calls) == 4
    guided = generate(RED, seed=0, guidance_scale=2.0, steps=4, **LATENTS)
    assert len(calls) == 12
    assert not torch.allclose(plain, guided)


def test_guidance_leads_away_from_the_negative_prompt(generate):
    asked = {"seed": 0, "guidance_scale": 3.0, **LATENTS}
    from_nothing = generate(RED, **asked)
    assert torch.equal(from_nothing, generate(RED, negative_prompt="", **asked))
    assert not torch.allclose(from_nothing, generate(RED, negative_prompt=BLUE, **asked))
    same = generate(RED, negative_prompt=RED, **asked)
    plain = generate(RED, seed=0, guidance_scale=1.0, **LATENTS)
    assert torch.allclose(same, plain, atol=1e-5)


def test_a_guidance_ramp_goes_from_the_first_to_the_last_frame(generate):
    one_step = {"seed": 0, "steps": 1, **LATENTS}
    low, high = (generate(RED, guidance_scale=scale, **one_step) for scale in (1.0, 3.0))
    ramp = generate(RED, guidance_scale=(1.0, 3.0), **one_step)
    assert torch.allclose(ramp[:, :, 0], low[:, :, 0], atol=1e-5)
    assert torch.allclose(ramp[:, :, -1], high[:, :, -1], atol=1e-5)
    flat = generate(RED, guidance_scale=(2.0, 2.0), **one_step)
    assert torch.equal(flat, generate(RED, guidance_scale=2.0, **one_step))


def test_ready_made_encoder_states_equal_the_text(generate):
    states = generate.text_encoder.encode([RED])
    fields = {"pooled_text": states.pooled_text}
    latents = generate(states.text, cond=fields, seed=2, **LATENTS)
    assert torch.allclose(latents, generate(RED, seed=2, **LATENTS), atol=1e-5)


def test_cond_overrides_single_fields(generate):
    states = generate.text_encoder.encode([BLUE])
    fields = Conditioning(
        text=states.text, text_mask=states.text_mask, pooled_text=states.pooled_text
    )
    overridden = generate(RED, cond=fields, seed=2, **LATENTS)
    assert torch.allclose(overridden, generate(BLUE, seed=2, **LATENTS), atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "frames", "fps"),
    [
        ({}, 5, 8.0),
        ({"num_frames": 6}, 6, 8.0),
        ({"seconds": 0.5}, 4, 8.0),
        ({"seconds": 0.5, "fps": 6.0}, 3, 6.0),
        ({"num_frames": 3, "seconds": 0.25}, 3, 12.0),
        ({"num_frames": 1}, 1, 8.0),
    ],
)
def test_any_two_of_frames_seconds_and_rate_fix_the_third(generate, asked, frames, fps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = generate(RED, steps=1, progress=False, **asked)
    assert clip.frames.shape == (1, 3, frames, 16, 24)
    assert clip.fps == fps
    assert clip.frames.dtype == torch.float32
    assert 0 <= clip.frames.min() <= clip.frames.max() <= 1


def test_decoding_in_parts_changes_nothing(generate):
    whole = generate(RED, seed=1, progress=False)
    for decode_frames in (1, 2, 7):
        parts = generate(RED, seed=1, progress=False, decode_frames=decode_frames)
        assert torch.equal(whole.frames, parts.frames)


def test_the_envelope_warns_once_and_says_what_it_is():
    generate = Generator(make_parts())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(RED, steps=1, **LATENTS)
    with pytest.warns(UserWarning, match=r"num_frames=9 \(trained on 1 to 7\), height=24"):
        generate(RED, steps=1, num_frames=9, height=24, **LATENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(RED, steps=1, num_frames=9, **LATENTS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt": "a mauve circle moves left"}, "unknown word 'mauve'"),
        ({"prompt": "a circle red moves left"}, "got 'circle' as word 2, expected red, .* prompt"),
        ({"height": 18}, "height=18, expected a multiple of 8; nearest: 16"),
        ({"width": 1}, "width=1, expected a multiple of 8; nearest: 8"),
        ({"height": 0}, "height=0, expected a multiple of 8; nearest: 8"),
        ({"width": 0}, "width=0, expected a multiple of 8; nearest: 8"),
        ({"prompt": []}, "got 0 for prompt, expected at least 1"),
        ({"num_frames": 0}, "num_frames=0, expected at least 1"),
        ({"seconds": -1.0}, "seconds=-1, expected more than 0"),
        ({"fps": 0.0}, "fps=0"),
        ({"num_frames": 4, "seconds": 1.0, "fps": 3.0}, "expected two of them, e.g. fps=4"),
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"guidance_scale": (1.0, 2.0, 3.0)}, "3 guidance scales, expected one, or two"),
        ({"sampler": "eular"}, "sampler 'eular', expected one of ancestral, .*nearest: euler"),
        ({"sampler": "_eps"}, "sampler '_eps'"),
        ({"sampler": ""}, "sampler ''"),
        ({"output": "pixels"}, "output='pixels', expected 'video' or 'latents'"),
        ({"seed": [1, 2, 3], "prompt": [RED, BLUE]}, "2 for prompt, expected 1 or 3"),
        ({"noise": torch.zeros(1, 3, 3, 4, 5)}, r"noise of shape \(1, 3, 3, 4, 5\), expected"),
        ({"motion_bucket": 127.0}, "does not read motion_bucket"),
        ({"cond": {"speed": 3}}, "cond.speed, expected one of text"),
        ({"cond": {"fps": [7.0]}}, "does not read fps"),
        ({"mask": torch.ones(5)}, "mask without video"),
    ],
)
def test_misuse_is_one_line_that_says_what_was_expected(generate, asked, message):
    with pytest.raises(ValueError, match=message) as caught:
        generate(**{"prompt": RED, "progress": False, **asked})
    assert "\n" not in str(caught.value)


def test_seeds_are_whole_numbers(generate):
    with pytest.raises(TypeError, match="seed True"):
        generate([RED, BLUE], seed=[1, True], **LATENTS)
    with pytest.raises(TypeError, match="seed True"):
        generate(RED, seed=True, **LATENTS)
    ours = generate([RED, BLUE], seed=3, **LATENTS)
    assert torch.equal(generate([RED, BLUE], seed=np.int64(3), **LATENTS), ours)
    assert torch.equal(generate([RED, BLUE], seed=[np.int64(3), 4], **LATENTS), ours)


def test_an_autoencoder_alone_cannot_generate(generate):
    with pytest.raises(ValueError, match="'vae' cannot generate: it has autoencoder"):
        Generator(Parts("vae", autoencoder=generate.autoencoder))


def test_a_prompt_is_refused_by_a_model_without_text():
    parts = make_parts(text_encoder=None, network=VideoDiT(3, dim=24, depth=1, num_heads=2))
    with pytest.raises(ValueError, match="'tiny' takes no prompt"):
        Generator(parts)(RED)
    assert Generator(parts)(steps=1, **LATENTS).shape == (1, 3, 3, 4, 6)


def test_labels_are_dropped_for_guidance():
    network = VideoDiT(3, dim=24, depth=1, num_heads=2, num_labels=4)
    generate = Generator(make_parts(text_encoder=None, network=network))
    asked = {"steps": 1, "seed": 0, **LATENTS}
    conditional = generate(cond={"label": [2]}, guidance_scale=1.0, **asked)
    assert torch.equal(generate(cond={"label": 2}, guidance_scale=1.0, **asked), conditional)
    nothing = generate(cond={"label": [4]}, guidance_scale=1.0, **asked)
    guided = generate(cond={"label": [2]}, guidance_scale=3.0, **asked)
    assert torch.allclose(guided, nothing + 3 * (conditional - nothing), atol=1e-4)


def test_without_an_autoencoder_the_network_works_on_pixels():
    network = VideoDiT(3, dim=24, depth=1, num_heads=2)
    generate = Generator(make_parts(text_encoder=None, autoencoder=None, network=network))
    with pytest.warns(UserWarning, match="width=10"):
        clip = generate(num_frames=3, height=8, width=10, steps=1, progress=False)
    assert clip.frames.shape == (1, 3, 3, 8, 10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_number_formats_are_used_and_noted(dtype):
    generate = Generator(make_parts(), dtype=dtype)
    assert {p.dtype for p in generate.network.parameters()} == {dtype}
    clip = generate(RED, seed=0, progress=False)
    full = Generator(make_parts())(RED, seed=0, progress=False)
    assert clip.metadata["dtype"] == str(dtype).removeprefix("torch.")
    assert (clip.frames - full.frames).abs().mean() < 0.05
    assert not torch.equal(clip.frames, full.frames)


def test_offloading_returns_every_part_and_changes_nothing(generate, monkeypatch):
    moved = []
    # On one device there is nowhere to go: pretend that torch's other CPU name is another one.
    offloaded = Generator(generate.parts, device="cpu")
    offloaded.offload = "cpu"
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, *args, **kwargs: moved.append(args) or self
    )
    latents = offloaded(RED, seed=0, **LATENTS)
    monkeypatch.undo()
    assert len(moved) == 6
    assert moved[1::2] == [("cpu",)] * 3
    assert torch.equal(latents, generate(RED, seed=0, **LATENTS))
    with pytest.raises(ValueError, match="offload='cpu' with device cpu"):
        Generator(generate.parts, device="cpu", offload="cpu")
    with pytest.raises(ValueError, match="offload='disk', expected 'cpu'"):
        Generator(generate.parts, offload="disk")
