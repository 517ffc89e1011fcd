"""The minute of training in ``vdm demo``: a run like any other, by ``vdm fit``, in its process."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from vdm import world
from vdm.data.real_clips import RealClips
from vdm.pipelines import load
from vdm.pipelines.clip import Clip
from vdm.pipelines.showcase import as_clip

RECIPES = Path(__file__).parent
NAME = "first-minute"
"""What ``demo.yaml`` calls its model."""
FOLDER_KEY = "--data.init_args.videos.init_args.folder"


@dataclass(frozen=True)
class FirstMinute:
    """What a short run gave.

    Args:
        data: What it was trained on, in words.
        losses: Step and validation loss.
        clips: A held-out clip, and what the network makes of its first frame.
    """

    data: str
    losses: list[tuple[int, float]]
    clips: list[tuple[str, Clip]]

    def said(self) -> str:
        """What became of the validation loss, in words."""
        (first, before), (last, after) = self.losses[0], self.losses[-1]
        if first == last:
            return f"was {after:.3f} at step {last}, the only time that there was"
        verb = "fell" if after < before else "did not fall"
        return f"{verb} from {before:.3f} (step {first}) to {after:.3f} (step {last})"


def first_minute(
    model: str, real: Path | None, folder: Path, seconds: int, overrides: Sequence[str] = ()
) -> FirstMinute:
    """Train a small network on latents of a model's autoencoder.

    Args:
        model: Whose autoencoder.
        real: Folder of real clips; None trains on the embedded world.
        folder: Of the run; an earlier run of the demo in it is replaced, no other.
        seconds: Training stops after so many.
        overrides: Further keys of the recipe, as on the command line.

    Raises:
        RuntimeError: If the run fails or ends before the first validation.
        ValueError: If the folder holds another run.
    """
    check_folder(folder)
    if (folder / "config.yaml").is_file():
        shutil.rmtree(folder)
    words = ["--config", str(RECIPES / "demo.yaml")]
    if real is not None:
        words += ["--config", str(RECIPES / "demo_real.yaml"), FOLDER_KEY, str(real)]
    words += ["--model.init_args.autoencoder", model, "--output", str(folder)]
    words += ["--data.init_args.cache_dir", str(folder.parent / "cache")]
    words += ["--trainer.max_time", f"00:00:{seconds // 60:02d}:{seconds % 60:02d}"]
    words += overrides
    done = subprocess.run([sys.executable, "-m", "vdm.cli", "fit", *words], check=False)
    if done.returncode:
        raise RuntimeError(f"training ended with status {done.returncode}: see the lines above")
    losses = validation_losses(folder)
    if not losses:
        raise RuntimeError(f"training ended before its first validation, after {seconds} s")
    if real is None:
        data, source = "latents of the embedded world", None
    else:
        source = RealClips(real, "val", count=1)
        data = f"latents of {len(RealClips(real, 'train', count=1).entries)} real videos"
    frames = source.clip(0)[0] if source else world.render(world.scene("val", 0, 0))
    generate = load(folder)
    first = torch.from_numpy(frames[0].copy()).movedim(-1, 0).float() / 255
    made = cast(Clip, generate(image=first, seed=0))
    return FirstMinute(data, losses, [("held out", as_clip(frames)), ("its first frame, on", made)])


def check_folder(folder: Path) -> None:
    """Refuse a folder with a run that the demo did not make.

    Raises:
        ValueError: If it holds one.
    """
    config = folder / "config.yaml"
    if config.is_file() and f"name: {NAME}\n" not in config.read_text(encoding="utf-8"):
        raise ValueError(f"{folder} holds a run that is not the demo's, expected another --output")


def validation_losses(folder: Path) -> list[tuple[int, float]]:
    """Step and validation loss, from the table that every run writes."""
    tables = sorted(folder.glob("logs/csv/*/metrics.csv"))
    rows = [row for table in tables for row in csv.DictReader(table.open(encoding="utf-8"))]
    return [(int(row["step"]) + 1, float(row["val/loss"])) for row in rows if row.get("val/loss")]
