"""Published figures, so that a score stands beside those of its own protocol and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("anchors.json")
PROTOCOL = re.compile(
    r"(?P<metric>.+?)(?:@[0-9a-f]+)?/(?P<frames>\d+)f(?:@[\d.]+)?/(?P<resolution>[\dx]+)/.*?"
    r"(?P<data>[^/]+)/n(?P<n>\d+)(?:/(?P<estimator>[^/]+))?/r\d+"
)
UNBIASED = ("reconstruction/", "clip/")
"""Means over clips: how many there were moves the interval, not the value."""


@dataclass(frozen=True)
class Anchors:
    """Figures of one protocol, from papers.

    Args:
        title: What was done.
        metric: Metric and extractor, without the hash of its weights.
        frames: Frames per clip.
        resolution: Frame size; empty if it differs between papers.
        data: Data set.
        n: Clips; None if that differs between papers, or is not told.
        estimator: Settings of the estimator, as in protocol ids.
        note: What else must be known.
        rows: Value by model.
    """

    title: str
    metric: str
    frames: int
    resolution: str
    data: str
    n: int | None
    estimator: str
    note: str
    rows: Mapping[str, float]

    def has_protocol(self, protocol: str) -> bool:
        """Whether a score of a protocol may stand beside these.

        The data set is that of a folder whose name begins with it. Where papers differ in what
        changes the number, nothing may.
        """
        parts = PROTOCOL.fullmatch(protocol)
        if parts is None:
            return False
        is_unbiased = self.metric.startswith(UNBIASED)
        return (
            parts["metric"] == self.metric
            and int(parts["frames"]) == self.frames
            and parts["resolution"] == self.resolution
            and parts["data"].lower().startswith(self.data)
            and (is_unbiased or int(parts["n"]) == self.n)
            and (parts["estimator"] or "") == self.estimator
        )


@cache
def published() -> tuple[Anchors, ...]:
    """All published figures that are known here."""
    return tuple(Anchors(**row) for row in json.loads(FILE.read_text(encoding="utf-8")))


def anchors_of(protocol: str) -> list[Anchors]:
    """Published figures of a protocol; usually there are none."""
    return [group for group in published() if group.has_protocol(protocol)]
