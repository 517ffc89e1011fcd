"""Does a clip show what its caption says: attribute by attribute, as a whole, and how often.

Beside the accuracy stand baselines that must fail (:func:`static_copy`, :func:`shuffled_frames`,
captions of other clips) and the pairs of attributes that fail most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.oracle import ObjectReading, Reading
from vdm.metrics.score import Score, proportion_score
from vdm.world.agreement import agreement
from vdm.world.captions import Caption, ObjectCaption, parse_caption
from vdm.world.realise import MAX_OBJECTS

ATTRIBUTES = ("count", "colour", "shape", "motion", "size", "speed", "camera")
"""What the oracle reads; it does not read textures."""
PAIRS = (("shape", "motion"), ("colour", "shape"), ("colour", "motion"))


@dataclass(frozen=True)
class CaptionScore:
    """How one clip compares with its caption.

    Args:
        pairs: Every object that was asked for, and what was found in its place.
        correct: For each attribute, whether it is right for every object; without the attributes
            that the caption leaves open.
        whole: Whether count, colours, shapes and motions are all right.
        is_persistent: Whether there are objects of known shapes, and their colours, shapes and
            number hold over all frames.
    """

    pairs: tuple[tuple[ObjectCaption, ObjectReading | None], ...]
    correct: dict[str, bool]
    whole: bool
    is_persistent: bool


def score_caption(reading: Reading, caption: Caption | str) -> CaptionScore:
    """Compare what a clip shows with what its caption says.

    Args:
        reading: What the oracle read.
        caption: What was asked for, parsed or in words.

    Raises:
        ValueError: If the caption is outside the grammar or names more objects than the world
            has room for.
    """
    told = parse_caption(caption) if isinstance(caption, str) else caption
    if len(told.objects) > MAX_OBJECTS:
        raise ValueError(f"got {len(told.objects)} objects, expected at most {MAX_OBJECTS}")
    found = agreement(told, reading)
    right = {"count": found.count, **found.attributes, "camera": found.camera}
    correct = {name: right[name] for name in ATTRIBUTES if name in right}
    known = all(thing.shape for thing in reading.objects)
    is_persistent = reading.is_persistent and bool(reading.objects) and known
    return CaptionScore(found.pairs, correct, found.whole, is_persistent)


def caption_accuracy(
    scores: Sequence[CaptionScore],
    protocol: str,
    ceilings: dict[str, float] | None = None,
) -> dict[str, Score]:
    """Shares of clips, in percent: ``whole``, every attribute, and ``persistence``.

    Args:
        scores: One per clip.
        protocol: Protocol id; ``{part}`` in it becomes the name of the share.
        ceilings: What real clips reach, by name of the share.

    Returns:
        Scores with Wilson intervals; an attribute counts the clips whose caption names it.

    Raises:
        ValueError: If there is no clip.
    """
    if not scores:
        raise ValueError("got no clips, expected at least 1")
    values = {"whole": [score.whole for score in scores]}
    for name in ATTRIBUTES:
        values[name] = [score.correct[name] for score in scores if name in score.correct]
    values["persistence"] = [score.is_persistent for score in scores]
    return {
        name: proportion_score(
            sum(right), len(right), protocol.replace("{part}", name), (ceilings or {}).get(name)
        )
        for name, right in values.items()
        if right
    }


@dataclass(frozen=True)
class PairFailure:
    """How often objects with a pair of attribute values fail.

    Args:
        attributes: The two attributes, e.g. ``("shape", "motion")``.
        values: Their values.
        failures: Objects that miss one of the two attributes.
        total: Objects of which the caption asked for the pair.
    """

    attributes: tuple[str, str]
    values: tuple[str, str]
    failures: int
    total: int


def failures_by_pair(scores: Sequence[CaptionScore]) -> list[PairFailure]:
    """Pairs of attribute values that were asked for and missed, the most frequent first."""
    failures: Counter[tuple[tuple[str, str], tuple[str, str]]] = Counter()
    totals: Counter[tuple[tuple[str, str], tuple[str, str]]] = Counter()
    for score in scores:
        for told, found in score.pairs:
            for names in PAIRS:
                values = getattr(told, names[0]), getattr(told, names[1])
                seen = tuple(getattr(found, name, None) for name in names)
                totals[names, values] += 1
                failures[names, values] += seen != values
    rows = [PairFailure(*key, count, totals[key]) for key, count in failures.items() if count]
    return sorted(rows, key=lambda row: (-row.failures, -row.failures / row.total, row.values))


def static_copy(clips: Clips) -> Clips:
    """Baseline: the first frame all the time; right for what does not move."""
    check_clips(clips)
    return np.repeat(clips[:, :1], clips.shape[1], 1)


def shuffled_frames(clips: Clips, seed: int = 0) -> Clips:
    """Baseline: every frame is real, but their order is not.

    Args:
        clips: Real clips of at least 3 frames.
        seed: Seed of the orders, one per clip; never the true order or its reverse.
    """
    check_clips(clips, min_frames=3)
    draws = np.random.Philox(key=seed)
    result = np.empty_like(clips)
    for k, clip in enumerate(clips):
        order = np.argsort(draws.random_raw(len(clip)), kind="stable")
        while (np.abs(np.diff(order)) == 1).all():
            order = np.argsort(draws.random_raw(len(clip)), kind="stable")
        result[k] = clip[order]
    return result


def swapped(captions: Sequence[str]) -> list[str]:
    """Baseline: every clip gets the caption of the next."""
    return [*captions[1:], *captions[:1]]
