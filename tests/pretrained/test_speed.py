"""How much memory published networks take beside their references; ``make bench`` has the times."""

import pytest

from tests.pretrained import speed
from tests.pretrained.speed import CASES, peak_bytes
from vdm.layers import pieces

SMALL, WIDTHS = (8, 12), (64, 64, 128, 128)
SHARE = 10
"""By how much the clip is smaller than that of the benchmark, and so are the pieces."""


@pytest.mark.parametrize(("name", "most"), [("SVD U-Net", 0.6), ("SVD temporal decoder", 0.5)])
def test_most_memory_is_a_share_of_the_references(name, most, monkeypatch):
    for size in ("PIECE", "MIN_TOKENS", "PIECE_OF_VOLUME", "MIN_PIXELS"):
        monkeypatch.setattr(pieces, size, getattr(pieces, size) // SHARE)
    monkeypatch.setattr(speed, "WIDTHS", WIDTHS)
    ours, theirs = CASES[name](size=SMALL, frames=6)
    assert peak_bytes(ours) <= most * peak_bytes(theirs)
