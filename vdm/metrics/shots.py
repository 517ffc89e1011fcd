"""Where a video is cut: TransNet V2 whole, with the heads that find the ends of shots.

The weights are those of ``fd/transnet``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.metrics.transnet import (
    DIMS,
    EXTRACTOR,
    HEIGHT,
    WEIGHTS,
    WIDTH,
    TransNet,
    prepare,
    trunk_weights,
)
from vdm.utils.video_reader import VideoReader

REACH = 50
"""Frames before and behind that each frame is compared with."""
WINDOW, STEP = 100, 50
"""Frames that are looked at together, of which those in the middle are told."""
THRESHOLD = 0.5
SHORT_SIDE = 2 * HEIGHT
CHUNK = 500
"""Frames that are decoded together."""


class Similarity(nn.Module):
    """How alike each frame is to its neighbours, as features.

    Args:
        dim: Features that come out.
    """

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * REACH + 1, dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t _"]:
        """From something that describes each frame."""
        x = F.normalize(x, dim=2)
        padded = F.pad(torch.einsum("b t d, b s d -> b t s", x, x), (REACH, REACH))
        frame = torch.arange(x.shape[1], device=x.device)
        near = frame.unsqueeze(1) + torch.arange(2 * REACH + 1, device=x.device)
        return F.relu(self.fc(padded.gather(2, repeat(near, "t k -> b t k", b=len(x)))))


def colours(frames: UInt8[Tensor, "b t h w 3"]) -> Float[Tensor, "b t 512"]:
    """How often each colour occurs in each frame, of 8 levels a channel."""
    levels = frames.long() >> 5
    bins = (levels[..., 0] << 6) + (levels[..., 1] << 3) + levels[..., 2]
    flat = rearrange(bins, "b t h w -> b t (h w)")
    counts = torch.zeros(*flat.shape[:2], 512, device=frames.device)
    return counts.scatter_add_(2, flat, torch.ones_like(flat, dtype=counts.dtype))


class ShotDetector(nn.Module):
    """Says of each frame whether a shot ends with it.

    Source:
        Soucek and Lokoc 2020, "TransNet V2: An effective deep network architecture for fast shot
        transition detection", arXiv:2008.04838, figure 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = TransNet()
        self.projection = nn.Linear(sum(DIMS), 128)
        self.looks, self.colours = Similarity(), Similarity()
        self.fc = nn.Linear(DIMS[-1] * (HEIGHT // 8) * (WIDTH // 8) + 2 * 128, 1024)
        self.end = nn.Linear(1024, 1)

    def forward(self, frames: UInt8[Tensor, "b t 27 48 3"]) -> Float[Tensor, "b t"]:
        """Logits, one for each frame."""
        maps = self.trunk.maps(rearrange(frames / 255, "b t h w c -> b c t h w"))
        means = torch.cat([reduce(x, "b c t h w -> b t c", "mean") for x in maps], 2)
        parts = [
            self.colours(colours(frames)),
            self.looks(self.projection(means)),
            rearrange(maps[-1], "b c t h w -> b t (h w c)"),
        ]
        return self.end(F.relu(self.fc(torch.cat(parts, 2)))).squeeze(2)


def load_shot_detector(path: str | Path | None = None) -> ShotDetector:
    """The network with its published weights.

    Args:
        path: File of the weights; the one in the installed package if None.

    Raises:
        FileNotFoundError: If there is no file of that name.
        ImportError: If none is named and the package is not installed.
        ValueError: If the file is not the published one.
    """
    theirs = torch.load(WEIGHTS.find(path), map_location="cpu", weights_only=True)
    network = ShotDetector()
    network.load_state_dict(_renamed(theirs))
    return network.eval().requires_grad_(False)


def _renamed(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names; the second head is left out."""
    names = {
        "projection": "frame_sim_layer.projection",
        "looks.fc": "frame_sim_layer.fc",
        "colours.fc": "color_hist_layer.fc",
        "fc": "fc1",
        "end": "cls_layer1",
    }
    ours = {f"trunk.{name}": weight for name, weight in trunk_weights(theirs).items()}
    for new, old in names.items():
        ours |= {f"{new}.{key}": theirs[f"{old}.{key}"] for key in ("weight", "bias")}
    return ours


class SceneCuts:
    """Finds the shots of a video.

    Args:
        weights: See :func:`load_shot_detector`.

    Attributes:
        id: Everything that the cuts depend on.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        self.network = load_shot_detector(weights)
        self.id = f"{EXTRACTOR}/threshold{THRESHOLD:g}/r1"

    def __call__(self, reader: VideoReader) -> list[tuple[int, int]]:
        """First frame of each shot, and the one behind its last.

        A shot ends with the first frame of a cut or transition; what follows up to its end belongs
        to none.
        """
        ends = self.probabilities(_small(reader)) > THRESHOLD
        starts = np.flatnonzero(~ends & np.concatenate([[True], ends[:-1]]))
        stops = np.flatnonzero(ends & ~np.concatenate([[False], ends[:-1]]))
        shots = []
        for start in starts:
            later = stops[stops >= start]
            shots.append((int(start), int(later[0]) + 1 if len(later) else len(ends)))
        return shots or [(0, len(ends))]

    def probabilities(self, frames: UInt8[np.ndarray, "t 27 48 3"]) -> Float[np.ndarray, " t"]:
        """That a shot ends with each frame."""
        before = (WINDOW - STEP) // 2
        behind = before + -len(frames) % STEP
        padded = torch.from_numpy(np.pad(frames, ((before, behind), *[(0, 0)] * 3), mode="edge"))
        found = []
        with torch.inference_mode():
            for start in range(0, len(padded) - WINDOW + 1, STEP):
                logits = self.network(padded[start : start + WINDOW].unsqueeze(0))[0]
                found.append(logits[before : before + STEP].sigmoid().numpy())
        return np.concatenate(found)[: len(frames)]


def _small(reader: VideoReader) -> UInt8[np.ndarray, "t 27 48 3"]:
    """All frames of a video as the network wants them: whole, the aspect ratio not kept."""

    def parts() -> Iterator[np.ndarray]:
        height, width = reader.picture_size
        scale = SHORT_SIDE / min(height, width)
        size = (round(height * scale), round(width * scale))
        with VideoReader(reader.path, size, 1, reader.part, reader.index) as small:
            for start in range(0, len(reader), CHUNK):
                numbers = list(range(start, min(start + CHUNK, len(reader))))
                pixels = rearrange(prepare(small.read(numbers)), "1 c t h w -> t h w c")
                yield (255 * pixels).round().byte().numpy()

    return np.concatenate(list(parts()))
