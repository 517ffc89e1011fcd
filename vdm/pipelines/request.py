"""What one call asks for, checked against what the model can do, before anything is computed."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vdm.conditioning.picture import SeenFrame
from vdm.pretrained.parts import Defaults, Parts
from vdm.utils.time_grid import TimeGrid

Scale = float | tuple[float, float]


@dataclass(frozen=True)
class Geometry:
    """Sizes that a model can make: multiples of pixels per token.

    Args:
        strides: Pixels per latent along (t, h, w).
        patch_size: Latents per token along (t, h, w).
        pads_frames: Whether latent frames that do not fill whole tokens get more in front of them,
            which are made with the others and then left out.
        piece: Frames that the autoencoder encodes by themselves; None for whole clips.
        num_ahead: Latent frames ahead of a clip that are made and decoded with it, and left out.
    """

    strides: tuple[int, int, int]
    patch_size: tuple[int, int, int]
    pads_frames: bool = False
    piece: int | None = None
    num_ahead: int = 0

    def num_latent_frames(self, grid: TimeGrid) -> int:
        """Latent frames that are made for a clip, those in front of it included."""
        patch = self.patch_size[0]
        return -(-grid.num_latent_frames // patch) * patch + self.num_ahead

    def check_pixels(self, **sizes: int) -> None:
        """Refuse sizes that do not fill whole tokens.

        Args:
            sizes: ``height`` and ``width``.

        Raises:
            ValueError: If one is not a multiple; it names the nearest that is.
        """
        for axis, (name, size) in enumerate(sizes.items(), start=1):
            multiple = self.strides[axis] * self.patch_size[axis]
            if size < 1 or size % multiple:
                nearest = max(1, round(size / multiple)) * multiple
                raise ValueError(
                    f"got {name}={size}, expected a multiple of {multiple}; nearest: {nearest}"
                )

    def check_frames(self, grid: TimeGrid) -> None:
        """Refuse numbers of frames whose latents do not fill whole tokens.

        Raises:
            ValueError: If so; it names the nearest number that does.
        """
        patch, have = self.patch_size[0], grid.num_latent_frames
        if have % patch and not self.pads_frames:
            latent = max(1, round(have / patch)) * patch
            nearest = 1 + (latent - 1) * grid.stride
            raise ValueError(
                f"got num_frames={grid.num_frames}, which makes {have} latent frames, expected a "
                f"multiple of {patch}; nearest: {nearest} frames"
            )


def geometry_of(parts: Parts) -> Geometry:
    """The sizes that a model can make."""
    network, autoencoder = parts.network, parts.autoencoder
    patch_size = getattr(network, "multiples", getattr(network, "patch_size", (1, 1, 1)))
    return Geometry(
        getattr(autoencoder, "strides", (1, 1, 1)),
        patch_size,
        parts.defaults.pads_frames,
        getattr(autoencoder, "frames_per_piece", None),
        int(isinstance(parts.given, SeenFrame) and parts.given.is_ahead),
    )


def time_grid_for(
    defaults: Defaults,
    stride: int,
    num_frames: int | None,
    seconds: float | None,
    fps: float | None,
    piece: int | None = None,
) -> TimeGrid:
    """The clip's time axis from any two of frames, seconds and frame rate.

    Raises:
        ValueError: If all three are given and disagree, or one is not positive.
    """
    if num_frames is not None and seconds is not None:
        implied = num_frames / seconds if seconds > 0 else 0.0
        if fps is not None and abs(fps - implied) > 1e-6:
            raise ValueError(
                f"got num_frames={num_frames}, seconds={seconds:g} and fps={fps:g}; "
                f"expected two of them, e.g. fps={implied:g}"
            )
        return TimeGrid(num_frames, implied, stride, piece)
    fps = defaults.fps if fps is None else fps
    if seconds is not None:
        if not seconds > 0:
            raise ValueError(f"got seconds={seconds:g}, expected more than 0")
        TimeGrid(1, fps, stride)
        return TimeGrid.from_seconds(seconds, fps, stride, piece)
    return TimeGrid(defaults.num_frames if num_frames is None else num_frames, fps, stride, piece)


def check_steps(steps: int) -> int:
    """The number of sampling steps.

    Raises:
        ValueError: If it is less than one.
    """
    if steps < 1:
        raise ValueError(f"got steps={steps}, expected at least 1")
    return steps


def check_scale(scale: float | Sequence[float]) -> Scale:
    """A guidance scale: a number, or one for the first and one for the last frame.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(scale, (int, float)):
        return float(scale)
    pair = tuple(float(value) for value in scale)
    if len(pair) != 2:
        raise ValueError(f"got {len(pair)} guidance scales, expected one, or two for a ramp")
    return pair[0] if pair[0] == pair[1] else (pair[0], pair[1])


def check_output(output: str) -> None:
    """Refuse what a call cannot return.

    Raises:
        ValueError: If it is neither ``"video"`` nor ``"latents"``.
    """
    if output not in ("video", "latents"):
        raise ValueError(f"got output={output!r}, expected 'video' or 'latents'")


def tell_scale(
    network: Any, raw: dict[str, Tensor], scale: Scale, asked: object, negative: object
) -> Scale:
    """Tell a network the guidance scale that reads it, one distilled from guided predictions.

    Args:
        network: The network.
        raw: Fields of the conditioning that the user gives; the scale is added unless it is there.
        scale: The guidance scale.
        asked: What the user says of it.
        negative: The negative prompt, which such a network is not led away from.

    Returns:
        The scale between two predictions: 1 where the network is told it, or is told another one.

    Raises:
        ValueError: If the scale is a ramp, or there is a negative prompt without a scale for it.
    """
    if "guidance" not in getattr(network, "reads", ()):
        return scale
    if "guidance" in raw:
        return scale if asked is not None else 1.0
    if isinstance(scale, tuple):
        raise ValueError(f"got the ramp {scale}, expected one number: the network is told it")
    if negative is not None:
        raise ValueError(
            "got negative_prompt and a network that is told its guidance scale, expected "
            "cond={'guidance': [6.0]} besides, so that guidance_scale is between two predictions"
        )
    raw["guidance"] = torch.tensor([scale])
    return 1.0


def named(module: ModuleType, name: str, kind: str) -> Callable[..., Any]:
    """A public function of a module.

    Args:
        module: Where to look.
        name: What for.
        kind: What it is called in the message.

    Raises:
        ValueError: If there is none of that name; it lists those that there are.
    """
    first = "denoise" if kind == "sampler" else "num_steps"
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value)
        and not key.startswith("_")
        and next(iter(inspect.signature(value).parameters), None) == first
    }
    if name not in found:
        nearest = difflib.get_close_matches(name, found, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"got {kind} {name!r}, expected one of {', '.join(sorted(found))}; nearest: {nearest}"
        )
    return found[name]
