"""What a model can do, shown and scored: from words, from a first frame, through its autoencoder.

The building blocks of the demo and of the picture in the README.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from vdm import world
from vdm.metrics.captions import CaptionScore, score_caption
from vdm.metrics.oracle import read_clip
from vdm.metrics.reconstruction import psnr, ssim
from vdm.pipelines.clip import Clip
from vdm.pipelines.generate import Generator
from vdm.utils.video_io import from_uint8, to_uint8

CAPTIONS = (
    "a red circle moves left",
    "a large blue square spins clockwise",
    "a small green triangle bounces off the walls",
    "a yellow star moves in a circle counterclockwise",
    "a small cyan bar grows quickly",
    "a large orange cross shrinks slowly",
    "a purple ring stays still and a pink star moves up",
    "a striped red square moves right slowly and a blue ring bounces off the walls",
)
"""The captions of the README. No clip with a red circle was in the training data."""


@dataclass(frozen=True)
class Shown:
    """A generated clip and what it took.

    Args:
        prompt: What was asked for.
        clip: What came.
        score: What of it is right; None if the prompt is no caption of the world.
        seconds: Sampling and decoding, for this clip.
    """

    prompt: str
    clip: Clip
    score: CaptionScore | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the frames."""
        right = {} if self.score is None else {**self.score.correct, "whole": self.score.whole}
        return {
            "prompt": self.prompt,
            "seed": self.clip.metadata.get("seed"),
            "seconds": round(self.seconds, 3),
            "right": {name: bool(value) for name, value in right.items()},
        }


@dataclass(frozen=True)
class Reconstruction:
    """A clip and what is left of it after the autoencoder.

    Args:
        original: The clip.
        decoded: Encoded and decoded.
        psnr: In dB, mean over frames.
        ssim: Structural similarity, mean over frames.
        compression: Numbers in the clip per number in its latents.
    """

    original: Clip
    decoded: Clip
    psnr: float
    ssim: float
    compression: float

    def to_dict(self) -> dict[str, float]:
        """Plain data, without the frames."""
        return {"psnr": self.psnr, "ssim": self.ssim, "compression": self.compression}


def words_to_video(
    generate: Generator, prompts: Sequence[str], seed: int = 0, batch_size: int = 4, **settings: Any
) -> list[Shown]:
    """One clip per prompt, read back by the program that knows the world.

    Args:
        generate: The model.
        prompts: What to show; clip ``k`` uses ``seed + k``.
        seed: Of the first clip.
        batch_size: Clips made together.
        settings: Further arguments of the generator.
    """
    shown: list[Shown] = []
    for start in range(0, len(prompts), batch_size):
        chunk = list(prompts[start : start + batch_size])
        begin = time.perf_counter()
        clips = cast(Clip, generate(chunk, seed=seed + start, **settings))
        seconds = (time.perf_counter() - begin) / len(chunk)
        for prompt, clip in zip(chunk, clips, strict=True):
            shown.append(Shown(prompt, clip, judge(clip, prompt), seconds))
    return shown


def judge(clip: Clip, prompt: str) -> CaptionScore | None:
    """What of a caption of the world a clip shows; None for other prompts and other shapes."""
    frames = clip.uint8()[0]
    if frames.shape[1] != frames.shape[2] or len(frames) < 4:
        return None
    try:
        return score_caption(read_clip(frames), prompt)
    except ValueError:
        return None


def as_clip(frames: UInt8[np.ndarray, "t h w 3"], fps: float = 8.0, **metadata: Any) -> Clip:
    """Frames of a file or of the world as a clip."""
    video = from_uint8(torch.from_numpy(np.ascontiguousarray(frames)))
    return Clip(((video + 1) / 2)[None], fps, metadata)


@torch.no_grad()
def through_autoencoder(
    generate: Generator, frames: UInt8[np.ndarray, "t h w 3"], fps: float = 8.0
) -> Reconstruction:
    """Encode and decode a clip.

    Args:
        generate: The model whose autoencoder is used.
        frames: The clip; its size is a multiple of the autoencoder's strides.
        fps: Frames per second.

    Raises:
        ValueError: If the model has no autoencoder.
    """
    if generate.autoencoder is None:
        raise ValueError(f"model {generate.parts.name!r} has no autoencoder")
    like = next(generate.autoencoder.parameters())
    video = from_uint8(torch.from_numpy(np.ascontiguousarray(frames)))[None]
    latents = generate.autoencoder.encode(video.to(like))
    decoded = generate.autoencoder.decode(latents, num_frames=video.shape[2])
    result = to_uint8(decoded).cpu().numpy()
    return Reconstruction(
        original=as_clip(frames, fps),
        decoded=as_clip(result[0], fps),
        psnr=float(psnr(frames[None], result)[0]),
        ssim=float(ssim(frames[None], result)[0]),
        compression=video.numel() / latents.numel(),
    )


def continue_frame(
    generate: Generator, index: int = 0, split: str = "test-iid", **settings: Any
) -> tuple[Shown, Clip]:
    """A clip from the first frame and the caption of a clip of the world, and that clip.

    Args:
        generate: The model.
        index: Number of the world's clip.
        split: Where it is from.
        settings: Further arguments of the generator.
    """
    scene = world.scene(split, 0, index)
    frames = world.render(scene, generate.parts.defaults.height, generate.parts.defaults.num_frames)
    prompt = world.print_caption(scene)
    first = torch.from_numpy(frames[0]).movedim(-1, 0).float() / 255
    begin = time.perf_counter()
    clip = cast(Clip, generate(prompt, image=first, **settings))
    seconds = time.perf_counter() - begin
    return Shown(prompt, clip, judge(clip, prompt), seconds), as_clip(frames, prompt=prompt)


def gather(clips: Sequence[Clip]) -> Clip:
    """Clips of one size as one, with a prompt and a seed for each."""
    about = {name: [one.metadata.get(name) for one in clips] for name in ("prompt", "seed")}
    return Clip(torch.cat([one.frames for one in clips]), clips[0].fps, about)


def moving_picture(shown: Sequence[Shown], columns: int = 4, zoom: int = 3) -> Clip:
    """All clips in one moving picture with their captions below: the picture of the README.

    Args:
        shown: Clips of one size.
        columns: Clips per row.
        zoom: Every pixel becomes a square of this side.
    """
    frames = gather([one.clip for one in shown]).uint8()
    frames = frames.repeat(zoom, axis=2).repeat(zoom, axis=3)
    _, t, h, w, _ = frames.shape
    gap, words = 10, 52
    rows = math.ceil(len(shown) / columns)
    height, width = rows * (h + words + gap) + gap, columns * (w + gap) + gap
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    places = []
    for k, one in enumerate(shown):
        top, left = gap + k // columns * (h + words + gap), gap + k % columns * (w + gap)
        places.append((top, left))
        for line, said in enumerate(_wrap(one.prompt, w, font)[:3]):
            draw.text((left, top + h + 2 + 16 * line), said, fill="black", font=font)
    movie = np.repeat(np.array(sheet)[None], t, axis=0)
    for (top, left), clip in zip(places, frames, strict=True):
        movie[:, top : top + h, left : left + w] = clip
    return as_clip(movie, shown[0].clip.fps, **gather([one.clip for one in shown]).metadata)


def _wrap(text: str, width: int, font: Any) -> list[str]:
    """Words in lines that are at most ``width`` pixels long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
