"""Video diffusion models on one core: load a model, generate a clip.

Importing the package is instant; what a name stands for is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdm import pretrained
    from vdm.pipelines.clip import Clip
    from vdm.pipelines.generate import Generator
    from vdm.pipelines.load import load
    from vdm.types import Conditioning

__version__ = "0.1.0"
__all__ = ["Clip", "Conditioning", "Generator", "load", "pretrained"]

_HOMES = {
    "Clip": "vdm.pipelines",
    "Conditioning": "vdm.types",
    "Generator": "vdm.pipelines",
    "load": "vdm.pipelines",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "pretrained":
        return importlib.import_module("vdm.pretrained")
    raise AttributeError(f"module 'vdm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
