"""How well frames between keyframes are filled in, beside rules that need no network.

Only frames that no given latent covers are compared with the true ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from vdm.data.clip_cache import ClipSource
from vdm.data.sources import ShapesSource
from vdm.metrics.between import Between, flow_warp, hold, linear
from vdm.metrics.clips import Clips, quantise
from vdm.metrics.optical_flow import FlowEstimator
from vdm.metrics.reconstruction import psnr_per_frame, ssim_per_frame
from vdm.metrics.score import NUM_RESAMPLES, Protocol, Score, mean_score
from vdm.pipelines.generate import Generator
from vdm.pipelines.interpolate import interpolate
from vdm.utils.rng import derive_seed
from vdm.utils.time_grid import TimeGrid
from vdm.utils.video_io import from_uint8

OURS, CEILING = "interpolated", "decoded"
DECODED = ", decoded"
"""Ends the name of a rule that is given frames as they leave the decoder."""


def interpolation_scores(
    generator: Generator,
    stride: int = 2,
    *,
    source: ClipSource | None = None,
    n: int = 128,
    batch_size: int = 16,
    seed: int = 0,
    prompts: bool = True,
    beside_rules: bool = True,
    num_resamples: int = NUM_RESAMPLES,
    progress: bool = False,
    **settings: Any,
) -> dict[str, dict[str, Score]]:
    """PSNR and SSIM of the frames that were not given.

    The network is given true latents and makes latents, which are decoded. The rules on pixels are
    given the true frames that those latents cover, untouched by the autoencoder: that favours them.
    ``decoded`` is what the autoencoder leaves of the true clip: the network can reach no more. A
    rule that repeats a still clip scores 100 dB on it, so read SSIM beside PSNR.

    Args:
        generator: A model that was trained with given keyframes.
        stride: Latent frames from one given to the next.
        source: Clips; ``test-iid`` in the size that the model makes if None.
        n: How many clips, from the first.
        batch_size: Clips made together; it changes no score.
        seed: Clip ``k`` starts from noise keyed by (seed, k).
        prompts: Tell the network the captions.
        beside_rules: Measure what needs no network as well; that is the same for every setting.
        num_resamples: Bootstrap resamples.
        progress: Show a progress bar.
        settings: Further arguments of the model: ``steps``, ``guidance_scale``, ``factors``, ...

    Returns:
        ``psnr`` and ``ssim`` by method: ``interpolated``, ``decoded``, and ``hold``, ``linear`` and
        ``flow_warp`` twice, each with its count and 95 % interval over clips.

    Raises:
        ValueError: If a count is impossible, or all frames would be given.
    """
    source = _test_clips(generator, n) if source is None else source
    if not 1 <= n <= len(source) or batch_size < 1:
        raise ValueError(
            f"got n={n}, batch_size={batch_size}, expected 1 to {len(source)} and at least 1"
        )
    frames = source.clip(0)[0].shape[0]
    grid = TimeGrid(frames, generator.parts.defaults.fps, generator.geometry.strides[0])
    known = covered_frames(grid, stride)
    if known.all():
        raise ValueError(f"got stride={stride}, which gives all {frames} frames, expected fewer")
    rules: dict[str, Between] = {}
    if beside_rules:
        warp = partial(flow_warp, estimator=FlowEstimator())
        rules = {"hold": hold, "linear": linear, "flow_warp": warp}
    values: dict[str, dict[str, list[float]]] = {}
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        line = bar.add_task("filling in", total=n)
        for start in range(0, n, batch_size):
            indices = range(start, min(start + batch_size, n))
            pairs = [source.clip(index) for index in indices]
            real = np.stack([clip for clip, _ in pairs])
            words = [caption for _, caption in pairs] if prompts else None
            seeds = [derive_seed(seed, "interpolation", index) for index in indices]
            made = dict(_made(generator, real, stride, grid, words, seeds, settings))
            for ending, clips in (("", real), (DECODED, made[CEILING])):
                for name, rule in rules.items():
                    made[name + ending] = np.stack([rule(clip, known) for clip in clips])
            for name, clips in made.items():
                rows = values.setdefault(name, {"psnr": [], "ssim": []})
                missing = real[:, ~known], clips[:, ~known]
                rows["psnr"] += psnr_per_frame(*missing).mean(1).tolist()
                rows["ssim"] += ssim_per_frame(*missing).mean(1).tolist()
            bar.update(line, advance=len(indices))
    name = str(source.describe().get("split", "clips"))
    about = (frames, grid.fps, f"{real.shape[2]}x{real.shape[3]}", f"{name}:stride{stride}", n)
    return {
        method: {
            metric: mean_score(row, Protocol(f"fill-in/{metric}", *about).id, n, num_resamples)
            for metric, row in rows.items()
        }
        for method, rows in values.items()
    }


def covered_frames(grid: TimeGrid, stride: int) -> Bool[np.ndarray, " t"]:
    """Frames that the latent frames 0, ``stride``, ``2 * stride``, ... stand for."""
    latent = -(-np.arange(grid.num_frames) // grid.stride)
    return latent % stride == 0


def _test_clips(generator: Generator, n: int) -> ShapesSource:
    defaults = generator.parts.defaults
    return ShapesSource("test-iid", n, 0, defaults.height, defaults.num_frames, fps=defaults.fps)


@torch.no_grad()
def _made(
    generator: Generator,
    real: Clips,
    stride: int,
    grid: TimeGrid,
    prompts: list[str] | None,
    seeds: list[int],
    settings: Mapping[str, Any],
) -> Iterator[tuple[str, Clips]]:
    """What the network makes of the keyframes, and what the autoencoder leaves of the clip."""
    latents: Tensor = generator._encode(from_uint8(torch.from_numpy(real)))
    asked: dict[str, Any] = {"num_frames": grid.num_frames, "fps": grid.fps, "progress": False}
    arguments = {**asked, "seed": seeds, **settings}
    ours = interpolate(generator, latents[:, :, ::stride], stride, prompts, **arguments)
    for name, one in ((OURS, ours), (CEILING, latents)):
        yield name, quantise(generator._decode(one, grid, None).float())[0]
