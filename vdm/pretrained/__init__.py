"""Models on disk: reading, checking and writing them."""

from vdm.pretrained.certificates import systems
from vdm.pretrained.components import convert, export, load_autoencoder, load_network, load_schedule
from vdm.pretrained.sources import bundled, read

__all__ = [
    "bundled",
    "convert",
    "export",
    "load_autoencoder",
    "load_network",
    "load_schedule",
    "read",
    "systems",
]
