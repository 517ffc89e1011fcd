"""Measure how close every imported system is to its reference: ``make certificates``."""

import json
import sys
from datetime import date
from pathlib import Path

import diffusers

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from tests.pretrained.parity import SYSTEMS, measure  # noqa: E402
from vdm.pretrained.certificates import FILE  # noqa: E402


def main() -> None:
    """Write the file that the package reads."""
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
    for entry in entries:
        part, found = list(entry["parts"].items())[-1]
        print(f"{entry['system']}: {part} differs by at most {found['max_abs']:.1e}")


if __name__ == "__main__":
    main()
