"""The scores of an evaluation as the table of a README or a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdm.pipelines.evaluate_report import GENERATED, REAL, RECONSTRUCTED, SOURCES

CAPTIONS = "caption-accuracy"
PARTS = ("count", "colour", "shape", "motion", "size", "speed", "camera", "persistence")
LABELS = {
    GENERATED: "the model",
    REAL: "ceiling: real clips",
    RECONSTRUCTED: "ceiling: real clips through the VAE",
}
QUALITY = (
    (RECONSTRUCTED, "reconstruction/psnr", "VAE reconstruction, PSNR", "dB"),
    (RECONSTRUCTED, "reconstruction/ssim", "VAE reconstruction, SSIM", ""),
    (RECONSTRUCTED, "lpips", "VAE reconstruction, LPIPS", ""),
    (GENERATED, "fmd/flow", "motion distance fmd/flow", ""),
    (GENERATED, "fmd/flow_inf", "motion distance, at infinitely many clips", ""),
    (GENERATED, "fd/transnet", "distance of features fd/transnet", ""),
    (GENERATED, "fd/transnet_inf", "distance of features, at infinitely many clips", ""),
    (GENERATED, "fvd", "video distance FVD", ""),
    (GENERATED, "fvd_inf", "video distance FVD, at infinitely many clips", ""),
    (GENERATED, "kvd", "kernel video distance KVD", ""),
    (GENERATED, "fvd/videomae", "content-debiased FVD", ""),
    (GENERATED, "fvd/videomae_inf", "content-debiased FVD, at infinitely many clips", ""),
    (GENERATED, "fid", "distance of frames FID", ""),
    (GENERATED, "is", "Inception Score: the model", ""),
    (REAL, "is", "Inception Score: real clips", ""),
    (GENERATED, "jitter/residual", "jitter, residual: the model", "%"),
    (REAL, "jitter/residual", "jitter, residual: real clips", "%"),
    (GENERATED, "jitter/luma", "jitter, luma: the model", "%"),
    (REAL, "jitter/luma", "jitter, luma: real clips", "%"),
    (GENERATED, "jitter/jerk", "jitter, jerk: the model", "%"),
    (REAL, "jitter/jerk", "jitter, jerk: real clips", "%"),
    (GENERATED, "clip/text", "CLIPSIM: the model", ""),
    (REAL, "clip/text", "CLIPSIM: real clips", ""),
    (GENERATED, "motion/amount", "motion: the model", "% of the width a frame"),
    (REAL, "motion/amount", "motion: real clips", "% of the width a frame"),
    (GENERATED, "warp/self/error", "warping error: the model", ""),
    (REAL, "warp/self/error", "warping error: real clips", ""),
    (GENERATED, "flicker/vbench", "VBench temporal flickering: the model", "%"),
    (REAL, "flicker/vbench", "VBench temporal flickering: real clips", "%"),
    (GENERATED, "smoothness/flow-warp/raw", "smoothness, frames moved by flow: the model", "%"),
    (REAL, "smoothness/flow-warp/raw", "smoothness, frames moved by flow: real clips", "%"),
    (GENERATED, "smoothness/linear/raw", "smoothness, frames cross-faded: the model", "%"),
    (REAL, "smoothness/linear/raw", "smoothness, frames cross-faded: real clips", "%"),
    (GENERATED, "subject-consistency/raw", "consistency of the subject: the model", "%"),
    (REAL, "subject-consistency/raw", "consistency of the subject: real clips", "%"),
    (GENERATED, "background-consistency/raw", "consistency of the background: the model", "%"),
    (REAL, "background-consistency/raw", "consistency of the background: real clips", "%"),
)


def results_rows(evaluation: Mapping[str, Any]) -> list[list[str]]:
    """What share of whole captions is right, then part by part, then other scores.

    Args:
        evaluation: What ``Evaluation.to_dict`` gives, from ``scores.json``.

    Returns:
        Rows of cells, the headings first: a column per data set.

    Raises:
        ValueError: If there are no scores.
    """
    scores = evaluation.get("scores", {})
    if not scores:
        raise ValueError("got an evaluation without scores, expected at least one data set")
    columns = list(scores)
    rows = [["", *columns]]

    def add(label: str, source: str, name: str, unit: str = "") -> None:
        cells = [_cell(scores[data].get(source, {}).get(name), unit) for data in columns]
        if any(cells):
            rows.append([label, *cells])

    gaps = {
        data.replace("test-iid", "test-comp"): gap
        for data, gap in evaluation.get("gaps", {}).items()
    }
    for source in SOURCES:
        label = LABELS.get(source, f"must fail: {source}")
        add(f"whole caption, {label}", source, f"{CAPTIONS}/whole", "%")
    if gaps:
        cells = [_cell({"value": gap["points"], **gap}, "points") for gap in gaps.values()]
        found = dict(zip(gaps, cells, strict=True))
        label = "whole captions, lost on unseen pairs"
        rows.append([label, *(found.get(data, "") for data in columns)])
    for part in PARTS:
        label = "identity persistence" if part == "persistence" else part
        add(f"the model: {label}", GENERATED, f"{CAPTIONS}/{part}", "%")
    for source, name, label, unit in QUALITY:
        add(label, source, name, unit)
    return rows


def results_table(evaluation: Mapping[str, Any]) -> str:
    """The rows as Markdown, the first in bold, ending in a line on how to read them.

    Args:
        evaluation: As for :func:`results_rows`.

    Raises:
        ValueError: If there are no scores.
    """
    head, *rows = results_rows(evaluation)
    rows[0] = [f"**{cell}**" if cell else "" for cell in rows[0]]
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *map(_row, rows)]
    counts = {
        score["n_gen"]
        for sources in evaluation["scores"].values()
        for score in sources.get(GENERATED, {}).values()
        if score["protocol"].startswith(f"{CAPTIONS}/whole")
    }
    if counts:
        lines += [
            "",
            f"n = {', '.join(map(str, sorted(counts)))} clips per column; 95 % intervals.",
        ]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(score: Mapping[str, Any] | None, unit: str) -> str:
    """A value with its interval."""
    if score is None:
        return ""
    if "not_enough" in score:
        return "not enough"
    value = _number(score["value"]) + (f" {unit}" if unit else "")
    if "interval" in score:
        low, high = score["interval"]
        value += f" ({_number(low)} to {_number(high)})"
    if "floor" in score:
        value += f"; floor {_number(score['floor'])}"
    return value


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
