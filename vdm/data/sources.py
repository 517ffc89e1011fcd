"""The embedded world as a numbered source of clips, and what may be done to its captions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from vdm import world
from vdm.data.clip_cache import Clip
from vdm.world.attributes import FPS, is_held_out
from vdm.world.maps import MAPS_VERSION, NUM_MAPS, state_maps
from vdm.world.philox import Words

_MIRRORED = {
    "left": "right",
    "right": "left",
    "circle-cw": "circle-ccw",
    "circle-ccw": "circle-cw",
    "spin-cw": "spin-ccw",
    "spin-ccw": "spin-cw",
    "pan-left": "pan-right",
    "pan-right": "pan-left",
}


@dataclass(frozen=True)
class ShapesSource:
    """Clips of moving shapes: number ``index`` is the same clip in every process.

    Args:
        split: Name of the split, e.g. ``train`` or ``test-iid``.
        count: Clips in this source: numbers 0 to count - 1 of the split.
        seed: Chooses the world's sequence of scenes.
        size: Height and width in pixels.
        num_frames: Frames per clip.
        fps: Frames per second.
        num_objects: Objects in every clip; by default whatever the split draws.

    Raises:
        ValueError: If the split does not exist, or a count or size is not positive.
    """

    split: str
    count: int
    seed: int = 0
    size: int = 64
    num_frames: int = 16
    fps: float = 8.0
    num_objects: int | None = None

    def __post_init__(self) -> None:
        if self.split not in world.SPLITS:
            raise ValueError(f"got split {self.split!r}, expected one of {', '.join(world.SPLITS)}")
        for name in ("count", "size", "num_frames", "fps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"got {name}={getattr(self, name)}, expected more than 0")

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        """Everything the clips depend on; their number is no part of it."""
        about = asdict(self)
        del about["count"]
        return {"world": "moving-shapes", "version": world.VERSION, **about}

    def scene(self, index: int) -> world.Scene:
        """The parameters of clip number ``index``: the ground truth."""
        return world.scene(self.split, self.seed, index, self.num_objects)

    def clip(self, index: int) -> tuple[Clip, str]:
        """Draw clip number ``index``; its caption is the canonical one."""
        scene = self.scene(index)
        return world.render(scene, self.size, self.num_frames, self.fps), world.print_caption(scene)


@dataclass(frozen=True)
class Paraphrase:
    """Other words for a caption of the world in every pass, addressed by (seed, index, pass).

    Args:
        seed: Chooses the wordings.
    """

    seed: int = 0

    def __call__(self, caption: str, index: int, epoch: int) -> str:
        """Reword a caption: draw other verbs, leave out some of size, texture and speed."""
        words = Words("paraphrase", self.seed, index, epoch)
        return world.print_caption(world.parse_caption(caption), words)


@dataclass(frozen=True)
class StateMaps:
    """Maps of what is where in the clips of a source, see :func:`vdm.world.maps.state_maps`.

    Args:
        source: The clips.
        shape: Latents along (t, h, w).
        stride: Frames per latent; the first stands for the first frame alone.
    """

    source: ShapesSource
    shape: tuple[int, int, int]
    stride: int

    @property
    def rows_shape(self) -> tuple[int, ...]:
        """Shape of the maps of all clips."""
        return (len(self.source), NUM_MAPS, *self.shape)

    def describe(self) -> dict[str, Any]:
        """Everything the maps depend on."""
        about = {"count": len(self.source), "shape": list(self.shape), "stride": self.stride}
        return {"version": MAPS_VERSION, "source": self.source.describe(), **about}

    def __call__(self, start: int, stop: int) -> tuple[np.ndarray, list[None]]:
        """The maps of some clips in the middle of each latent's frames, for a store."""
        frames = np.arange(self.shape[0]) * self.stride - (self.stride - 1) / 2
        moments = np.maximum(frames, 0) * FPS / self.source.fps
        maps = [
            state_maps(self.source.scene(index), moments, *self.shape[1:])
            for index in range(start, stop)
        ]
        return np.stack(maps).astype(np.float16), [None] * len(maps)


def mirror_caption(caption: str) -> str | None:
    """The caption of a clip of the world with left and right exchanged.

    Returns:
        The mirrored caption; nothing if an object in the mirror shows a pair that is held out of
        training, because such a clip must not be trained on.
    """
    said = world.parse_caption(caption)
    objects = tuple(
        replace(thing, motion=_MIRRORED.get(thing.motion, thing.motion)) for thing in said.objects
    )
    if any(is_held_out(thing.colour, thing.shape, thing.motion) for thing in objects):
        return None
    camera = _MIRRORED.get(said.camera, said.camera)
    return world.print_caption(replace(said, objects=objects, camera=camera))
