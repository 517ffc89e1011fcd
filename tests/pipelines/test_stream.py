"""Clips made chunk by chunk: what they equal, what they cost, and what they do not depend on."""

import itertools
import json
import warnings

import pytest
import torch
from tiny_model import make_parts

from vdm.diffusion.denoiser import Denoiser
from vdm.diffusion.guidance import classifier_free
from vdm.diffusion.preconditioning import EDMPreconditioning
from vdm.diffusion.samplers import ddim
from vdm.diffusion.schedules import VPLinear
from vdm.diffusion.targets import X0
from vdm.layers.factorization import Joint, Spatial, Temporal
from vdm.models.dit import DiTCache, VideoDiT
from vdm.models.dit_blocks import BlockOptions
from vdm.models.unet3d import UNet3D
from vdm.models.unet3d_temporal import FactorizedConv, TemporalTransformer
from vdm.pipelines import Generator, stream, stream_clip, stream_to_folder
from vdm.pipelines.stream_cost import Arm, compare_costs
from vdm.pipelines.walk import times_of
from vdm.pretrained.parts import Envelope
from vdm.utils.rng import FrameNoise
from vdm.utils.video_io import read_metadata, read_video

RED, BLUE = "a red circle moves left", "a small blue square stays still and a red ring grows"
KINDS = {
    "joint": [Joint(is_causal=True)],
    "joint window": [Joint(is_causal=True, window=2)],
    "factorized": [Spatial(), Temporal(is_causal=True)],
    "factorized window": [Spatial(), Temporal(is_causal=True, window=3)],
}
SHAPE = (3, 4, 6)  # of a latent frame


def causal(kind="factorized window", time_positions="rotary", **changes) -> Generator:
    network = VideoDiT(
        3,
        dim=24,
        depth=2,
        num_heads=2,
        text_dim=8,
        pooled_dim=8,
        factorization=KINDS[kind],
        block=BlockOptions(time_positions=time_positions),
    )
    return Generator(make_parts(network=network, **changes))


@pytest.fixture(scope="module")
def generate() -> Generator:
    return causal()


def frames_of(generate, prompt=RED, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stream_clip(
            generate, prompt, progress=False, **{"seed": 1, "steps": 2, **arguments}
        ).frames


def latents_of(made):
    """Latents of a stream, which hands out pixels."""
    seen, decode = [], made._decode
    made._decode = lambda x0: seen.append(x0) or decode(x0)
    list(made)
    return torch.cat(seen, dim=2)


def recomputed(generate, num_latent_frames, chunk, context_time):
    """The same clip without a cache: every call sees all earlier frames again."""

    def behind(context, cond):
        def denoise(xt, t):
            past = torch.full((1, context.shape[2]), context_time)
            each = torch.cat((past, t[:, None].expand(-1, xt.shape[2])), dim=1)
            whole = denoiser(torch.cat((context, xt), dim=2), each, cond)
            return whole[:, :, context.shape[2] :]

        return denoise

    parts = generate.parts
    denoiser = Denoiser(parts.network, parts.schedule, parts.target, parts.preconditioning)
    told = [generate._conditioning(prompt, {}, None, 1) for prompt in (RED, None)]
    times, done = times_of(generate, 2), torch.empty(1, 3, 0, 4, 6)
    context = done
    for start in range(0, num_latent_frames, chunk):
        frames = range(start, min(start + chunk, num_latent_frames))
        noise = FrameNoise([1], frames)
        guided = classifier_free(*(behind(context, cond) for cond in told), 2.0)
        x = noise.draw(SHAPE) * parts.schedule.prior_std(float(times[0]))
        x0 = ddim(guided, parts.schedule, x, times, eta=0.5, noise=noise)
        t = torch.full((1,), context_time)
        eps = noise(x0) if context_time else torch.zeros_like(x0)
        context = torch.cat((context, parts.schedule.add_noise(x0, eps, t)), dim=2)
        done = torch.cat((done, x0), dim=2)
    return done


@pytest.mark.parametrize(
    ("kind", "chunk", "context_time"),
    [
        ("joint", 1, 0.0),
        ("joint window", 2, 0.1),
        ("factorized", 2, 0.1),
        ("factorized window", 1, 0.0),
        ("factorized window", 2, 0.1),
    ],
)
def test_a_stream_equals_seeing_all_earlier_frames_again(kind, chunk, context_time, monkeypatch):
    monkeypatch.setattr("vdm.diffusion.samplers.ddim", stochastic)
    generate = causal(kind, time_positions="absolute")
    asked = {
        "chunk": chunk,
        "context_time": context_time,
        "num_frames": 7,
        "steps": 2,
        "sampler": "ddim",
    }
    got = latents_of(stream(generate, RED, seed=1, guidance_scale=2.0, **asked))
    expected = recomputed(generate, 4, chunk, context_time)
    assert got.shape == expected.shape == (1, 3, 4, 4, 6)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("chunk", "context_time"), [(1, 0.0), (2, 0.1)])
