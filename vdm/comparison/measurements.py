"""Measurements that single experiments ask for: functions of a model, which return rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch

import vdm
from vdm import world
from vdm.data.sources import ShapesSource
from vdm.metrics.captions import CaptionScore, caption_accuracy, score_caption
from vdm.metrics.clips import Clips
from vdm.metrics.oracle import read_clips
from vdm.metrics.temporal import jitter, mean_jitter
from vdm.pipelines.cascade import Cascade
from vdm.pipelines.interpolate_scores import OURS, interpolation_scores
from vdm.pipelines.stream import stream_clip
from vdm.pipelines.stream_cost import LENGTHS, Arm, is_causal, measure
from vdm.utils.rng import derive_seed
from vdm.utils.video_io import to_uint8

PROMPTS = (
    "a red circle moves left",
    "a blue square orbits clockwise",
    "a large green star bounces off the walls",
    "a yellow triangle spins counterclockwise",
)
RECOVERED_FROM = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Noise times to which real clips are noised."""
PARTS = ("whole", "count", "colour", "shape", "motion")
FILL_STEPS = (1, 2, 4, 8)
BY = "frames filled in by"
Rows = list[dict[str, Any]]


def diversity(model: str, sample: Mapping[str, Any], seed: int, is_smoke: bool = False) -> Rows:
    """How far clips of one caption lie apart, beside real scenes of the same captions.

    Root mean squared difference of pixels in [0, 1] between two clips, averaged over all pairs of
    clips of a caption, then over captions of ``test-iid``.

    Args:
        model: What ``vdm.load`` takes.
        sample: Arguments of the call.
        seed: Of the noise.
        is_smoke: Do the least.
    """
    num_captions, num_clips = (1, 2) if is_smoke else (12, 4)
    generate: Any = vdm.load(model)
    source = ShapesSource("test-iid", num_captions, 0, num_objects=1)
    ours, theirs = [], []
    for index in range(num_captions):
        real, caption = source.clip(index)
        seeds = [derive_seed(seed, "diversity", index, k) for k in range(num_clips)]
        made = generate([caption] * num_clips, seed=seeds, progress=False, **sample)
        frames = to_uint8(2 * made.frames - 1)
        ours.append(_mean_distance(frames.numpy()))
        scenes = [world.scene_from_caption(caption, k) for k in range(num_clips)]
        size, num_frames = real.shape[1], len(real)
        drawn = [world.render(scene, size, num_frames) for scene in scenes]
        theirs.append(_mean_distance(np.stack(drawn)))
    return [
        {
            "clips": num_captions * num_clips,
            "distance": float(np.mean(ours)),
            "distance of real clips": float(np.mean(theirs)),
            "ratio": float(np.mean(ours) / np.mean(theirs)),
        }
    ]


def recovery(model: str, sample: Mapping[str, Any], seed: int, is_smoke: bool = False) -> Rows:
    """What is still read of real clips that were noised to a time and denoised with their captions.

    A part of the caption that is right from one time and wrong from the next is decided between
    them, and decided wrongly.

    Args:
        model: What ``vdm.load`` takes.
        sample: Arguments of the call.
        seed: Of the noise.
        is_smoke: Do the least.
    """
    times, num_clips = ((0.5,), 2) if is_smoke else (RECOVERED_FROM, 32)
    generate: Any = vdm.load(model)
    source = ShapesSource("test-iid", num_clips, 0, num_objects=1)
    clips, captions = zip(*map(source.clip, range(num_clips)), strict=True)
    video = torch.from_numpy(np.stack(clips)).movedim(-1, 1) / 255
    rows = []
    for time in times:
        found: list[CaptionScore] = []
        for start in range(0, num_clips, 16):
            some = slice(start, start + 16)
            seeds = [derive_seed(seed, "recovery", k) for k in range(num_clips)[some]]
            made = generate(
                list(captions[some]),
                video=video[some],
                strength=time,
                seed=seeds,
                progress=False,
                **sample,
            )
            frames = to_uint8(2 * made.frames - 1).numpy()
            found += map(score_caption, read_clips(frames), captions[some])
        scores = caption_accuracy(found, "recovery")
        rows.append({"noise time": time, **{f"{part} %": scores[part].value for part in PARTS}})
    return rows


