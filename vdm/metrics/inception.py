"""What single frames look like to Inception v3: features for FID, classes for the Inception Score.

The network is that of torch-fidelity, which is the one of the original TensorFlow code; its weights
are a file that the user has, as no package brings them. torch-fidelity and torchmetrics read the
same file, ``weights-inception-2015-12-05-6726825d.pth``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import nn

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.score import NUM_RESAMPLES, Score, resample_indices
from vdm.metrics.weights_file import WeightsFile

NAME = "inception"
NUM_FEATURES, NUM_CLASSES = 2048, 1008
RESIZE_RULE = "299x299-bilinear-tf1"
"""How frames reach the network, for protocol ids: the aspect ratio is not kept."""
LAYERS = {"pool": "2048", "classes": "logits_unbiased"}
"""What torch-fidelity calls the layers; logits are without bias, as in the original code."""
SPLITS = 10
Layer = Literal["pool", "classes"]


class Inception:
    """The network with weights out of a file.

    Args:
        weights: The file, see :meth:`WeightsFile.of`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If torch-fidelity is not installed.
        ValueError: If the file does not hold the weights of this network.
    """

    def __init__(self, weights: str | Path) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ModuleNotFoundError as error:
            raise ImportError(
                "fid and is need torch-fidelity: pip install 'vdm[metrics]'"
            ) from error
        file = WeightsFile.of(weights)
        try:
            torch.load(file.path, map_location="meta", weights_only=True)  # refuses what runs code
            self.network: nn.Module = FeatureExtractorInceptionV3(
                NAME, list(LAYERS.values()), feature_extractor_weights_path=str(file.path)
            )
        except Exception as error:  # files of others, of which each goes wrong in its own way
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"{file.path}: not the weights of Inception v3: {said}") from error
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
            self._last = key, {name: np.stack([row[name] for row in rows]) for name in LAYERS}
        return self._last[1][layer]

    def _clip(self, frames: torch.Tensor) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = self.network(rearrange(frames, "t h w c -> t c h w").contiguous())
        return {name: value.numpy() for name, value in zip(LAYERS, found, strict=True)}

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