def test_any_causal_network_streams(chunk, context_time, monkeypatch):
    monkeypatch.setattr("vdm.diffusion.samplers.ddim", stochastic)
    over_time = TemporalTransformer(Temporal(is_causal=True, window=2))
    network = UNet3D(
        3,
        widths=(32,),
        depth=1,
        attention=(0, 1),
        temporal=[FactorizedConv(is_causal=True), over_time],
        text_dim=8,
        pooled_dim=8,
    )
    generate = Generator(make_parts(network=network))
    asked = {
        "chunk": chunk,
        "context_time": context_time,
        "num_frames": 5,
        "steps": 2,
        "sampler": "ddim",
    }
    got = latents_of(stream(generate, RED, seed=1, guidance_scale=2.0, **asked))
    torch.testing.assert_close(got, recomputed(generate, 3, chunk, context_time), rtol=0, atol=2e-5)


def stochastic(denoise, schedule, x, times, *, noise=None, callback=None):
    return ddim(denoise, schedule, x, times, eta=0.5, noise=noise)


def test_noise_levels_go_through_the_preconditioning():
    parts = {"schedule": VPLinear(), "target": X0(), "preconditioning": EDMPreconditioning(1.0)}
    generate = causal(**parts)
    told, step = [], generate.network.step
    generate.network.step = lambda x, c_noise, *rest: (
        told.append(c_noise) or step(x, c_noise, *rest)
    )
    list(stream(generate, RED, num_frames=3, guidance_scale=1.0, context_time=0.25))
    levels = torch.cat([times_of(generate, 3)[:-1], torch.tensor([0.25])]).float()
    expected = parts["preconditioning"].c_noise(parts["schedule"], levels)
    torch.testing.assert_close(torch.cat(told[:4]), expected)


def test_the_first_frames_do_not_depend_on_how_long_the_clip_gets(generate):
    for chunk in (1, 2):
        long = frames_of(generate, num_frames=8, chunk=chunk)
        for num_frames in (1, 4):  # the last frame, and the last chunk, are cut
            short = frames_of(generate, num_frames=num_frames, chunk=chunk)
            assert short.shape[2] == num_frames
            torch.testing.assert_close(short, long[:, :, :num_frames], rtol=0, atol=1e-5)


def test_the_noise_of_a_frame_depends_on_seed_and_number_alone():
    whole = FrameNoise([3, 4], range(5)).draw(SHAPE)
    assert torch.equal(FrameNoise([4], [2, 3]).draw(SHAPE), whole[1:, :, 2:4])
    drawn = FrameNoise([3], range(2))
    first, second = (drawn(torch.zeros(1, 3, 2, 4, 6)) for _ in range(2))
    assert torch.equal(first, whole[:1, :, :2])
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="got 2 samples of 2 frames, expected 1 of 2"):
        drawn(torch.zeros(2, 3, 2, 4, 6))


def test_a_sample_does_not_depend_on_its_batch(generate):
    asked = {"num_frames": 5, "sampler": "ancestral", "context_time": 0.1}
    batch = frames_of(generate, [RED, BLUE], seed=5, **asked)
    for k, prompt in enumerate((RED, BLUE)):
        alone = frames_of(generate, prompt, seed=5 + k, **asked)
        torch.testing.assert_close(batch[k], alone[0], rtol=0, atol=1e-5)


def cached_frames(made):
    """Frames in the caches of attention over time, over guided and unguided prediction."""
    caches = [memory.cache for memory in made.rollout.memories if memory.cache is not None]
    return [kv.keys.shape[2] for cache in caches for kv in cache.blocks if kv is not None]


