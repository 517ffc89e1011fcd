"""Measure how close every imported system is to its reference: ``make certificates``."""

import json
import re
import sys
from datetime import date
from pathlib import Path

import diffusers

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from tests.pretrained.parity import SYSTEMS, measure  # noqa: E402
from vdm.pretrained.certificates import FILE, Certificate, systems  # noqa: E402

README = ROOT / "README.md"
HEAD = """| system | reference | network | autoencoder | frames |
| --- | --- | ---: | ---: | ---: |
"""


def row(found: Certificate) -> str:
    """The README's line on a system."""
    parts = [
        f"{found.parts[name].max_rel:.1e}" if name in found.parts else "-"
        for name in ("network", "autoencoder")
    ]
    frames = f"{found.max_abs:.1e}" if "frames" in found.parts else "-"
    cells = [found.system, f"{found.reference} {found.version}", *parts, frames]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the file that the package reads, and the README's table of it."""
    entries = [
        {
            "system": system,
            "reference": family.REFERENCE,
            "version": diffusers.__version__,
            "date": date.today().isoformat(),
            "parts": measure(system),
        }
        for system, family in SYSTEMS.items()
    ]
    FILE.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    table = HEAD + "".join(f"{row(found)}\n" for found in systems())
    text = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(re.escape(HEAD) + r"(\|.*\n)*", lambda _: table, text), encoding="utf-8"
    )
    for entry in entries:
        part, found = list(entry["parts"].items())[-1]
        print(f"{entry['system']}: {part} differs by at most {found['max_abs']:.1e}")


if __name__ == "__main__":
    main()
