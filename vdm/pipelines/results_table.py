"""The scores of an evaluation as the table of a README or a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdm.pipelines.evaluate_report import GENERATED, REAL, RECONSTRUCTED, SOURCES

CAPTIONS = "caption-accuracy"
PARTS = ("count", "colour", "shape", "motion", "size", "speed", "camera", "persistence")
LABELS = {
    GENERATED: "**the model**",
    REAL: "ceiling: real clips",
    RECONSTRUCTED: "ceiling: real clips through the VAE",
}
QUALITY = {
    "reconstruction/psnr": ("VAE reconstruction, PSNR", "dB"),
    "reconstruction/ssim": ("VAE reconstruction, SSIM", ""),
    "fmd/flow": ("motion distance `fmd/flow`", ""),
    "jitter/residual": ("residual jitter", "%"),
}


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

    for source in SOURCES:
        label = LABELS.get(source, f"must fail: {source}")
        add(f"whole caption, {label}", source, f"{CAPTIONS}/whole", "%")
    for part in PARTS:
        label = "identity persistence" if part == "persistence" else part
        add(f"the model: {label}", GENERATED, f"{CAPTIONS}/{part}", "%")
    for name, (label, unit) in QUALITY.items():
        source = RECONSTRUCTED if name.startswith("reconstruction") else GENERATED
        add(label, source, name, unit)
    return rows


def results_table(evaluation: Mapping[str, Any]) -> str:
    """The rows as Markdown, ending in a line on how to read them.

    Args:
        evaluation: As for :func:`results_rows`.

    Raises:
        ValueError: If there are no scores.
    """
    head, *rows = results_rows(evaluation)
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
    value = _number(score["value"]) + (f" {unit}" if unit else "")
    if "interval" not in score:
        return value
    low, high = score["interval"]
    return f"{value} ({_number(low)}-{_number(high)})"


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