def test_a_window_bounds_what_is_remembered_and_nothing_else_does():
    seen = {}
    for kind in ("factorized", "factorized window"):
        generate = causal(kind, envelope=Envelope((5, 99), (8, 8), (16, 16), (24, 24)))
        made = stream(generate, RED, num_frames=17, steps=1)
        rows = [(made.cache_bytes, cached_frames(made)) for _ in made]
        assert len(rows) == 9
        assert made.generator.network.is_endless == (kind == "factorized window")
        seen[kind] = rows[3:]  # later than the window
    bytes_, frames = zip(*seen["factorized window"], strict=True)
    assert len(set(bytes_)) == 1
    assert (
        frames[0] == frames[-1] == [2, 2]
    )  # with and without words; the frame itself is the third
    bytes_, frames = zip(*seen["factorized"], strict=True)
    assert [a for a, _ in frames] == [3, 4, 5, 6, 7, 8]
    growth = {b - a for a, b in itertools.pairwise(bytes_)}
    assert len(growth) == 1
    assert growth.pop() > 0


def test_guidance_one_evaluates_once_and_remembers_once(generate, monkeypatch):
    calls, step = [], generate.network.step
    monkeypatch.setattr(generate.network, "step", lambda *args: calls.append(1) or step(*args))
    made = stream(generate, RED, num_frames=5, steps=4, guidance_scale=1.0)
    list(made)
    assert len(calls) == 3 * 4 + 2  # the last chunk need not be remembered
    plain = made.rollout.cache_bytes
    calls.clear()
    made = stream(generate, RED, num_frames=5, steps=4, guidance_scale=2.0)
    list(made)
    assert len(calls) == 2 * (3 * 4 + 2)
    assert made.rollout.cache_bytes == 2 * plain


def test_frames_are_handed_out_as_they_are_made(generate, monkeypatch):
    calls, step = [], generate.network.step
    monkeypatch.setattr(generate.network, "step", lambda *args: calls.append(1) or step(*args))
    made = stream(generate, RED, num_frames=9, steps=2, guidance_scale=1.0, chunk=2, seed=3)
    assert calls == []
    assert next(made).frames.shape == (1, 3, 3, 16, 24)
    assert len(calls) == 2
    rest = list(made)
    assert [clip.frames.shape[2] for clip in rest] == [4, 2]
    assert [clip.metadata["first_frame"] for clip in rest] == [3, 7]
    assert made.num_chunks == 3


def test_the_whole_clip_is_its_chunks_and_says_where_it_comes_from(generate):
    asked = {"num_frames": 5, "seed": 3, "chunk": 2, "context_time": 0.05}
    parts = list(stream(generate, RED, **asked))
    clip = stream_clip(generate, RED, progress=False, **asked)
    assert torch.equal(clip.frames, torch.cat([part.frames for part in parts], dim=2))
    assert clip.fps == 8
    about = clip.metadata
    assert (about["prompt"], about["seed"], about["num_frames"]) == (RED, [3], 5)
    assert (about["chunk"], about["context_time"]) == (2, 0.05)
    assert 0 <= about["clamped_share"] <= 1
    json.dumps(about)


