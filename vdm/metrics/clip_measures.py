"""Numbers of single clips: each protocol is their mean over clips. Most need no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from vdm.metrics.between import Between, flow_warp, linear
from vdm.metrics.clips import Clips, check_clips
from vdm.metrics.drift import WINDOW, drift
from vdm.metrics.motion import is_dynamic, motion_amount
from vdm.metrics.optical_flow import FlowEstimator, visible_mask, warping_error
from vdm.metrics.temporal import flicker, jitter
from vdm.metrics.vbench import FLICKER, scaled, smoothness

Row = dict[str, float]


@dataclass(frozen=True)
class ClipMeasure:
    """What is measured of every clip by itself.

    Args:
        name: What the protocol is called.
        measure: From uint8 clips, and their captions where it reads them, to a row of named
            numbers for each.
        estimator: Settings of what measures, for the protocol id.
        min_frames: Fewest frames that a clip may have.
        weights: Hash of the weights, if there are any.
        reads_captions: Whether clips need captions.
    """

    name: str
    measure: Callable[..., list[Row]]
    estimator: str = ""
    min_frames: int = 2
    weights: str = ""
    reads_captions: bool = False

    @property
    def key(self) -> str:
        """Under which name records keep the rows: other weights are other measurements."""
        return f"{self.name}@{self.weights}" if self.weights else self.name

    def rows(self, clips: Clips, captions: Callable[[], Sequence[str]]) -> list[Row]:
        """The numbers of some clips."""
        return self.measure(clips, captions()) if self.reads_captions else self.measure(clips)


def measure_jitter(clips: Clips) -> list[Row]:
    """The three numbers of :class:`vdm.metrics.temporal.Jitter`, in percent."""
    return [asdict(value) for value in jitter(clips)]


def measure_flicker(clips: Clips) -> list[Row]:
    """Difference of neighbouring frames in percent, VBench's 100 (1 - difference), and scaled."""
    return [
        {"difference": 100 * v, "vbench": 100 * (1 - v), "scaled": 100 * scaled(FLICKER, 1 - v)}
        for v in map(float, flicker(clips))
    ]


def measure_motion(clips: Clips) -> list[Row]:
    """How much moves: beside every number that a still clip wins.

    ``amount`` is in percent of the width a frame; ``dynamic`` is 100 for a clip that moves in
    VBench's sense, with another estimator of flow.
    """
    check_clips(clips, min_frames=2)
    estimator = FlowEstimator()
    flows = [estimator(clip) for clip in clips]
    return [{"amount": motion_amount(f), "dynamic": 100.0 * is_dynamic(f)} for f in flows]


def measure_warping(clips: Clips) -> list[Row]:
    """Mean squared error after warping by the clip's own flow, values in [0, 1]."""
    check_clips(clips, min_frames=2)
    estimator = FlowEstimator()
    rows = []
    for clip in clips:
        forward, backward = estimator(clip), estimator(clip, reverse=True)
        rows.append({"error": warping_error(clip, forward, visible_mask(forward, backward))})
    return rows


def measure_smoothness(clips: Clips, between: Between) -> list[Row]:
    """VBench's motion smoothness in percent, with another interpolator than its AMT."""
    return [{"raw": 100 * value} for value in map(float, smoothness(clips, between))]


CLIP_MEASURES = (
    ClipMeasure("jitter", measure_jitter, "dis-medium", 3),
    ClipMeasure("motion", measure_motion, "dis-medium"),
    ClipMeasure("warp/self", measure_warping, "dis-medium"),
    ClipMeasure("flicker", measure_flicker),
    ClipMeasure("drift", drift, f"dis-medium-window{WINDOW}", 2 * WINDOW),
    ClipMeasure(
        "smoothness/flow-warp", partial(measure_smoothness, between=flow_warp), "dis-medium", 3
    ),
    ClipMeasure("smoothness/linear", partial(measure_smoothness, between=linear), min_frames=3),
)
