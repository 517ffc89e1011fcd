"""A page that shows clips, tables and curves and needs no other file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vdm.data.block_store import write_text
from vdm.pipelines.clip import Clip

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui; max-width: 1040px; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; }
.clips { display: flex; flex-wrap: wrap; gap: 14px; }
figure { margin: 0; } figure img { image-rendering: pixelated; display: block; border-radius: 4px; }
figcaption { font-size: 13px; max-width: 232px; margin-top: 4px; }
table { border-collapse: collapse; } td, th { padding: 3px 12px; text-align: left; }
th { border-bottom: 1px solid; } td { border-bottom: 1px solid #8884; }
td:not(:first-child), th:not(:first-child) { text-align: right; }
.note { opacity: 0.75; } code { font-size: 13px; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
"""


@dataclass
class Report:
    """A page built from top to bottom.

    Args:
        title: Headline.
        lead: One paragraph below it.
    """

    title: str
    lead: str = ""
    body: list[str] = field(default_factory=list)

    def section(self, title: str, text: str = "") -> None:
        """Begin a section.

        Args:
            title: Headline.
            text: A paragraph below it.
        """
        self.body.append(f"<h2>{html.escape(title)}</h2>")
        self.note(text)

    def note(self, text: str) -> None:
        """A paragraph; nothing if it is empty."""
        if text:
            self.body.append(f'<p class="note">{html.escape(text)}</p>')

    def clips(self, clips: Iterable[tuple[str, Clip]], width: int = 232) -> None:
        """Clips that play side by side.

        Args:
            clips: Words under each clip, and the clip.
            width: On the page, in pixels.
        """
        figures = []
        for words, clip in clips:
            said = html.escape(words, quote=True)
            figures.append(
                f'<figure><img src="{clip.data_url(".webp")}" width="{width}" alt="{said}">'
                f"<figcaption>{said}</figcaption></figure>"
            )
        self.body.append(f'<div class="clips">{"".join(figures)}</div>')

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table.

        Args:
            columns: Their headings.
            rows: Cells, as they are to be read.
        """
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        lines = [
            "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
            for row in rows
        ]
        self.body.append(f"<table><tr>{head}</tr>{''.join(lines)}</table>")

    def curve(self, points: Sequence[tuple[float, float]], x: str, y: str) -> None:
        """A line through points, with the first and last value written out.

        Args:
            points: ``(x, y)``, in order of ``x``.
            x: What the horizontal axis shows.
            y: What the vertical one does.
        """
        if len(points) > 1:
            self.body.append(_curve(points, html.escape(x), html.escape(y)))

    def html(self) -> str:
        """The page."""
        title = html.escape(self.title)
        lead = f"<p>{html.escape(self.lead)}</p>" if self.lead else ""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body><h1>{title}</h1>{lead}{''.join(self.body)}</body></html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, [self.html().removesuffix("\n")])
        return path


def _curve(points: Sequence[tuple[float, float]], x: str, y: str) -> str:
    """A small drawing, 560 x 200, with room for the labels."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    left, right, top, bottom = 60, 540, 16, 160
    spread_x, spread_y = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    placed = [
        (
            left + (right - left) * (px - min(xs)) / spread_x,
            bottom - (bottom - top) * (py - min(ys)) / spread_y,
        )
        for px, py in points
    ]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in placed)
    dots = "".join(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5"/>' for px, py in placed)
    return (
        '<svg viewBox="0 0 560 200" width="560" height="200" fill="currentColor" role="img">'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>{dots}'
        f'<text x="{left - 8}" y="{placed[0][1] + 4:.0f}" text-anchor="end">{ys[0]:.3f}</text>'
        f'<text x="{right}" y="{placed[-1][1] - 8:.0f}" text-anchor="end">{ys[-1]:.3f}</text>'
        f'<text x="{left}" y="180">{xs[0]:g}</text>'
        f'<text x="{right}" y="180" text-anchor="end">{xs[-1]:g}</text>'
        f'<text x="{(left + right) / 2:.0f}" y="196" text-anchor="middle">{x}</text>'
        f'<text x="14" y="{(top + bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + bottom) / 2:.0f})">{y}</text></svg>'
    )