def test_a_clip_goes_on_from_given_frames(generate):
    first = frames_of(generate, num_frames=5, seed=7)
    more = frames_of(generate, num_frames=5, seed=8, video=first[:, :, :4])
    latents = generate._encode(2 * first[:, :, :3] - 1)  # the fourth frame fills no latent frame
    start = (generate.autoencoder.decode(latents).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(more[:, :, :3], start, rtol=0, atol=1e-5)
    other = frames_of(generate, num_frames=5, seed=8, image=1 - first[:, :, 0])
    assert not torch.allclose(more[:, :, -1], other[:, :, -1], atol=1e-4)
    with pytest.raises(ValueError, match="all 2 frames given, expected some left"):
        stream(generate, RED, num_frames=2, video=first[:, :, :2])


def test_a_network_that_reads_the_rate_is_told_it():
    network = VideoDiT(3, 24, 2, 2, factorization=KINDS["joint window"], scalars=["fps"])
    generate = Generator(make_parts(network=network, text_encoder=None))
    slow, fast = (frames_of(generate, None, num_frames=3, fps=fps) for fps in (4.0, 8.0))
    assert not torch.allclose(slow, fast, atol=1e-5)
    told = frames_of(generate, None, num_frames=3, cond={"fps": [4.0]})
    torch.testing.assert_close(slow, told)


def test_context_noise_and_chunks_make_a_difference(generate):
    plain = frames_of(generate, num_frames=5)
    assert not torch.allclose(plain, frames_of(generate, num_frames=5, context_time=0.3), atol=1e-4)
    assert not torch.allclose(plain, frames_of(generate, num_frames=5, chunk=3), atol=1e-4)


def test_only_a_network_that_has_a_longest_clip_warns_of_a_longer_one():
    envelope = Envelope((5, 5), (8.0, 8.0), (16, 16), (24, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream(causal(envelope=envelope), RED, num_frames=99)
        for kind, positions in (("factorized", "rotary"), ("factorized window", "absolute")):
            stream(causal(kind, positions, envelope=envelope), RED, num_frames=3)
    for kind, positions in (("factorized", "rotary"), ("factorized window", "absolute")):
        with pytest.warns(UserWarning, match=r"num_frames=99 \(trained on 5\)"):
            stream(causal(kind, positions, envelope=envelope), RED, num_frames=99)


@pytest.mark.parametrize("time_positions", ["rotary", "absolute"])
def test_far_into_a_clip_an_endless_network_does_as_at_its_start(time_positions):
    generate = causal(time_positions=time_positions)
    cond = generate._conditioning(RED, {}, None, 1)
    x, c_noise = torch.randn(1, 3, 4, 4, 6), torch.full((1,), 500.0)
    rows = []
    for start in (0, 1_000_000):
        cache, preds = DiTCache((None, None), start), []
        for frame in x.split(1, dim=2):
            pred, cache = generate.network.step(frame, c_noise, cond, cache)
            preds.append(pred)
        rows.append(torch.cat(preds, dim=2))
    same = torch.allclose(*rows, rtol=0, atol=1e-4)
    assert same == generate.network.is_endless == (time_positions == "rotary")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"chunk": 0}, "got chunk=0, expected a multiple of 1; nearest: 1"),
        ({"context_time": 1.0}, "got context_time=1.0, expected 0"),
        ({"guidance_scale": (1.0, 3.0)}, r"guidance_scale=\(1.0, 3.0\), expected one number"),
        ({"steps": 0}, "steps=0, expected at least 1"),
        ({"num_frames": 0}, "num_frames=0, expected at least 1"),
        ({"height": 18}, "height=18, expected a multiple of 8; nearest: 16"),
        ({"sampler": "eular"}, "nearest: euler"),
        ({"cond": {"token_times": torch.zeros(1, 3)}}, "got cond.token_times, expected no field"),
        ({"seed": [1, 2]}, None),
    ],
)
def test_misuse_is_refused_before_anything_is_made(generate, asked, message):
    if message is None:
        assert len(next(stream(generate, RED, **asked))) == 2
        return
    with pytest.raises(ValueError, match=message):
        stream(generate, RED, **asked)


def test_models_that_see_the_future_are_refused():
    with pytest.raises(ValueError, match="'tiny', whose network sees later frames, expected a"):
        stream(Generator(make_parts()), RED)
    blind = make_parts(network=causal().network)
    blind.autoencoder = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="whose autoencoder decodes whole clips alone"):
        stream(Generator(blind), RED)


def test_files_are_written_while_clips_are_made(generate, tmp_path):
    asked = {"num_frames": 3, "steps": 1, "seed": 3, "suffix": ".mkv", "progress": False}
    paths = stream_to_folder(generate, [RED, BLUE, RED], tmp_path, batch_size=2, **asked)
    assert len(set(paths)) == 3
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for k, (path, prompt) in enumerate(zip(paths, (RED, BLUE, RED), strict=True)):
        frames, fps = read_video(path)
        assert fps == 8
        alone = frames_of(generate, prompt, seed=3 + k, num_frames=3, steps=1)
        levels = 255 * torch.movedim(alone[0], 0, -1)
        assert (frames.float() - levels).abs().max() <= 0.51
        assert read_metadata(path)["prompt"] == prompt
        assert read_metadata(path)["seed"] == 3 + k
    with pytest.raises(ValueError, match=r"got suffix '\.gif', expected one of \.mp4, \.webm"):
        stream_to_folder(generate, [RED], tmp_path, suffix=".gif")


def test_costs_are_measured_for_every_way_and_length(generate):
    arms = [
        Arm("window", generate),
        Arm("no window", causal("factorized")),
        Arm("whole", Generator(make_parts()), is_streamed=False),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        costs = compare_costs(arms, (7, 9, 11), RED, steps=1, seed=0, guidance_scale=1.0)
    assert [(c.name, c.num_frames) for c in costs[::3]] == [(arm.name, 7) for arm in arms]
    window, grown, whole = ([c.cache_bytes for c in costs[k : k + 3]] for k in (0, 3, 6))
    assert len(set(window)) == 1
    assert grown[0] < grown[1] < grown[2]
    assert whole == [0, 0, 0]
    assert all(0 < c.last_seconds <= c.num_frames * c.seconds_per_frame + 1e-9 for c in costs)
