"""Scenes in words and back: printer and parser of the caption grammar are inverse.

caption := object { " and " object } [ ", " camera ] "."
object  := "a " [size] [texture] colour shape verb [speed]
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, TypeVar

from vdm.world import attributes as a
from vdm.world.philox import Words
from vdm.world.scenes import Scene

T = TypeVar("T")


def _ways(verbs: tuple[str, ...], ways: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(f"{verb} {way}" for verb in verbs) for name, way in ways.items()}


VERBS: Final[dict[str, tuple[str, ...]]] = {
    "static": ("stays still",),
    **_ways(("moves", "slides", "drifts"), {way: way for way in a.DIRECTIONS}),
    **_ways(
        ("moves in a circle", "circles", "orbits"),
        {"circle-cw": "clockwise", "circle-ccw": "counterclockwise"},
    ),
    "bounce": ("bounces off the walls", "bounces around"),
    **_ways(
        ("spins", "rotates", "turns"),
        {"spin-cw": "clockwise", "spin-ccw": "counterclockwise"},
    ),
    "grow": ("grows", "gets bigger"),
    "shrink": ("shrinks", "gets smaller"),
}
"""Alternatives for every motion; the first is the canonical one."""
ADVERBS: Final = {"slow": "slowly", "fast": "quickly"}
CAMERA_WORDS: Final = {
    name: f"the camera {name.split('-')[0]}s {name.split('-')[1]}" for name in a.CAMERAS[1:]
}
_TEXTURES: Final = a.TEXTURES[1:]


def _vocabulary() -> tuple[str, ...]:
    phrases = [*a.COLOURS, *a.SHAPES, *_TEXTURES, *a.SIZES, *ADVERBS.values()]
    phrases += [phrase for verbs in VERBS.values() for phrase in verbs]
    phrases += [*CAMERA_WORDS.values(), "a and , ."]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


WORDS: Final = _vocabulary()
"""Every word of the grammar, the comma and the period included, in a fixed order."""


@dataclass(frozen=True)
class ObjectCaption:
    """What a caption says about one object; None is left unsaid."""

    colour: str
    shape: str
    motion: str
    size: str | None = None
    texture: str | None = None
    speed: str | None = None


@dataclass(frozen=True)
class Caption:
    """What a caption says."""

    objects: tuple[ObjectCaption, ...]
    camera: str = "static"


def caption_of(scene: Scene) -> Caption:
    """Everything that can be said about a scene."""
    objects = tuple(
        ObjectCaption(
            thing.colour,
            thing.shape,
            thing.motion,
            thing.size,
            None if thing.texture == "plain" else thing.texture,
            None if thing.pace is not None else thing.speed,
        )
        for thing in scene.objects
    )
    return Caption(objects, scene.camera.motion)


def print_caption(scene: Scene | Caption, paraphrase: Words | None = None) -> str:
    """The sentence for a scene.

    Args:
        scene: The scene, or what is to be said.
        paraphrase: Draw other wordings from here, and leave out size, texture and speed with
            probability 0.3 each; without it the canonical sentence.
    """
    caption = caption_of(scene) if isinstance(scene, Scene) else scene
    sentences = [_print_object(thing, paraphrase) for thing in caption.objects]
    text = " and ".join(sentences)
    if caption.camera != "static":
        text += f", {CAMERA_WORDS[caption.camera]}"
    return text + "."


def _print_object(thing: ObjectCaption, paraphrase: Words | None) -> str:
    def said(word: str | None) -> list[str]:
        dropped = paraphrase is not None and paraphrase.uniform() < 0.3
        return [word] if word and not dropped else []

    verbs = VERBS[thing.motion]
    verb = paraphrase.choice(verbs) if paraphrase is not None else verbs[0]
    adverb = ADVERBS[thing.speed] if thing.speed else None
    words = [*said(thing.size), *said(thing.texture), thing.colour, thing.shape, verb]
    return " ".join(["a", *words, *said(adverb)])


def parse_caption(text: str) -> Caption:
    """Read a sentence of the grammar; case and the final period do not matter.

    Raises:
        ValueError: If a word is unknown (with the nearest known one) or the grammar is broken (with
            what was expected there).
    """
    words = text.lower().replace(",", " , ").replace(".", " . ").split()
    if words and words[-1] == ".":
        words.pop()
    for word in words:
        if word not in WORDS:
            raise ValueError(f"got the unknown word {word!r}, expected one like {_nearest(word)!r}")
    reader = _Reader(words)
    objects = [_parse_object(reader)]
    while reader.take(["and"]):
        objects.append(_parse_object(reader))
    camera = "static"
    if reader.take([","]):
        camera = reader.expect({tuple(v.split()): k for k, v in CAMERA_WORDS.items()})
    reader.finish()
    return Caption(tuple(objects), camera)


def _nearest(word: str) -> str:
    if word == "an":  # "an orange": closer in letters to "and"
        return "a"
    return difflib.get_close_matches(word, WORDS, n=1, cutoff=0)[0]


def _parse_object(reader: _Reader) -> ObjectCaption:
    reader.expect({("a",): "a"})
    size = reader.maybe({(word,): word for word in a.SIZES})
    texture = reader.maybe({(word,): word for word in _TEXTURES})
    colour = reader.expect({(word,): word for word in a.COLOURS})
    shape = reader.expect({(word,): word for word in a.SHAPES})
    motion = reader.expect({tuple(v.split()): name for name, vs in VERBS.items() for v in vs})
    speed = None
    if motion != "static":
        speed = reader.maybe({(adverb,): name for name, adverb in ADVERBS.items()})
    return ObjectCaption(colour, shape, motion, size, texture, speed)


def _common(phrase: Sequence[str], words: Sequence[str]) -> int:
    """How many words the two have in common at their beginnings."""
    pairs = zip(phrase, words, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class _Reader:
    """A position in a list of words."""

    def __init__(self, words: list[str]) -> None:
        self.words, self.position = words, 0

    def take(self, phrase: list[str]) -> bool:
        end = self.position + len(phrase)
        if self.words[self.position : end] != phrase:
            return False
        self.position = end
        return True

    def maybe(self, options: dict[tuple[str, ...], T]) -> T | None:
        for phrase in sorted(options, key=len, reverse=True):
            if self.take(list(phrase)):
                return options[phrase]
        return None

    def expect(self, options: dict[tuple[str, ...], T]) -> T:
        found = self.maybe(options)
        if found is None:
            raise ValueError(self._complaint(options))
        return found

    def _complaint(self, options: dict[tuple[str, ...], T]) -> str:
        """What stands where the longest beginning of an option ends, and what could stand there."""
        ahead = self.words[self.position :]
        shared = {phrase: _common(phrase, ahead) for phrase in options}
        length = max(shared.values())
        nexts = {phrase[length]: None for phrase, count in shared.items() if count == length}
        got = repr(ahead[length]) if length < len(ahead) else "the end"
        return f"got {got} as word {self.position + length + 1}, expected {', '.join(nexts)}"

    def finish(self) -> None:
        if self.position < len(self.words):
            raise ValueError(
                f"got {self.words[self.position]!r} as word {self.position + 1}, "
                "expected 'and', a comma and the camera, or the end"
            )