def growth(model: str, sample: Mapping[str, Any], seed: int, is_smoke: bool = False) -> Rows:
    """Memory and coherence as clips grow; a causal network makes them chunk by chunk.

    Args:
        model: What ``vdm.load`` takes.
        sample: Arguments of the call.
        seed: Of the noise.
        is_smoke: Do the least.
    """
    lengths, prompts = ((8,), PROMPTS[:1]) if is_smoke else (LENGTHS, PROMPTS)
    generate: Any = vdm.load(model)
    is_streamed = is_causal(generate)
    arm = Arm(str(model), generate, is_streamed)
    make = partial(stream_clip, generate) if is_streamed else generate
    rows = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trained on.*")  # that is what is asked here
        measure(arm, min(lengths), PROMPTS[0], seed=seed, **sample)  # warms up
        for length in lengths:
            cost = measure(arm, length, PROMPTS[0], seed=seed, **sample)
            made = make(list(prompts), num_frames=length, seed=seed, progress=False, **sample)
            frames = to_uint8(2 * made.frames - 1).numpy()
            rows.append(
                {
                    "frames": length,
                    "made": "chunk by chunk" if is_streamed else "at once",
                    "MB remembered": cost.cache_bytes / 1e6,
                    "flicker (jitter, residual) %": mean_jitter(jitter(frames)).residual,
                }
            )
    return rows


def fill_in(model: str, sample: Mapping[str, Any], seed: int, is_smoke: bool = False) -> Rows:
    """How well the last stage of a cascade fills in between true keyframes, beside simple rules.

    Args:
        model: What ``vdm.load`` takes; nothing is measured of what is no cascade.
        sample: Arguments of the call.
        seed: Of the noise.
        is_smoke: Do the least.
    """
    cascade: Any = vdm.load(model)
    if not isinstance(cascade, Cascade):
        return []
    settings = {name: sample[name] for name in ("steps", "guidance_scale") if name in sample}
    return _filled_in(cascade.last, cascade.stride, seed, is_smoke, **settings)


def fill_in_by_steps(
    model: str, sample: Mapping[str, Any], seed: int, is_smoke: bool = False
) -> Rows:
    """How well a model fills in every second latent frame, in few steps and in many.

    One step makes the mean of what may be there, more of them one thing that may be: the mean is
    nearer to the truth, a sample is sharper. Captions are told, nothing is guided.

    Args:
        model: What ``vdm.load`` takes; of a cascade the last stage fills in.
        sample: Arguments of the call, of which none counts here.
        seed: Of the noise.
        is_smoke: Do the least.
    """
    generate: Any = vdm.load(model)
    filler = generate.last if isinstance(generate, Cascade) else generate
    rows: Rows = []
    for steps in FILL_STEPS[:1] if is_smoke else FILL_STEPS:
        is_first = steps == FILL_STEPS[0]
        asked = {"steps": steps, "guidance_scale": 1.0, "beside_rules": is_first}
        found = {row[BY]: row for row in _filled_in(filler, 2, seed, is_smoke, **asked)}
        rows.append({**found.pop(OURS), BY: f"the network, steps {steps}"})
        if is_first:
            rows += found.values()
    return rows


def _filled_in(filler: Any, stride: int, seed: int, is_smoke: bool, **settings: Any) -> Rows:
    """Scores of frames between every ``stride``-th latent frame, by whom they are filled in."""
    n = 2 if is_smoke else 64
    found = interpolation_scores(filler, stride, n=n, seed=seed, num_resamples=10, **settings)
    return [
        {BY: name, "PSNR dB": scores["psnr"].value, "SSIM": scores["ssim"].value}
        for name, scores in found.items()
    ]


def _mean_distance(clips: Clips) -> float:
    """Mean over all pairs."""
    values = clips.astype(np.float32) / 255
    return float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in combinations(values, 2)]))
