"""How close each imported system is to its reference implementation, as measured.

Measured on small models of the same structure, every parameter drawn at random (published weights
cannot hide an error then): both compute the same in float32 on a CPU from the same noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("certificates.json")


@dataclass(frozen=True)
class Agreement:
    """A measured difference.

    Args:
        max_abs: Largest absolute difference.
        max_rel: Largest relative L2 difference.
    """

    max_abs: float
    max_rel: float


@dataclass(frozen=True)
class Certificate:
    """A measured agreement with a reference.

    Args:
        system: Name of the model.
        reference: Whose implementation it was compared with.
        version: The reference's version.
        date: ISO date of the measurement.
        parts: Agreement of each part, and of whole clips as ``frames`` in [0, 1]; of the
            autoencoder alone where nothing else is measured.
    """

    system: str
    reference: str
    version: str
    date: str
    parts: dict[str, Agreement]

    @property
    def max_abs(self) -> float:
        """Largest absolute difference of frames; of the last part, where no clip is measured."""
        return self.parts.get("frames", [*self.parts.values()][-1]).max_abs

    @property
    def max_rel(self) -> float:
        """Largest relative L2 difference of any part."""
        return max(part.max_rel for part in self.parts.values())

    def __str__(self) -> str:
        what = "frames" if "frames" in self.parts else "parts"
        return (
            f"{self.system}: {what} as from {self.reference} {self.version} to {self.max_abs:.0e}, "
            f"parts to {self.max_rel:.0e} (measured {self.date})"
        )


def systems() -> list[Certificate]:
    """Every supported public system with its certificate."""
    return [
        Certificate(
            **{key: value for key, value in entry.items() if key != "parts"},
            parts={name: Agreement(**part) for name, part in entry["parts"].items()},
        )
        for entry in json.loads(FILE.read_text(encoding="utf-8"))
    ]


def certificate(system: str) -> Certificate | None:
    """That of one system, if there is one."""
    return next((found for found in systems() if found.system == system), None)
