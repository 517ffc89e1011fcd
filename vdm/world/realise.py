"""A scene that shows what a caption says: references and tests for any sentence of the grammar."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vdm.world import attributes as a
from vdm.world.captions import Caption, ObjectCaption, parse_caption, print_caption
from vdm.world.philox import Words
from vdm.world.placement import arrange, is_clear
from vdm.world.sampling import draw_plane
from vdm.world.scenes import Camera, Object, Scene
from vdm.world.visibility import visible_fraction

MAX_OBJECTS = 3
_ROUNDS = 20


def scene_from_caption(caption: Caption | str, seed: int = 0) -> Scene:
    """Draw what the caption leaves open; an unsaid texture is plain.

    Args:
        caption: What to show, or a sentence that says it.
        seed: Another seed gives another scene of the same caption.

    Raises:
        ValueError: If the sentence is outside the grammar, an object cannot be drawn so, two have
            the same colour, or there is no room for all of them.
    """
    told = parse_caption(caption) if isinstance(caption, str) else caption
    _check(told)
    text = print_caption(told)
    words = Words("moving-shapes", a.VERSION, "caption", seed, text)
    camera, plane = Camera(told.camera), draw_plane(words)
    for _ in range(_ROUNDS):
        objects = tuple(_draw(words, thing) for thing in told.objects)
        plan = Scene(objects, camera, plane, "caption", seed)
        found = arrange(words, plan, a.NUM_FRAMES, _is_readable)
        if found is not None:
            return found
    raise ValueError(
        f"got {text!r}, expected objects that stay in the frame and clear of each other "
        f"for {a.NUM_FRAMES} frames: try fewer, smaller or slower ones"
    )


def _is_readable(scene: Scene) -> bool:
    """Whether every object can be seen in all frames, nearly whole."""
    frames = np.arange(a.NUM_FRAMES, dtype=np.float64)
    return is_clear(scene, a.NUM_FRAMES) or bool(visible_fraction(scene, frames).min() >= 0.99)


def _check(told: Caption) -> None:
    if not 1 <= len(told.objects) <= MAX_OBJECTS:
        raise ValueError(f"got {len(told.objects)} objects, expected 1 to {MAX_OBJECTS}")
    colours = sorted(thing.colour for thing in told.objects)
    for colour, other in pairwise(colours):
        if colour == other:
            raise ValueError(f"got two {colour} objects, expected different colours")
    for thing in told.objects:
        if not _sizes(thing):
            raise ValueError(
                f"got a {thing.size + ' ' if thing.size else ''}{thing.shape} with the motion "
                f"{thing.motion!r}, expected no spin of a circle or ring, growth only from small, "
                "shrinking only from large"
            )


def _sizes(thing: ObjectCaption) -> list[str]:
    """Sizes that the caption leaves open and the motion allows."""
    said = [thing.size] if thing.size else list(a.SIZES)
    return [size for size in said if a.is_drawable(thing.shape, thing.motion, size)]


def _draw(words: Words, thing: ObjectCaption) -> Object:
    speed = thing.speed or words.choice(a.SPEEDS)
    return Object(
        colour=thing.colour,
        shape=thing.shape,
        texture=thing.texture or "plain",
        size=words.choice(_sizes(thing)),
        motion=thing.motion,
        speed=None if thing.motion == "static" else speed,
        angle=words.uniform(0, 2 * np.pi),
    )
