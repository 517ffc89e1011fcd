"""What single frames look like to Inception v3: features for FID, classes for the Inception Score.

The network is that of the original TensorFlow code; its weights are a file that the user has, as no
package brings them: the one that torch-fidelity, torchmetrics and pytorch-fid read, whose name ends
in ``inception-2015-12-05-6726825d.pth``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.resize import resize_as_tf1
from vdm.metrics.score import NUM_RESAMPLES, Score, resample_indices
from vdm.metrics.weights_file import WeightsFile, reading

NAME = "inception"
NUM_FEATURES, NUM_CLASSES = 2048, 1008
SIDE = 299
RESIZE_RULE = f"{SIDE}x{SIDE}-bilinear-tf1"
"""How frames reach the network, for protocol ids: the aspect ratio is not kept."""
SPLITS = 10
Layer = Literal["pool", "classes"]


def _network() -> nn.Module:
    """Inception v3 as the original code has it: of torchvision's, whose pooling differs."""
    from torchvision.models import inception

    def inside(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def block(kind: type[nn.Module]) -> type[nn.Module]:
        class Block(kind):  # type: ignore[misc, valid-type]
            pool = staticmethod(inside)

            def _forward(self, x: Tensor) -> list[Tensor]:
                *others, _ = super()._forward(x)
                return [*others, self.branch_pool(self.pool(x))]

        return Block

    class Last(block(inception.InceptionE)):  # type: ignore[misc]
        """Takes the largest of neighbours."""

        pool = staticmethod(partial(F.max_pool2d, kernel_size=3, stride=1, padding=1))

    a, c, e = map(block, (inception.InceptionA, inception.InceptionC, inception.InceptionE))
    same = (inception.BasicConv2d, inception.InceptionB, inception.InceptionD)
    blocks = [same[0], a, same[1], c, same[2], e, inception.InceptionAux]
    network = inception.Inception3(NUM_CLASSES, False, False, blocks, init_weights=False)
    network.Mixed_7c = Last(2048)
    return network


class Inception:
    """The network with weights out of a file.

    Args:
        weights: The file, see :meth:`WeightsFile.of`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If torchvision is not installed.
        ValueError: If the file does not hold the weights of this network.

    Source:
        Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision",
        arXiv:1512.00567; as Heusel et al. 2017, arXiv:1706.08500, use it.
    """

    def __init__(self, weights: str | Path) -> None:
        file = WeightsFile.of(weights)
        with reading(f"{file.path}: not the weights of Inception v3", NAME):
            with torch.device("meta"):
                network = _network()
            state = torch.load(file.path, map_location="cpu", weights_only=True)
            network.load_state_dict(state, assign=True)
        self.network = network.eval().requires_grad_(False)
        self.classifier: Tensor = network.fc.weight  # type: ignore[assignment, union-attr]
        self.network.fc = nn.Identity()
        self.id = f"{NAME}@{file.id}"
        self._last: tuple[bytes, dict[str, np.ndarray]] | None = None

    def frames(self, clips: Clips, layer: Layer) -> Float[np.ndarray, "b t d"]:
        """2,048 features or 1,008 logits of every frame; clips go through one by one.

        Args:
            clips: uint8 clips.
            layer: Which of them; both are kept of the last clips, as both are wanted in turn.
        """
        check_clips(clips)
        key = clips.tobytes()
        if self._last is None or self._last[0] != key:
            rows = [self._clip(torch.from_numpy(clip)) for clip in clips]
            self._last = key, {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return self._last[1][layer]

    def _clip(self, frames: Tensor) -> dict[str, np.ndarray]:
        pixels = resize_as_tf1(rearrange(frames.float(), "t h w c -> t c h w"), SIDE)
        with torch.inference_mode():
            pool = self.network((pixels - 128) / 128)
            classes = pool @ self.classifier.T  # without bias, as in the original code
        return {"pool": pool.numpy(), "classes": classes.numpy()}

    def pool(self, clips: Clips) -> Float[np.ndarray, "b n"]:
        """Features of a clip's frames, one after the other."""
        return rearrange(self.frames(clips, "pool"), "b t d -> b (t d)")

    def classes(self, clips: Clips) -> Float[np.ndarray, "b n"]:
        """Logits of a clip's frames, one after the other."""
        return rearrange(self.frames(clips, "classes"), "b t d -> b (t d)")


def inception_score(
    logits: Float[np.ndarray, "n t k"],
    protocol: str,
    num_resamples: int = NUM_RESAMPLES,
    splits: int = SPLITS,
    seed: int = 0,
) -> Score:
    """How sure the classes of frames are, and how many classes there are.

    Args:
        logits: Of the frames of every video.
        protocol: Protocol id.
        num_resamples: Bootstrap resamples of videos; the interval is centred on the value.
        splits: Videos are cut into so many sets in their order, and the scores of these averaged.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are fewer videos than splits.

    Source:
        Salimans et al. 2016, "Improved Techniques for Training GANs", arXiv:1606.03498, sec. 4.
    """
    if len(logits) < splits:
        raise ValueError(f"got {len(logits)} clips, expected at least {splits}")
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    p = np.exp(log_p)
    classes, sureness = p.mean(1), (p * log_p).sum(-1).mean(1)

    def score(rows: np.ndarray) -> float:
        found = []
        for some in np.array_split(rows, splits):
            mean = classes[some].mean(0)
            entropy = -(mean * np.log(mean, where=mean > 0, out=np.zeros_like(mean))).sum()
            found.append(np.exp(sureness[some].mean() + entropy))
        return float(np.mean(found))

    n = len(logits)
    value = score(np.arange(n))
    drawn = [score(rows) for rows in resample_indices(n, num_resamples, seed)]
    low, high = value + np.percentile(drawn, [2.5, 97.5]) - np.mean(drawn)
    return Score(value, protocol, 0, n, (float(min(low, value)), float(max(high, value))))
