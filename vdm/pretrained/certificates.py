"""How close each imported system is to its reference implementation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    """A measured agreement with a reference.

    Args:
        system: Name of the model.
        reference: Whose implementation it was compared with.
        version: The reference's version.
        max_abs: Largest absolute difference.
        max_rel: Largest relative L2 difference.
        date: ISO date of the measurement.
    """

    system: str
    reference: str
    version: str
    max_abs: float
    max_rel: float
    date: str


CERTIFICATES: tuple[Certificate, ...] = ()
"""One per imported system. Models trained by this package have no reference but themselves."""


def systems() -> list[Certificate]:
    """Every supported public system with its certificate."""
    return list(CERTIFICATES)
