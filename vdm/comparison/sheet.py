"""The same captions as every arm shows them, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

import vdm
from vdm.comparison.experiment import Experiment
from vdm.comparison.results import FOLDER
from vdm.pipelines.showcase import CAPTIONS
from vdm.utils.video_io import to_uint8

NUM_FRAMES = 4
GAP = 2


def sheet_path(experiment: Experiment, arm: str) -> Path:
    """Where the pictures of an arm lie."""
    return experiment.folder / FOLDER / f"{arm}.png"


def write_sheet(
    experiment: Experiment, arm: str, model: str, sample: Mapping[str, Any], seed: int
) -> Path:
    """Make the clips of an arm and write some frames of each: a row per caption.

    Args:
        experiment: What the arm is part of.
        arm: Its name.
        model: What ``vdm.load`` takes.
        sample: Arguments of the call.
        seed: Of the noise.
    """
    generate: Any = vdm.load(model)
    made = generate(list(CAPTIONS), seed=seed, progress=False, **sample)
    path = sheet_path(experiment, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tile(to_uint8(2 * made.frames - 1).numpy())).save(path, optimize=True)
    return path


def tile(clips: UInt8[np.ndarray, "b t h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A row per clip, of frames at equal distances, the first and the last among them."""
    num_frames = clips.shape[1]
    chosen = np.linspace(0, num_frames - 1, min(NUM_FRAMES, num_frames)).round().astype(int)
    frames = np.pad(
        clips[:, chosen], ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255
    )
    rows = [np.concatenate(list(row), axis=1) for row in frames]
    return np.concatenate(rows, axis=0)[:-GAP, :-GAP]


def write_sheets(experiment: Experiment) -> Path | None:
    """Write ``samples.png`` with the sheets of all arms; None if there is none yet."""
    from matplotlib.figure import Figure

    paths = {arm.name: sheet_path(experiment, arm.name) for arm in experiment.arms}
    found = {name: np.asarray(Image.open(path)) for name, path in paths.items() if path.is_file()}
    if not found:
        return None
    height, width, _ = next(iter(found.values())).shape
    inches = 3.0
    figure = Figure(
        (2.6 + inches * len(found), 0.4 + inches * height / width), layout="constrained"
    )
    axes = np.atleast_1d(figure.subplots(1, len(found)))
    for axis, (name, picture) in zip(axes, found.items(), strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    places = (np.arange(len(CAPTIONS)) + 0.5) * height / len(CAPTIONS)
    axes[0].set_yticks(places, CAPTIONS, fontsize=7)
    axes[0].tick_params(length=0)
    path = experiment.folder / "samples.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
