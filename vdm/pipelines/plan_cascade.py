"""What a call of a cascade will cost: its models' plans, each in the size that it works on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vdm.pipelines.plan import Stage, measure_encoder, plan, read_description
from vdm.pipelines.request import time_grid_for
from vdm.pretrained.cascades import StageCard, is_cascade, read_cascade
from vdm.pretrained.parts import parts_from
from vdm.pretrained.sources import locate


def plan_source(source: str | Path, motion: str | Path | None = None, **asked: Any) -> list[Stage]:
    """The stages of a generation, in order, whether by one model or by several.

    Args:
        source: As for :func:`vdm.pipelines.plan.read_description`, or a folder of a cascade.
        motion: A motion adapter, for an image model.
        asked: Further arguments of :func:`vdm.pipelines.plan.plan`.

    Raises:
        ValueError: If the model cannot make such clips.
        FileNotFoundError: If the path leads nowhere.
    """
    if not is_cascade(source):
        return plan(read_description(source, motion), **asked)
    if motion is not None:
        raise ValueError(f"got motion={str(motion)!r} for a cascade, expected None")
    _, cards = read_cascade(source)
    folder = locate(source)
    return list(_plan(cards, [read_description(folder / card.model) for card in cards], **asked))


def _plan(
    cards: list[StageCard],
    descriptions: list[dict[str, Any]],
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    **asked: Any,
) -> Iterator[Stage]:
    last = parts_from(descriptions[-1], "plan", on_meta=True)
    temporal = getattr(last.autoencoder, "strides", (1, 1, 1))[0]
    grid = time_grid_for(last.defaults, temporal, num_frames, None, None)
    height, width = height or last.defaults.height, width or last.defaults.width
    stride = _product(cards, "interpolate")
    shrink = _product(cards, "upscale")
    for number, (card, description) in enumerate(zip(cards, descriptions, strict=True)):
        factor = card.factor or 1
        if card.kind == "interpolate":
            stride //= factor
        if card.kind == "upscale":  # by way of pixels: decoded, made larger, encoded again
            small = (grid.num_frames, height // shrink, width // shrink)
            stages = _plan_at(description, *small, **asked)
            yield from (_of(card, stage) for stage in stages if stage.name == "decoder")
            shrink //= factor
            large = (grid.num_frames, height // shrink, width // shrink)
            some = {name: asked[name] for name in ("batch", "dtype") if name in asked}
            yield _of(card, measure_encoder(description, *large, **some))
        size = (grid.every(stride).num_frames, height // shrink, width // shrink)
        is_last = number == len(cards) - 1
        for stage in _plan_at(description, *size, **asked):
            if is_last or stage.name != "decoder":
                yield _of(card, stage)


def _plan_at(
    description: dict[str, Any], num_frames: int, height: int, width: int, **asked: Any
) -> list[Stage]:
    return plan(description, num_frames=num_frames, height=height, width=width, **asked)


def _product(cards: list[StageCard], kind: str) -> int:
    return math.prod(card.factor or 1 for card in cards if card.kind == kind)


def _of(card: StageCard, stage: Stage) -> Stage:
    return replace(stage, name=f"{card.kind}: {stage.name}")
